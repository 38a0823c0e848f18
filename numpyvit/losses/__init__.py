"""Losses. Each returns (value, gradient by the logits), averaged over the batch.

The value is a scalar of the logits' dtype that stays on their device; read it with float(value).
"""

from ..metrics import accuracy
from .classification import cross_entropy, mse
from .distillation import hard_distillation, soft_distillation

__all__ = ["accuracy", "cross_entropy", "hard_distillation", "mse", "soft_distillation"]
