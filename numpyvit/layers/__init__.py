"""The layers, each with its forward and backward side by side."""

from ..core import FORGET, Checkpoint, Layer, Parameter
from .attention import Attention, Block
from .basic import GELU, DropPath, Dropout, GELUTanh, Identity, LayerNorm, Linear, Mlp, ReLU, Softmax, Tanh
from .vision import PatchEmbed

__all__ = [
    "FORGET",
    "Attention",
    "Block",
    "Checkpoint",
    "DropPath",
    "Dropout",
    "GELU",
    "GELUTanh",
    "Identity",
    "Layer",
    "LayerNorm",
    "Linear",
    "Mlp",
    "Parameter",
    "PatchEmbed",
    "ReLU",
    "Softmax",
    "Tanh",
]
