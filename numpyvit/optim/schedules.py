"""Learning rates: functions of the step's number, from 0."""

import math
from collections.abc import Callable

from ..errors import ConfigError


def constant_schedule(lr: float, warmup_steps: int = 0) -> Callable[[int], float]:
    """η, after a linear rise over the first `warmup_steps`."""
    _check_warmup(warmup_steps)
    return lambda step: lr * _warmup(step, warmup_steps)


def cosine_schedule(lr: float, total_steps: int, warmup_steps: int = 0, min_lr: float = 0.0) -> Callable[[int], float]:
    """min + (η − min)(1 + cos(π s))/2, s from 0 after the warm-up to 1 at `total_steps` (arXiv:1608.03983)."""
    _check_warmup(warmup_steps)

    def rate(step):
        if step < warmup_steps:
            return lr * _warmup(step, warmup_steps)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2

    return rate


def step_schedule(lr: float, step_size: int, gamma: float = 0.1, warmup_steps: int = 0) -> Callable[[int], float]:
    """η γ^⌊step/step_size⌋, after a linear rise over the first `warmup_steps`."""
    _check_warmup(warmup_steps)
    return lambda step: lr * _warmup(step, warmup_steps) * gamma ** (step // step_size)


def _check_warmup(warmup_steps):
    if warmup_steps < 0:
        raise ConfigError(f"warmup_steps must not be negative, got {warmup_steps}")


def _warmup(step, warmup_steps):
    return min(1.0, (step + 1) / (warmup_steps + 1)) if warmup_steps else 1.0
