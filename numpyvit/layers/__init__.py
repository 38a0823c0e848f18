"""The layers, each with its forward and backward side by side."""

from ..core import FORGET, Checkpoint, Layer, Parameter
from .activations import GELU, GELUTanh, Identity, ReLU, Softmax, Tanh
from .attention import Attention, Block, QKNormAttention, ScaledBlock
from .dropout import Dropout, DropPath
from .linear import Linear, Mlp
from .norm import LayerNorm, LayerScale
from .patches import DynamicPatchEmbed, PatchEmbed

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
