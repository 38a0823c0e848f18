"""The layers, each with its forward and backward side by side."""

from ..core import FORGET, Buffer, Layer, Parameter, Recompute
from .activations import GELU, BiasedGELU, GELUTanh, Identity, ReLU, Softmax, Tanh
from .attention import QKV, Attention, Block
from .batch_norm import FrozenBatchNorm2d
from .convolution import Conv2d, MaxPool2d
from .cross_attention import MultiheadAttention
from .dropout import Dropout, DropPath
from .embed import DynamicEmbed, Embed
from .heads import AverageHead, ClassHead, DistilledHead, PreLogits
from .linear import Linear, Mlp, Perceptron
from .norm import GroupNorm, LayerNorm, LayerScale, Standardize
from .patches import DynamicPatchEmbed, PatchEmbed
from .positions import Embedding, LearnedPosition, SinePosition
from .queries import AnchorQueries, LearnedQueries
from .residual import BasicBlock, Bottleneck, ConvNorm, Stem
from .sequence import Sequence
from .transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    FeedForward,
    PreNormDecoderLayer,
    PreNormEncoderLayer,
    Transformer,
)
from .window import MapHead, PatchMerging, SwinBlock, SwinStage, WindowAttention

__all__ = [
    "FORGET",
    "GELU",
    "QKV",
    "AnchorQueries",
    "Attention",
    "AverageHead",
    "BasicBlock",
    "BiasedGELU",
    "Block",
    "Bottleneck",
    "Buffer",
    "ClassHead",
    "Conv2d",
    "ConvNorm",
    "Decoder",
    "DecoderLayer",
    "DistilledHead",
    "DropPath",
    "Dropout",
    "DynamicEmbed",
    "DynamicPatchEmbed",
    "Embed",
    "Embedding",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "FrozenBatchNorm2d",
    "GELUTanh",
    "GroupNorm",
    "Identity",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "LearnedPosition",
    "LearnedQueries",
    "Linear",
    "MapHead",
    "MaxPool2d",
    "Mlp",
    "MultiheadAttention",
    "Parameter",
    "PatchEmbed",
    "PatchMerging",
    "Perceptron",
    "PreLogits",
    "PreNormDecoderLayer",
    "PreNormEncoderLayer",
    "ReLU",
    "Recompute",
    "Sequence",
    "SinePosition",
    "Softmax",
    "Standardize",
    "Stem",
    "SwinBlock",
    "SwinStage",
    "Tanh",
    "Transformer",
    "WindowAttention",
]
