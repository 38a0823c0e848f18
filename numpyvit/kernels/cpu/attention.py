"""Attention in place, with heads laid out in memory so that joining them moves nothing."""

from collections.abc import Callable, Sequence

import numpy as np

from ...backend import Array, transposed
from .. import kernel
from .linear import sum_over_last
from .softmax import softmax_


@kernel("attention", np, "fd", tolerance=2e-6, gain=1.3)
def attention(
    q: Array, k: Array, v: Array, scale: float, bias: Array | None = None, keep: Array | None = None
) -> tuple[Array, Array]:
    scores = np.matmul(q, transposed(k))
    if scale != 1:
        scores *= scale
    if bias is not None:
        scores += bias
    p = softmax_(scores)
    return matmul_by_heads(p if keep is None else p * keep, v), p


def softmax_backward_(p: Array, dp: Array) -> None:
    """dp becomes ds = p (dp − Σ p dp), over the last axis."""
    dp *= p
    dp -= p * sum_over_last(dp)


@kernel("attention_backward", np, "fd", tolerance=3e-6, gain=1.1)
def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    p: Array,
    scale: float,
    keep: Array | None = None,
    out: Sequence[Array] | None = None,
    softmax_backward_: Callable[[Array, Array], None] = softmax_backward_,
) -> tuple[Array, ...]:
    """softmax_backward_: compiled kernels bring their own."""
    dq, dk, dv = (None, None, None) if out is None else out
    dv = matmul_by_heads(transposed(p if keep is None else p * keep), dout, dv)
    ds = np.matmul(dout, transposed(v))  # dp
    if keep is not None:
        ds *= keep
    softmax_backward_(p, ds)
    dq = matmul_by_heads(ds, k, dq)
    dq *= scale
    dk = matmul_by_heads(transposed(ds), q, dk)
    dk *= scale
    return dq, dk, dv, ds


def matmul_by_heads(a: Array, b: Array, out: Array | None = None) -> Array:
    """a b: (..., H, N, M) and (..., H, M, d) -> (..., H, N, d), laid out in memory so that join_heads moves nothing."""
    if out is not None or a.ndim < 3 or a.shape[:-2] != b.shape[:-2]:
        return np.matmul(a, b, out=out)
    *batch, H, N, _ = a.shape
    if b.strides[-2] < b.strides[-1]:  # features before tokens, as in `linear`
        out = np.empty((*batch, H, b.shape[-1], N), a.dtype)
        return np.matmul(a, b, out=transposed(out))
    out = np.empty((*batch, N, H, b.shape[-1]), a.dtype)
    return np.matmul(a, b, out=out.swapaxes(-2, -3))
