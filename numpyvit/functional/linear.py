"""Products of matrices, and sums over their rows."""

from ..backend import Array, array_module, rows
from ..kernels import accelerated


@accelerated
def matmul(a: Array, b: Array) -> Array:
    """a b over the last two axes: every product of two matrices goes through here; `@` is for those with a vector."""
    return array_module(a).matmul(a, b)


@accelerated
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y = x Wᵀ + b.   x: (..., in), weight: (out, in), y: (..., out), bias: (out,), or fewer for the first of them."""
    y = matmul(rows(x), weight.T)
    if bias is not None:
        y[:, : len(bias)] += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def linear_input_gradient(dy: Array, weight: Array) -> Array:
    """dx = dy W.   dy: (..., out), weight: (out, in), dx: (..., in)."""
    return linear(dy, weight.T)


def linear_weight_gradient(dy: Array, x: Array) -> Array:
    """dW = Σ dyᵀ x over all rows.   dy: (..., out), x: (..., in), dW: (out, in)."""
    return matmul(rows(dy).T, rows(x))


@accelerated
def sum_over_rows(dy: Array) -> Array:
    """db = Σ dy over all rows.   (..., D) -> (D,)."""
    return rows(dy).sum(0)
