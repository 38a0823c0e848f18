"""Left: GELU and its slope. Right: how far the approximation by tanh is off."""

import numpy as np
from matplotlib.figure import Figure

from numpyvit import functional as F

from .style import BLUE, GRAY, GREEN, ORANGE, panels


def draw() -> Figure:
    figure, ((left, right),) = panels(8.4, 3.2, 1, 2)
    x = np.linspace(-4, 4, 401)
    y, slope = F.gelu_with_slope(x)
    left.plot(x, y, color=BLUE, label="y = x Φ(x)")
    left.plot(x, slope, color=ORANGE, label="slope Φ(x) + x φ(x)")
    left.plot(x, slope - x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi), "--", color=GRAY, label="Φ(x) alone")
    left.plot([np.sqrt(2), -0.7518], [1.1289, 0], "o", color=ORANGE, ms=4)
    left.annotate("1.13 at √2", (np.sqrt(2), 1.13), (0.1, 1.7), arrowprops={"arrowstyle": "-", "color": GRAY})
    left.annotate("0 at −0.75", (-0.75, 0), (-2.9, 0.75), arrowprops={"arrowstyle": "-", "color": GRAY})
    left.set(title="GELU", xlabel="x", ylim=(-0.4, 2.6))
    left.axhline(0, color=GRAY, lw=0.8)
    left.legend(frameon=False, loc="upper left")

    approximate, approximate_slope = F.gelu_tanh_with_slope(x)
    right.plot(x, 1e4 * (approximate - y), color=BLUE, label="y")
    right.plot(x, 1e4 * (approximate_slope - slope), color=GREEN, label="slope")
    right.axhline(0, color=GRAY, lw=0.8)
    right.set(title="approximation by tanh minus GELU, in 1e-4", xlabel="x")
    right.legend(frameon=False)
    return figure
