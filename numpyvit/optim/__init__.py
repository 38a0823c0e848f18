"""Optimizers, learning rates and the moving average of weights."""

from .average import EMA
from .layer_decay import layer_decay
from .optimizers import SGD, AdamW, Optimizer, check_clip_norm, clip_global_norm
from .schedules import constant_schedule, cosine_schedule, step_schedule

__all__ = [
    "EMA",
    "SGD",
    "AdamW",
    "Optimizer",
    "check_clip_norm",
    "clip_global_norm",
    "constant_schedule",
    "cosine_schedule",
    "layer_decay",
    "step_schedule",
]
