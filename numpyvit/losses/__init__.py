"""Losses. Each returns (value, gradient by the logits), averaged over the batch.

The value is a scalar of the logits' dtype that stays on their device; read it with float(value).
"""

from ..metrics import accuracy
from .classification import cross_entropy, mse
from .denoising import denoising_queries
from .detection import detection
from .distillation import hard_distillation, soft_distillation
from .matching import match

__all__ = [
    "accuracy",
    "cross_entropy",
    "denoising_queries",
    "detection",
    "hard_distillation",
    "match",
    "mse",
    "soft_distillation",
]
