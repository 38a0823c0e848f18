"""Softmax and its logarithm."""

from ..backend import array_module, on_host
from .linear import sum_last

_SAFE_EXPONENT = 40  # e⁴⁰ and e⁻⁸⁰, the smallest quotient, lie well inside float32


def softmax(x, axis=-1):
    """y = exp(x − max x) / Σ exp(x − max x); the maximum, which cancels, keeps exp from overflowing."""
    return softmax_(x.copy(), axis)


def softmax_(x, axis=-1):
    """softmax in place, for an array that the caller owns.

    The maximum of each row is the costly part. It serves nothing where no exp can overflow or lose digits, and one look
    at the whole array tells; on a device the look would stall.
    """
    can_look = on_host(x) and x.dtype.itemsize >= 4 and x.size
    if not (can_look and x.min() > -_SAFE_EXPONENT and x.max() < _SAFE_EXPONENT):
        x -= x.max(axis, keepdims=True)
    array_module(x).exp(x, out=x)
    x /= sum_last(x) if axis in (-1, x.ndim - 1) else x.sum(axis, keepdims=True)
    return x


def softmax_backward(dy, y, axis=-1):
    """dx = y · (dy − Σ dy·y), from dyᵢ/dxⱼ = yᵢ (δᵢⱼ − yⱼ)."""
    return y * (dy - (dy * y).sum(axis, keepdims=True))


def log_softmax(x):
    """x − max x − log Σ exp(x − max x) along the last axis; finite for any finite logits."""
    xp = array_module(x)
    x = x - x.max(-1, keepdims=True)
    return x - xp.log(xp.exp(x).sum(-1, keepdims=True))
