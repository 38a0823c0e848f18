"""The random numbers of backend.philox by one kernel, bit for bit, so that masks agree on the host and the device."""

import types

import numpy as np

from ..backend import Array
from .program import blocks, launch_for_each, struct

_WORDS = 4  # that one thread makes


def uniform(xp: types.ModuleType, key: tuple[int, int], step: int | Array, draw: int, shape: tuple[int, ...]) -> Array:
    """As backend.philox.uniform: float32 in [0, 1)."""
    y, arguments = _arguments(xp, key, step, draw, shape)
    launch_for_each("uniform", blocks(y.size, _WORDS), *arguments)
    return y


def dropout_mask(
    xp: types.ModuleType, key: tuple[int, int], step: int | Array, draw: int, shape: tuple[int, ...], rate: float
) -> Array:
    """As functional.dropout_mask makes it of the same draw: 0 with probability `rate`, else 1/(1 − rate)."""
    y, arguments = _arguments(xp, key, step, draw, shape)
    kept = 1 / (1 - rate) if rate < 1 else 0.0
    launch_for_each("dropout_mask", blocks(y.size, _WORDS), *arguments, float(rate), kept)
    return y


def _arguments(xp, key, step, draw, shape):
    """-> room for the numbers, and what both kernels take first."""
    y = xp.empty(shape, dtype=np.float32)
    there, here = (step, 0) if hasattr(step, "dtype") else (None, step)
    words = {name: np.uint32(word) for name, word in zip(("key0", "key1", "number", "step"), (*key, draw, here))}
    return y, (y, there, y.size, struct(**words))
