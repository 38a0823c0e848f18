"""Where on the map a token is, and tables of learned vectors.

Shapes: B batch, h×w rows and columns of the map, N = h·w, D width.
"""

import math

import numpy as np

from .. import functional as F
from ..backend import array_module
from ..core import FORGET, Layer, Parameter, Seed, as_dtype, make_rng
from ..errors import ConfigError, ShapeError


class SinePosition(Layer):
    """Sines and cosines of a token's row and column, in 0..2π over what is not padding   (arXiv:2005.12872, §A.4).

    (B, C, h, w) and the mask (B, h, w), True at padding, -> (B, h·w, D), the row's D/2 numbers before the column's.
    Without a mask one row (1, h·w, D) serves all images. It has no gradient.
    """

    def __init__(self, dim: int, temperature: float = 10000.0, *, dtype: str = "float32", seed: Seed = 0):
        if dim % 4:
            raise ConfigError(f"the width {dim} must be divisible by 4 for sines of rows and columns")
        self.dim, self.temperature = dim, float(temperature)

    def forward(self, x, mask=None, tape=FORGET):
        xp = array_module(x)
        valid = xp.ones((1, *x.shape[2:]), dtype=x.dtype) if mask is None else (~mask).astype(x.dtype)
        places = []
        for axis in (1, 2):  # the number of the row, then of the column, counted from 1
            count = valid.cumsum(axis)
            last = count[:, -1:] if axis == 1 else count[:, :, -1:]
            place = count / (last + 1e-6) * (2 * math.pi)
            places.append(F.sine_features(place, self.dim // 2, self.temperature))
        return xp.concatenate(places, axis=-1).reshape(len(valid), -1, self.dim)

    def backward(self, dy, tape):
        return None


class Embedding(Layer):
    """y = weight[index], a learned vector for each of a number of things;   dweight[i] = Σ dy where index is i.

    index: integers (...), weight: (number, D), y: (..., D). Normal initial values of deviation std.
    """

    def __init__(self, number: int, dim: int, std: float = 1.0, *, dtype: str = "float32", seed: Seed = 0):
        values = make_rng(seed).standard_normal((number, dim), dtype=np.float32) * std
        self.weight = Parameter(values.astype(as_dtype(dtype)), decay=False)

    def own_multiply_adds(self, y, *inputs) -> int:
        return 0  # rows are looked up

    def forward(self, index, tape=FORGET):
        tape.push(self, index)
        return self.weight.data[index]

    def backward(self, dy, tape):
        (index,) = tape.pop(self)
        xp, number = array_module(dy), len(self.weight.data)
        chosen = (index.reshape(-1, 1) == xp.arange(number)).astype(dy.dtype)
        tape.add(self.weight, F.linear_weight_gradient(chosen, F.rows(dy)))


class LearnedPosition(Layer):
    """A learned vector for each of 50 rows and columns, the column's before the row's, as in DETR's code.

    (B, C, h, w) -> (1, h·w, D);   drow[i] = Σ dy over the tokens of row i, and columns alike.
    """

    longest = 50

    def __init__(self, dim: int, *, dtype: str = "float32", seed: Seed = 0):
        if dim % 2:
            raise ConfigError(f"the width {dim} must be even for learned rows and columns")
        rng = make_rng(seed)
        self.row_embed = Embedding(self.longest, dim // 2, dtype=dtype, seed=rng)
        self.col_embed = Embedding(self.longest, dim // 2, dtype=dtype, seed=rng)
        for table in (self.row_embed, self.col_embed):
            table.weight.data[...] = rng.random(table.weight.data.shape, dtype=np.float32)

    def forward(self, x, mask=None, tape=FORGET):
        xp, (h, w) = array_module(x), x.shape[2:]
        if max(h, w) > self.longest:
            raise ShapeError(f"{self.path}: got a map of {h}x{w} tokens, expected at most {self.longest} a side")
        rows, columns = self.row_embed.weight.data[:h, None], self.col_embed.weight.data[None, :w]
        shape = (h, w, rows.shape[-1])
        y = xp.concatenate([xp.broadcast_to(columns, shape), xp.broadcast_to(rows, shape)], axis=-1)
        tape.push(self, h, w)
        return y.reshape(1, h * w, -1)

    def backward(self, dy, tape):
        h, w = tape.pop(self)
        dmap = dy.sum(0).reshape(h, w, 2, -1)
        for table, dused in ((self.col_embed, dmap[:, :, 0].sum(0)), (self.row_embed, dmap[:, :, 1].sum(1))):
            dtable = array_module(dy).zeros_like(table.weight.data)
            dtable[: len(dused)] = dused
            tape.add(table.weight, dtable)
