"""How good a model's outputs are: of classifiers, and of detectors as COCO counts it."""

from .calibration import Reliability, reliability
from .classification import accuracy, class_figures, confusion_matrix, label_ranks, precision_recall_f1, top_k
from .detection import (
    best_classes,
    flatten_detections,
    precision_curves,
    score_by_class,
    score_detections,
    to_pixels,
    unflatten_detections,
)

__all__ = [
    "Reliability",
    "accuracy",
    "best_classes",
    "class_figures",
    "confusion_matrix",
    "flatten_detections",
    "label_ranks",
    "precision_curves",
    "precision_recall_f1",
    "reliability",
    "score_by_class",
    "score_detections",
    "to_pixels",
    "top_k",
    "unflatten_detections",
]
