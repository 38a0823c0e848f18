"""Softmax without the rows' maxima where no exponential can overflow."""

import numpy as np

from ...backend import Array
from .. import kernel
from .linear import sum_over_last

_SAFE_EXPONENT = 40  # e⁴⁰ and e⁻⁸⁰, the smallest quotient, lie well inside float32
_LEAST_EXPONENT = {"f": -80, "d": -700}  # below, exp gives numbers with which products take many times as long, then 0


@kernel("softmax_", np, "fd", tolerance=2e-6, gain=1.8)
def softmax_(x: Array, axis: int = -1) -> Array:
    """The maximum of each row is the costly part. It is not needed where no exp can overflow or lose digits, which the
    extremes of the whole array tell; where a few numbers are far below 0, as behind a mask, the sums of the rows do."""
    if not (x.size and x.max() < _SAFE_EXPONENT):
        return _softmax_by_maxima_(x, axis)
    if x.min() > -_SAFE_EXPONENT:
        np.exp(x, out=x)
        x /= _sum(x, axis)
        return x
    given = x.copy()
    sums = _sum(_exp_(x), axis)
    if sums.min() > np.exp(-_SAFE_EXPONENT):
        x /= sums
        return x
    x[...] = given
    return _softmax_by_maxima_(x, axis)


def _softmax_by_maxima_(x, axis):
    if x.size:
        x -= x.max(axis, keepdims=True)
    x /= _sum(_exp_(x), axis)
    return x


def _exp_(x):
    np.copyto(x, -np.inf, where=x < _LEAST_EXPONENT[x.dtype.char])
    return np.exp(x, out=x)


def _sum(x, axis):
    return sum_over_last(x) if axis in (-1, x.ndim - 1) else x.sum(axis, keepdims=True)
