"""The three products of a Linear, to scale, with one number of each and what it is made of."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from numpyvit import functional as F

from .style import INK, SIGNED, bare, panels

R, I, O = 6, 4, 3


def draw() -> Figure:
    rng = np.random.default_rng(2)
    x, weight, dy = rng.standard_normal((R, I)), rng.standard_normal((O, I)), rng.standard_normal((R, O))
    figure, ((axes,),) = panels(8.4, 4.6, 1, 1)
    axes.set(xlim=(-0.5, 34), ylim=(-10.9, 6.9), aspect="equal")
    bare(axes)

    y = F.linear(x, weight)
    _product(axes, (0, 2.5), (x, "x", "R, I"), (weight.T, "Wᵀ", "I, O"), (y, "y", "R, O"))
    dx = F.linear_input_gradient(dy, weight)
    _product(axes, (18, 2.5), (dy, "dy", "R, O"), (weight, "W", "O, I"), (dx, "dx", "R, I"))
    dweight = F.linear_weight_gradient(dy, x)
    _product(axes, (0, -6.5), (dy.T, "dyᵀ", "O, R"), (x, "x", "R, I"), (dweight, "dW", "O, I"))
    _matrix(axes, (25, -6.5), dy, "dy", "R, O", column=1)
    _sign(axes, 29, -6.5, "→")
    _matrix(axes, (30, -6.5), F.sum_over_rows(dy)[None], "db", "O,", row=0, column=1)
    return figure


def _product(axes, place, left, right, product, row=1, column=1):
    """left · right = product from a place on; one number of the product is framed, with its row and its column."""
    x, middle = place
    _matrix(axes, (x, middle), *left, row=row)
    x += left[0].shape[1] + 1
    _sign(axes, x, middle, "·")
    _matrix(axes, (x + 1, middle), *right, column=column)
    x += right[0].shape[1] + 2
    _sign(axes, x, middle, "=")
    _matrix(axes, (x + 1, middle), *product, row=row, column=column)


def _matrix(axes, place, values, name, shape, row=None, column=None):
    (x, middle), (rows, columns) = place, values.shape
    top = middle + rows / 2
    extent = (x, x + columns, top - rows, top)
    axes.imshow(values, SIGNED, extent=extent, vmin=-3.5, vmax=3.5)
    axes.add_patch(Rectangle((x, top - rows), columns, rows, fill=False, edgecolor="#bbbbbb"))
    first, last = (0, columns) if column is None else (column, column + 1)
    high, low = (0, rows) if row is None else (row, row + 1)
    axes.add_patch(Rectangle((x + first, top - low), last - first, low - high, fill=False, edgecolor=INK, lw=1.8))
    axes.text(x + columns / 2, top + 0.3, name, ha="center", va="bottom", fontsize=11)
    axes.text(x + columns / 2, top - rows - 0.3, f"({shape})", ha="center", va="top", fontsize=8)


def _sign(axes, x, middle, sign):
    axes.text(x, middle, sign, ha="center", va="center", fontsize=13)
