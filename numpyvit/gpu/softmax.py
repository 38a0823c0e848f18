"""Softmax over the last axis, and with cross-entropy."""

from ..backend import Array, array_module, rows
from .program import launch_for_each_row
from .table import device_kernel, served


@device_kernel
def softmax_(x: Array, axis: int = -1) -> Array:
    if axis not in (-1, x.ndim - 1) or not served(x):
        return NotImplemented
    launch_for_each_row("softmax", len(rows(x)), x, *rows(x).shape)
    return x


@device_kernel
def softmax_cross_entropy(logits: Array, target: Array, total: float | Array) -> tuple[Array, Array]:
    if not served(logits, target):
        return NotImplemented
    xp, (B, K) = array_module(logits), logits.shape
    losses, gradient = xp.empty((B,), dtype=logits.dtype), xp.empty((B, K), dtype=logits.dtype)
    there, here = (total, 1.0) if hasattr(total, "dtype") else (None, float(total))
    launch_for_each_row("softmax_cross_entropy", B, logits, target, there, losses, gradient, B, K, here)
    return losses.sum(), gradient
