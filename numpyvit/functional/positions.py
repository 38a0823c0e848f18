"""Sines of positions   (Vaswani et al. 2017, arXiv:1706.03762, §3.5)."""

from ..backend import Array, array_module


def sine_features(x: Array, dim: int, temperature: float = 10000.0) -> Array:
    """y = [sin a₀, cos a₀, sin a₁, cos a₁, …],   aᵢ = x / T^(2i/dim).   x: (...), y: (..., dim), dim even."""
    xp, angles = array_module(x), _angles(x, dim, temperature)
    return xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1).reshape(*x.shape, dim)


def sine_features_backward(dy: Array, x: Array, temperature: float = 10000.0) -> Array:
    """dx = Σᵢ (dsinᵢ cos aᵢ − dcosᵢ sin aᵢ) / T^(2i/dim)."""
    xp, dim = array_module(x), dy.shape[-1]
    angles = _angles(x, dim, temperature)
    dangles = dy[..., 0::2] * xp.cos(angles) - dy[..., 1::2] * xp.sin(angles)
    return (dangles * _frequencies(x, dim, temperature)).sum(-1)


def _angles(x, dim, temperature):
    return x[..., None] * _frequencies(x, dim, temperature)


def _frequencies(x, dim, temperature):
    """T^(−2i/dim) for i = 0 .. dim/2 − 1."""
    return float(temperature) ** (array_module(x).arange(0, dim, 2).astype(x.dtype) * (-1 / dim))
