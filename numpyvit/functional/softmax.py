"""Softmax and its logarithm."""

from ..backend import Array, array_module
from ..kernels import accelerated


def softmax(x: Array, axis: int = -1) -> Array:
    """y = exp(x − max x) / Σ exp(x − max x); the maximum, which cancels, keeps exp from overflowing."""
    return softmax_(x.copy(), axis)


@accelerated
def softmax_(x: Array, axis: int = -1) -> Array:
    """softmax in place, for an array that the caller owns."""
    if x.size:
        x -= x.max(axis, keepdims=True)
    array_module(x).exp(x, out=x)
    x /= x.sum(axis, keepdims=True)
    return x


def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """dx = y · (dy − Σ dy·y), from dyᵢ/dxⱼ = yᵢ (δᵢⱼ − yⱼ)."""
    return y * (dy - (dy * y).sum(axis, keepdims=True))


def log_softmax(x: Array) -> Array:
    """x − max x − log Σ exp(x − max x) along the last axis; finite for any finite logits."""
    xp = array_module(x)
    x = x - x.max(-1, keepdims=True)
    return x - xp.log(xp.exp(x).sum(-1, keepdims=True))


@accelerated
def softmax_cross_entropy(logits: Array, target: Array, total: float | Array) -> tuple[Array, Array]:
    """L = −Σ t log p / total,   dL/dlogitsᵢₖ = (pᵢₖ Σⱼ tᵢⱼ − tᵢₖ) / total,   p = softmax(logits).

    logits, target: (B, K), rows of the target need not sum to 1; total: one number.   -> L and its gradient (B, K).
    """
    log_p = log_softmax(logits)
    gradient = array_module(logits).exp(log_p) * target.sum(-1, keepdims=True) - target
    return -(target * log_p).sum() / total, gradient / total
