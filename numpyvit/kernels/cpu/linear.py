"""Linear with the layout that is fast for one image, and sums as products with ones."""

import functools

import numpy as np

from ...backend import Array, rows
from .. import kernel


@kernel("linear", np, "fd", tolerance=2e-6, gain=1.0)
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """One image gives features first in memory, (1, N, D) stored as (1, D, N): products with few rows are then faster.

    BLAS need not rearrange an operand, and the layers keep the order that they find.
    """
    x2 = rows(x)
    features_first = x.ndim == 3 and len(x) == 1 and x.shape[1] > 1
    y = np.matmul(weight, x2.T).T if features_first else np.matmul(x2, weight.T)
    if bias is not None:
        y[:, : len(bias)] += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


@kernel("sum_over_rows", np, "fd", tolerance=2e-6, gain=1.6)
def sum_over_rows(dy: Array) -> Array:
    """As a product with ones: BLAS sums columns faster than NumPy."""
    dy = rows(dy)
    return _ones(dy.shape[0], dy.dtype) @ dy


def sum_over_last(x: Array) -> Array:
    """x.sum(-1, keepdims=True) as a product with ones, several times faster."""
    return (rows(x) @ _ones(x.shape[-1], x.dtype)).reshape(*x.shape[:-1], 1)


@functools.lru_cache(maxsize=64)
def _ones(n, dtype):
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones
