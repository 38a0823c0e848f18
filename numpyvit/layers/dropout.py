"""Dropout and DropPath."""

import numpy as np

from .. import functional as F
from ..backend import Array
from ..core import FORGET, Forget, Layer, Seed, Tape
from .checks import check_float, check_rate


class Dropout(Layer):
    """y = x m,   dx = dy m,   each mᵢ 0 with probability p, else 1/(1 − p)   (Srivastava et al. 2014, JMLR 15).

    m is drawn for each element and pass, from the tape; on a tape without a seed, y = x.
    """

    def __init__(self, p: float = 0.5, *, dtype: str = "float32", seed: Seed = 0):
        super().__init__(dtype=dtype, seed=seed)
        self.p = check_rate("the dropout rate", p)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def mask(self, shape: tuple[int, ...], dtype: np.dtype, tape: Tape | Forget) -> Array | None:
        """A mask, or None where nothing is dropped."""
        if tape.random is None or self.p == 0:
            return None
        return F.dropout_mask(tape.random, self.mask_shape(shape), self.p, dtype)

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        mask = self.mask(x.shape, x.dtype, tape)
        tape.push(self, mask)
        return x if mask is None else x * mask

    def backward(self, dy, tape):
        (mask,) = tape.pop(self)
        return dy if mask is None else dy * mask


class DropPath(Dropout):
    """Stochastic depth: Dropout with one draw a sample, so whole residual branches vanish (arXiv:1603.09382)."""

    def __init__(self, p: float = 0.0, *, dtype: str = "float32", seed: Seed = 0):
        super().__init__(p, dtype=dtype, seed=seed)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0],) + (1,) * (len(shape) - 1)
