"""Six tokens: above scores, probabilities, values and their mean; below the gradient of each, from right to left."""

import numpy as np
from matplotlib.figure import Figure

from numpyvit import functional as F

from .style import INK, matrix, panels

N, d = 6, 3


def draw() -> Figure:
    q, k, v, dout = np.random.default_rng(5).standard_normal((4, N, d))
    scale = 1.6  # larger than 1/√d, so that the rows of p differ
    out, p = F.attention(q, k, v, scale)
    _, _, dv, ds = F.attention_backward(dout, q, k, v, p, scale)
    dp = dout @ v.T

    figure, rows = panels(8.4, 4.6, 2, 4, width_ratios=[N, N, d, d])
    above = [
        ("s = c q kᵀ", scale * q @ k.T, "z.1f"),
        ("p = softmax(s)", p, "z.2f"),
        ("v", v, "z.1f"),
        ("out = p v", out, "z.1f"),
    ]
    below = [
        ("ds = p (dp − Σ dp p)", ds, "z.2f"),
        ("dp = dout vᵀ", dp, "z.1f"),
        ("dv = pᵀ dout", dv, "z.1f"),
        ("dout", dout, "z.1f"),
    ]
    for axes, (title, values, numbers) in zip(rows.flat, above + below):
        matrix(axes, values, title, numbers=numbers)
    for axes, values in ((rows[0, 1], p), (rows[1, 0], ds)):
        for i, total in enumerate(values.sum(1)):
            axes.text(N - 0.35, i, f"Σ {abs(total):.0f}", va="center", fontsize=8, fontweight="bold")
    for axes in rows[:, :2].flat:
        axes.set_xlim(-0.5, N + 0.6)  # room for the sums
    for axes, word in ((rows[0, 0], "forward →"), (rows[1, 0], "← backward")):
        axes.set_ylabel(word, fontsize=10, color=INK)
    return figure
