"""Image sets, batches and augmentation."""

from .augment import normalize, random_affine, random_crop, random_flip
from .dataset import Dataset
from .datasets import load, load_digits, load_test, prepared_for
from .folder import FolderDataset, load_folder, load_test_folder
from .images import read_image
from .loader import Loader
from .preprocessing import Preprocessing
from .sources import SOURCES

__all__ = [
    "SOURCES",
    "Dataset",
    "FolderDataset",
    "Loader",
    "Preprocessing",
    "load",
    "load_digits",
    "load_folder",
    "load_test",
    "load_test_folder",
    "normalize",
    "prepared_for",
    "random_affine",
    "random_crop",
    "random_flip",
    "read_image",
]
