"""Layer normalization."""

from ..backend import Array, array_module
from ..kernels import accelerated
from .linear import sum_over_rows


@accelerated
def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """x̂ = (x − μ) r,   r = 1/√(σ² + ε),   y = γ x̂ + β,   over the last axis   (Ba et al. 2016, arXiv:1607.06450).

    -> y and x̂ (..., D), and r (..., 1). docs/layer_norm.md derives the backward.
    """
    centered = x - x.mean(-1, keepdims=True)
    rstd = 1 / array_module(x).sqrt((centered * centered).mean(-1, keepdims=True) + eps)
    xhat = centered * rstd
    return xhat * weight + bias, xhat, rstd


@accelerated
def layer_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """-> dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy."""
    g = dy * weight
    dx = rstd * (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True))
    return dx, sum_over_rows(dy * xhat), sum_over_rows(dy)
