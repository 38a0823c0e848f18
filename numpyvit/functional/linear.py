"""Products of matrices, and sums that are best taken as products."""

import functools

import numpy as np

from ..backend import array_module, on_host


def matmul(a, b, out=None):
    """a b over the last two axes: every product of two matrices goes through here; `@` is for those with a vector."""
    return array_module(a).matmul(a, b, out=out)


def rows(x):
    """(..., D) -> (M, D): GEMM wants two dimensions; with more, NumPy loops over the batch and CuPy copies."""
    return x.reshape(-1, x.shape[-1])


def features_first(x):
    """The same (B, N, D), in memory (B, D, N): products with the few rows of one image are then faster.

    BLAS need not rearrange an operand, and the layers keep the order that they find.
    """
    return transposed(array_module(x).ascontiguousarray(transposed(x)))


def linear(x, weight, bias=None):
    """y = x Wᵀ + b.   x: (..., in), weight: (out, in), bias: (out,), y: (..., out)."""
    x2 = rows(x)
    turned = x2.flags.f_contiguous and not x2.flags.c_contiguous  # features first: y is then laid out likewise
    y = matmul(weight, x2.T).T if turned else matmul(x2, weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def linear_input_gradient(dy, weight):
    """dx = dy W.   dy: (..., out), weight: (out, in), dx: (..., in)."""
    return linear(dy, weight.T)


def linear_weight_gradient(dy, x):
    """dW = Σ dyᵀ x over all rows.   dy: (..., out), x: (..., in), dW: (out, in)."""
    return matmul(rows(dy).T, rows(x))


def sum_rows(dy):
    """db = Σ dy over all rows.   (..., D) -> (D,). As a product with ones: BLAS sums columns faster than NumPy."""
    dy = rows(dy)
    return _ones(dy, dy.shape[0]) @ dy


def sum_last(x):
    """Σ over the last axis: (..., N) -> (..., 1). As a product with ones, several times faster than x.sum(-1)."""
    return (rows(x) @ _ones(x, x.shape[-1])).reshape(*x.shape[:-1], 1)


def _ones(like, n):
    return _host_ones(n, like.dtype) if on_host(like) else array_module(like).ones(n, dtype=like.dtype)


@functools.lru_cache(maxsize=64)
def _host_ones(n, dtype):
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones


def transposed(x):
    """The last two axes swapped, a view."""
    return x.swapaxes(-1, -2)
