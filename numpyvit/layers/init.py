"""Initial values."""

import math

import numpy as np


def trunc_normal(rng: np.random.Generator, shape: int | tuple[int, ...], std: float, dtype: np.dtype) -> np.ndarray:
    """Normal draws of deviation `std`, redrawn beyond ±2 (an absolute bound, as in torch.nn.init.trunc_normal_).

    Drawn in float32 for either dtype, so that one seed gives both models the same weights.
    """
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= std
    while (outside := np.abs(values) > 2).any():
        values[outside] = std * rng.standard_normal(int(outside.sum()), dtype=np.float32)
    return values.astype(dtype, copy=False)


def uniform(rng: np.random.Generator, shape: int | tuple[int, ...], fan_in: int, dtype: np.dtype) -> np.ndarray:
    """Uniform draws within ±1/√fan_in: the initial values of PyTorch's convolutions."""
    bound = 1 / math.sqrt(fan_in)
    return ((2 * rng.random(shape, dtype=np.float32) - 1) * bound).astype(dtype, copy=False)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Uniform draws within ±√(6/(in + out)) for a matrix (out, in)   (Glorot & Bengio 2010, AISTATS)."""
    return uniform(rng, shape, sum(shape) / 6, dtype)
