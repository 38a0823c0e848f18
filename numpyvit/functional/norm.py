"""Layer and group normalization."""

from ..backend import Array, array_module
from ..kernels import accelerated
from .linear import sum_over_rows


@accelerated
def standardize(x: Array, eps: float) -> tuple[Array, Array]:
    """x̂ = (x − μ) r,   r = 1/√(σ² + ε), over the last axis.   -> x̂ (..., D), r (..., 1)."""
    centered = x - x.mean(-1, keepdims=True)
    rstd = 1 / array_module(x).sqrt((centered * centered).mean(-1, keepdims=True) + eps)
    return centered * rstd, rstd


def standardize_backward(dy: Array, xhat: Array, rstd: Array) -> Array:
    """dx = r (dy − mean dy − x̂ mean(dy x̂))."""
    return rstd * (dy - dy.mean(-1, keepdims=True) - xhat * (dy * xhat).mean(-1, keepdims=True))


@accelerated
def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """x̂ = (x − μ) r,   r = 1/√(σ² + ε),   y = γ x̂ + β,   over the last axis   (Ba et al. 2016, arXiv:1607.06450).

    -> y and x̂ (..., D), and r (..., 1). docs/layer_norm.md derives the backward.
    """
    xhat, rstd = standardize.plain(x, eps)
    return xhat * weight + bias, xhat, rstd


@accelerated
def layer_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """-> dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy."""
    return standardize_backward(dy * weight, xhat, rstd), sum_over_rows(dy * xhat), sum_over_rows(dy)


@accelerated
def group_norm(x: Array, weight: Array, bias: Array, groups: int, eps: float) -> tuple[Array, Array, Array]:
    """The same over the channels of a group and all pixels   (Wu & He 2018, arXiv:1803.08494, eq. 7).

    y = γ x̂ + β with γ and β of a channel.   -> y and x̂ (B, C, H, W), and r (B, G, 1).
    """
    x2 = x.reshape(len(x), groups, -1)
    centered = x2 - x2.mean(-1, keepdims=True)
    rstd = 1 / array_module(x).sqrt((centered * centered).mean(-1, keepdims=True) + eps)
    xhat = (centered * rstd).reshape(x.shape)
    return xhat * on_map(weight) + on_map(bias), xhat, rstd


@accelerated
def group_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """-> dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy over images and pixels."""
    g, xhat2 = (dy * on_map(weight)).reshape(*rstd.shape[:2], -1), xhat.reshape(*rstd.shape[:2], -1)
    dx = rstd * (g - g.mean(-1, keepdims=True) - xhat2 * (g * xhat2).mean(-1, keepdims=True))
    return dx.reshape(dy.shape), (dy * xhat).sum((0, 2, 3)), dy.sum((0, 2, 3))


def on_map(channels: Array) -> Array:
    """(C,) -> (C, 1, 1), one number for each channel of a map."""
    return channels[:, None, None]
