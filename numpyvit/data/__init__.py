"""Picture sets, batches and augmentation."""

from .augment import normalize, random_affine, random_crop, random_flip
from .datasets import SOURCES, Dataset, load, load_digits, load_folder, prepared_for
from .loader import Loader
from .pictures import FolderDataset, read_picture

__all__ = [
    "SOURCES",
    "Dataset",
    "FolderDataset",
    "Loader",
    "load",
    "load_digits",
    "load_folder",
    "normalize",
    "prepared_for",
    "random_affine",
    "random_crop",
    "random_flip",
    "read_picture",
]
