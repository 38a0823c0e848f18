"""How good a model's outputs are: of classifiers, and of detectors as COCO counts it."""

from .classification import accuracy, class_figures, label_ranks, top_k
from .detection import best_classes, score_by_class, score_detections, to_pixels

__all__ = [
    "accuracy",
    "best_classes",
    "class_figures",
    "label_ranks",
    "score_by_class",
    "score_detections",
    "to_pixels",
    "top_k",
]
