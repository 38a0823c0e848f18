"""The layers, each with its forward and backward side by side."""

from ..core import FORGET, Buffer, Layer, Parameter, Recompute
from .activations import GELU, GELUTanh, Identity, ReLU, Softmax, Tanh
from .attention import QKV, Attention, Block
from .dropout import Dropout, DropPath
from .embed import DynamicEmbed, Embed
from .heads import AverageHead, ClassHead, DistilledHead, PreLogits
from .linear import Linear, Mlp
from .norm import LayerNorm, LayerScale
from .patches import DynamicPatchEmbed, PatchEmbed
from .sequence import Sequence
from .window import MapHead, PatchMerging, SwinBlock, SwinStage, WindowAttention

__all__ = [
    "FORGET",
    "GELU",
    "QKV",
    "Attention",
    "AverageHead",
    "Block",
    "Buffer",
    "ClassHead",
    "DistilledHead",
    "DropPath",
    "Dropout",
    "DynamicEmbed",
    "DynamicPatchEmbed",
    "Embed",
    "GELUTanh",
    "Identity",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "MapHead",
    "Mlp",
    "Parameter",
    "PatchEmbed",
    "PatchMerging",
    "PreLogits",
    "ReLU",
    "Recompute",
    "Sequence",
    "Softmax",
    "SwinBlock",
    "SwinStage",
    "Tanh",
    "WindowAttention",
]
