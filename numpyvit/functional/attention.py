"""Scaled dot-product attention over heads."""

from ..backend import array_module
from .linear import matmul, sum_last, transposed
from .softmax import softmax_


def attention(q, k, v, scale, bias=None, keep=None):
    """out = (p · keep) v with p = softmax(scale · q kᵀ + bias)   (Vaswani et al. 2017, arXiv:1706.03762, §3.2.1).

    q: (..., N, d), k and v: (..., M, d), bias broadcasts to the scores (..., N, M), keep is a dropout mask or None.
    -> out (..., N, d) and p (..., N, M).
    """
    scores = matmul(q, transposed(k))
    scores *= scale
    if bias is not None:
        scores += bias
    p = softmax_(scores)
    return _matmul_by_heads(p if keep is None else p * keep, v), p


def attention_backward(dout, q, k, v, p, scale, keep=None):
    """-> dq, dk, dv, ds.   With w = p · keep:   dv = wᵀ dout,   dp = (dout vᵀ) · keep,
    ds = p · dp − p Σ p·dp,   dq = scale · ds k,   dk = scale · dsᵀ q.   ds is the gradient of the bias as well.
    """
    dv = _matmul_by_heads(transposed(p if keep is None else p * keep), dout)
    ds = matmul(dout, transposed(v))  # dp
    if keep is not None:
        ds *= keep
    ds *= p
    ds -= p * sum_last(ds)
    dq = _matmul_by_heads(ds, k)
    dq *= scale
    dk = _matmul_by_heads(transposed(ds), q)
    dk *= scale
    return dq, dk, dv, ds


def _matmul_by_heads(a, b):
    """a b: (..., H, N, M) and (..., H, M, d) -> (..., H, N, d), laid out in memory so that join_heads moves nothing."""
    if a.ndim < 3 or a.shape[:-2] != b.shape[:-2]:
        return matmul(a, b)
    *batch, H, N, _ = a.shape
    if b.strides[-2] < b.strides[-1]:  # features before tokens, as in `linear`
        out = array_module(a).empty((*batch, H, b.shape[-1], N), dtype=a.dtype)
        return matmul(a, b, out=out.swapaxes(-1, -2))
    out = array_module(a).empty((*batch, N, H, b.shape[-1]), dtype=a.dtype)
    return matmul(a, b, out=out.swapaxes(-2, -3))


def split_heads(x, parts, heads):
    """(B, N, parts·H·d) -> (parts, B, H, N, d), a view: iterate over it for q, k, v."""
    B, N, width = x.shape
    return x.reshape(B, N, parts, heads, width // (parts * heads)).transpose(2, 0, 3, 1, 4)


def join_heads(parts):
    """The inverse of split_heads: [(B, H, N, d), …] -> (B, N, len(parts)·H·d)."""
    B, _, N, _ = parts[0].shape
    parts = [part.transpose(0, 2, 1, 3).reshape(B, N, part.shape[1] * part.shape[3]) for part in parts]
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts, axis=-1)


def pad_tokens(x, tokens):
    """(B, H, n, d) -> (B, H, tokens, d): zeros for the tokens behind the first n, which had no part in x."""
    if x.shape[2] == tokens:
        return x
    padded = array_module(x).zeros((*x.shape[:2], tokens, x.shape[3]), dtype=x.dtype)
    padded[:, :, : x.shape[2]] = x
    return padded
