"""Losses. Each returns (value, gradient by the logits), averaged over the batch.

The value is a scalar of the logits' dtype that stays on their device; read it with float(value).
"""

from ..metrics import accuracy
from .classification import cross_entropy, mse
from .detection import detection
from .distillation import hard_distillation, soft_distillation
from .matching import match

__all__ = ["accuracy", "cross_entropy", "detection", "hard_distillation", "match", "mse", "soft_distillation"]
