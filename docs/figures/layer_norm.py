"""What LayerNorm's backward takes away from a gradient: its mean, and its part along x̂."""

import numpy as np
from matplotlib.figure import Figure

from numpyvit import functional as F

from .style import BLUE, GRAY, ORANGE, panels


def draw() -> Figure:
    rng = np.random.default_rng(1)
    D = 8
    x, one, zero = rng.standard_normal((1, D)), np.ones(D), np.zeros(D)
    _, xhat, rstd = F.layer_norm(x, one, zero, 1e-6)
    g = 0.5 + 0.6 * xhat + 0.5 * rng.standard_normal((1, D))
    dx, _, _ = F.layer_norm_backward(g, one, xhat, rstd)
    parts = [
        ("g, as it comes", g, BLUE),
        ("its mean:\na shift of x would do nothing", np.full((1, D), g.mean()), GRAY),
        ("x̂ mean(g x̂):\na stretch of x would do nothing", xhat * (g * xhat).mean(), GRAY),
        ("what is left is dx / r", dx / rstd, ORANGE),
    ]
    figure, (row,) = panels(8.4, 2.4, 1, 4, sharey=True)
    for axes, (title, values, color) in zip(row, parts):
        axes.bar(np.arange(D), values[0], color=color)
        axes.axhline(0, color=GRAY, lw=0.8)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel="place in the row", xticks=[])
    for axes, sign in zip(row[1:], "−−="):
        axes.text(-0.08, 0.5, sign, transform=axes.transAxes, fontsize=14, ha="center", va="center")
    return figure
