"""A layer with its input, to be checked."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..core import Layer
from . import randomize


@dataclass(frozen=True)
class Case:
    """A layer to check. build(dtype=…, seed=…) makes it; rtol is the largest relative error allowed in float64."""

    name: str
    build: Callable
    shape: tuple
    rtol: float = 1e-7
    dropout: bool = False

    def layer(self, dtype: str = "float32") -> Layer:
        """The layer with random values in every parameter."""
        return randomize(self.build(dtype=dtype, seed=0))

    def x(self, dtype: str = "float32", batch: int | None = None) -> np.ndarray:
        shape = self.shape if batch is None else (batch, *self.shape[1:])
        return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def _with_statistics(build, **options):
    """A layer whose buffers, the statistics of batch norms, are random."""
    layer, rng = build(**options), np.random.default_rng(2)
    for _, buffer in layer.named_buffers():
        buffer.data[...] = rng.uniform(0.2, 1, buffer.data.shape)
    return layer


def normalized(*args, **options) -> Callable[..., Layer]:
    """What makes such a layer, for Case.build."""
    return partial(_with_statistics, partial(*args, **options))
