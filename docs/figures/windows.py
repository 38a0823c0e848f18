"""A map of 8×8 tokens in shifted windows of 4×4: where tokens came from, and who may look at whom."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from numpyvit import functional as F

from .style import BLUE, INK, bare

SIDE, WINDOW, SHIFT = 8, (4, 4), (2, 2)
COLORS = np.array([(158, 202, 225), (253, 190, 133), (161, 217, 155), (188, 189, 220)]) / 255  # one a window


def draw() -> Figure:
    figure = Figure(figsize=(8.4, 3.3), layout="constrained")
    left, middle, right = figure.subfigures(1, 3)
    numbers = np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE, 1)
    shifted = F.cyclic_shift(numbers, SHIFT)
    window = np.arange(4).repeat(16).reshape(4, 16, 1)
    on_map = F.from_windows(window, WINDOW, SHIFT, (SIDE, SIDE))[0, :, :, 0]
    _map(left, numbers[0, :, :, 0], on_map, "the map: windows go round its border")
    on_shifted = F.window_reverse(window, WINDOW, (SIDE, SIDE))[0, :, :, 0]
    axes = _map(middle, shifted[0, :, :, 0], on_shifted, "shifted by 2, 2: four whole windows")
    for edge in (1.5, 3.5, 5.5):  # along the border of the map, where neighbors are none, and between windows
        style = {"color": INK, "lw": 2.2} if edge == 5.5 else {"color": "white", "lw": 2.2 if edge == 3.5 else 0}
        axes.axhline(edge, **style)
        axes.axvline(edge, **style)

    masks = F.shift_mask((SIDE, SIDE), WINDOW, SHIFT)[:, 0]
    right.suptitle("who sees whom, window by window", fontsize=10)
    for n, axes in enumerate(right.subplots(2, 2).flat):
        seen = np.where(masks[n, ..., None] == 0, COLORS[n], 1.0)
        axes.imshow(seen)
        axes.add_patch(Rectangle((-0.5, -0.5), 16, 16, fill=False, edgecolor="#999999"))
        axes.set_xlabel(f"{int((masks[n] == 0).sum())} of 256 pairs", fontsize=8, color=BLUE)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def _map(figure, numbers, window, title):
    axes = figure.subplots()
    axes.imshow(COLORS[window])
    for (row, column), number in np.ndenumerate(numbers):
        axes.text(column, row, number, ha="center", va="center", fontsize=8)
    axes.set_title(title, fontsize=10)
    bare(axes)
    return axes
