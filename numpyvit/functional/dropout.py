"""Dropout masks."""

import numpy as np

from ..backend import Array, Random


def dropout_mask(random: Random, shape: tuple[int, ...], rate: float, dtype: np.dtype) -> Array:
    """An array that is 0 with probability `rate`, else 1/(1 − rate), so that the mean of x · mask is x."""
    return (random.random(shape) >= rate).astype(dtype) * (1 / (1 - rate) if rate < 1 else 0.0)
