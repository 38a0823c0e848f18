"""The layers, each with its forward and backward side by side."""

from ..core import FORGET, Buffer, Layer, Parameter, Recompute
from .activations import GELU, GELUTanh, Identity, ReLU, Softmax, Tanh
from .attention import QKV, Attention, Block
from .batch_norm import FrozenBatchNorm2d
from .convolution import Conv2d, MaxPool2d
from .dropout import Dropout, DropPath
from .embed import DynamicEmbed, Embed
from .heads import AverageHead, ClassHead, DistilledHead, PreLogits
from .linear import Linear, Mlp
from .norm import GroupNorm, LayerNorm, LayerScale
from .patches import DynamicPatchEmbed, PatchEmbed
from .residual import BasicBlock, Bottleneck, Stem
from .sequence import Sequence
from .window import MapHead, PatchMerging, SwinBlock, SwinStage, WindowAttention

__all__ = [
    "FORGET",
    "GELU",
    "QKV",
    "Attention",
    "AverageHead",
    "BasicBlock",
    "Block",
    "Bottleneck",
    "Buffer",
    "ClassHead",
    "Conv2d",
    "DistilledHead",
    "DropPath",
    "Dropout",
    "DynamicEmbed",
    "DynamicPatchEmbed",
    "Embed",
    "FrozenBatchNorm2d",
    "GELUTanh",
    "GroupNorm",
    "Identity",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "MapHead",
    "MaxPool2d",
    "Mlp",
    "Parameter",
    "PatchEmbed",
    "PatchMerging",
    "PreLogits",
    "ReLU",
    "Recompute",
    "Sequence",
    "Softmax",
    "Stem",
    "SwinBlock",
    "SwinStage",
    "Tanh",
    "WindowAttention",
]
