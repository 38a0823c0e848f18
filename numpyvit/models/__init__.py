"""Models by name, and their classes: a file for each paper."""

from .detr import DETR, AnchorDETR
from .model import Model, class_names
from .modern import ModernVisionTransformer
from .registry import VARIANTS, count_multiply_adds, count_parameters, create_model, list_models, preset_options
from .resnet import ResNet
from .summary import Summary, rounded, summary
from .swin import SwinTransformer
from .vit import NarrowVisionTransformer, VisionTransformer

__all__ = [
    "DETR",
    "VARIANTS",
    "AnchorDETR",
    "Model",
    "ModernVisionTransformer",
    "NarrowVisionTransformer",
    "ResNet",
    "Summary",
    "SwinTransformer",
    "VisionTransformer",
    "class_names",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "list_models",
    "preset_options",
    "rounded",
    "summary",
]
