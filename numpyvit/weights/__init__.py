"""Weight files: containers, checksums, the names of other libraries, and fitting them to a model."""

from .adapt import Notice, fold_channels, imagenet_classes, load_pretrained, put_weights
from .checkpoint import load_checkpoint, load_tensors, read_checkpoint, save_checkpoint, save_tensors

__all__ = [
    "Notice",
    "fold_channels",
    "imagenet_classes",
    "load_checkpoint",
    "load_pretrained",
    "load_tensors",
    "put_weights",
    "read_checkpoint",
    "save_checkpoint",
    "save_tensors",
]
