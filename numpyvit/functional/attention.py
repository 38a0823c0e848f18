"""Scaled dot-product attention over heads."""

from collections.abc import Sequence

import numpy as np

from ..backend import Array, array_module, transposed
from ..kernels import accelerated
from .linear import matmul
from .softmax import softmax_, softmax_backward


@accelerated
def attention(
    q: Array, k: Array, v: Array, scale: float, bias: Array | None = None, keep: Array | None = None
) -> tuple[Array, Array]:
    """out = (p · keep) v with p = softmax(scale · q kᵀ + bias)   (Vaswani et al. 2017, arXiv:1706.03762, §3.2.1).

    q: (..., N, d), k and v: (..., M, d), bias broadcasts to the scores (..., N, M), keep is a dropout mask or None.
    -> out (..., N, d) and p (..., N, M).
    """
    scores = matmul(q, transposed(k)) * scale
    p = softmax_(scores if bias is None else scores + bias)
    return matmul(p if keep is None else p * keep, v), p


@accelerated
def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    p: Array,
    scale: float,
    keep: Array | None = None,
    out: Sequence[Array] | None = None,
) -> tuple[Array, Array, Array, Array]:
    """-> dq, dk, dv, ds.   With w = p · keep:   dv = wᵀ dout,   dp = (dout vᵀ) · keep,
    ds = p · dp − p Σ p·dp,   dq = scale · ds k,   dk = scale · dsᵀ q.   ds is the gradient of the bias as well.

    out: three arrays to write dq, dk and dv into, such as split_heads gives of what join_heads would make of them.
    """
    dv = matmul(transposed(p if keep is None else p * keep), dout)
    dp = matmul(dout, transposed(v))
    ds = softmax_backward(dp if keep is None else dp * keep, p)
    gradients = matmul(ds, k) * scale, matmul(transposed(ds), q) * scale, dv
    if out is None:
        return *gradients, ds
    for place, gradient in zip(out, gradients):
        place[...] = gradient
    return *out, ds


def mask_bias(mask: Array, dtype: np.dtype) -> Array:
    """A mask, True where attention is not allowed, as a bias of −1e9 on these scores; floating masks stay as they are.

    Finite, so that a query that may attend to no key attends to all alike instead of becoming NaN.
    """
    return mask.astype(dtype) * -1e9 if mask.dtype.kind == "b" else mask.astype(dtype)


def split_heads(x: Array, parts: int, heads: int) -> Array:
    """(B, N, parts·H·d) -> (parts, B, H, N, d), a view: iterate over it for q, k, v."""
    B, N, width = x.shape
    return x.reshape(B, N, parts, heads, width // (parts * heads)).transpose(2, 0, 3, 1, 4)


def join_heads(parts: Sequence[Array]) -> Array:
    """The inverse of split_heads: [(B, H, N, d), …] -> (B, N, len(parts)·H·d)."""
    B, _, N, _ = parts[0].shape
    parts = [part.transpose(0, 2, 1, 3).reshape(B, N, part.shape[1] * part.shape[3]) for part in parts]
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts, axis=-1)
