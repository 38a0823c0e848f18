"""Models by name, and their classes: a file for each paper."""

from .modern import ModernVisionTransformer
from .registry import VARIANTS, class_names, count_parameters, create_model, list_models, preset_options
from .swin import SwinTransformer
from .vit import NarrowVisionTransformer, VisionTransformer

__all__ = [
    "VARIANTS",
    "ModernVisionTransformer",
    "NarrowVisionTransformer",
    "SwinTransformer",
    "VisionTransformer",
    "class_names",
    "count_parameters",
    "create_model",
    "list_models",
    "preset_options",
]
