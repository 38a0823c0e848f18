"""Image sets, batches and augmentation."""

from .augment import normalize, random_affine, random_crop, random_flip
from .augment_boxes import random_box_crop, random_box_flip, random_box_scale
from .dataset import Dataset
from .datasets import (
    has_boxes,
    has_classes,
    load,
    load_detection,
    load_digits,
    load_test,
    load_test_detection,
    prepared_for,
)
from .detection import DetectionDataset
from .folder import FolderDataset, load_folder, load_folder_parts, load_test_folder
from .images import read_image
from .inspection import inspect
from .loader import Loader
from .preprocessing import Preprocessing
from .shapes import load_shapes
from .sources import SOURCES

__all__ = [
    "SOURCES",
    "Dataset",
    "DetectionDataset",
    "FolderDataset",
    "Loader",
    "Preprocessing",
    "has_boxes",
    "has_classes",
    "inspect",
    "load",
    "load_detection",
    "load_digits",
    "load_folder",
    "load_folder_parts",
    "load_shapes",
    "load_test",
    "load_test_detection",
    "load_test_folder",
    "normalize",
    "prepared_for",
    "random_affine",
    "random_box_crop",
    "random_box_flip",
    "random_box_scale",
    "random_crop",
    "random_flip",
    "read_image",
]
