"""The layers, each with its forward and backward side by side."""

from ..core import FORGET, Checkpoint, Layer, Parameter
from .attention import Attention, Block, QKNormAttention, ScaledBlock
from .basic import GELU, Dropout, DropPath, GELUTanh, Identity, LayerNorm, LayerScale, Linear, Mlp, ReLU, Softmax, Tanh
from .vision import DynamicPatchEmbed, PatchEmbed

__all__ = [
    "FORGET",
    "GELU",
    "Attention",
    "Block",
    "Checkpoint",
    "DropPath",
    "Dropout",
    "DynamicPatchEmbed",
    "GELUTanh",
    "Identity",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "Mlp",
    "Parameter",
    "PatchEmbed",
    "QKNormAttention",
    "ReLU",
    "ScaledBlock",
    "Softmax",
    "Tanh",
]
