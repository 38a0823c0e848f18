"""Layer normalization."""

from ..backend import array_module
from .linear import rows, sum_last, sum_rows


def layer_norm(x, weight, bias, eps):
    """x̂ = (x − μ) r,   r = 1/√(σ² + ε),   y = γ x̂ + β,   over the last axis   (Ba et al. 2016, arXiv:1607.06450).

    -> y, x̂ (both (..., D)) and r (M, 1), one row a token. docs/layer_norm.md derives the backward.
    """
    xp = array_module(x)
    x2 = rows(x)
    width = x2.shape[1]
    mean = sum_last(x2)
    mean /= width
    xhat = x2 - mean
    var = xp.einsum("ij,ij->i", xhat, xhat)
    var /= width
    var += eps
    rstd = (1 / xp.sqrt(var))[:, None]
    xhat *= rstd
    y = xhat * weight
    y += bias
    return y.reshape(x.shape), xhat.reshape(x.shape), rstd


def layer_norm_backward(dy, weight, xhat, rstd):
    """-> dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy."""
    xp = array_module(dy)
    dy2, xhat2 = rows(dy), rows(xhat)
    width = dy2.shape[1]
    dy_xhat = dy2 * xhat2
    dweight, dbias = sum_rows(dy_xhat), sum_rows(dy2)
    mean_g = dy2 @ weight  # Σ γ dy, and the next Σ γ dy x̂: row sums as products again
    mean_g /= width
    mean_g_xhat = dy_xhat @ weight
    mean_g_xhat /= width
    dx = dy2 * weight
    dx -= mean_g[:, None]
    dx -= xp.multiply(xhat2, mean_g_xhat[:, None], out=dy_xhat)
    dx *= rstd
    return dx.reshape(dy.shape), dweight, dbias
