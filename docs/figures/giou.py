"""The gradient of GIoU on the sides of a box, for a box that it meets and one that it does not."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from numpyvit import functional as F

from .style import BLUE, GRAY, INK, ORANGE, bare, panels, signed

FOUND = np.array([0.1, 0.2, 0.5, 0.6])
MEANT = {"they meet": np.array([0.3, 0.1, 0.7, 0.5]), "they do not": np.array([0.72, 0.42, 0.9, 0.66])}
LENGTH = 0.09  # of an arrow, for a gradient of 1


def draw() -> Figure:
    figure, (row,) = panels(8.4, 3.4, 1, 2)
    for axes, (word, meant) in zip(row, MEANT.items()):
        around = np.concatenate([np.minimum(FOUND, meant)[:2], np.maximum(FOUND, meant)[2:]])
        _box(axes, around, GRAY, linestyle=":")
        _box(axes, meant, BLUE)
        _box(axes, FOUND, ORANGE)
        axes.text(FOUND[0] + 0.015, FOUND[1] + 0.015, "a, found", color=ORANGE, va="top")
        axes.text(meant[2] - 0.01, meant[1] + 0.015, "b, meant", color=BLUE, ha="right", va="top")
        _arrows(axes, F.generalized_iou_backward(np.array(1.0), FOUND, meant))
        values = [signed(value, ".2f") for value in (F.iou(FOUND, meant), F.generalized_iou(FOUND, meant))]
        axes.set_title(f"{word}: IoU {values[0]}, GIoU {values[1]}")
        axes.set(xlim=(0.02, 0.95), ylim=(0.74, 0.06), aspect="equal")  # rows count downwards, as in images
        bare(axes)
    return figure


def _arrows(axes, gradient):
    """Where a's sides should go: along the gradient, each from the middle of its side."""
    x0, y0, x1, y1 = FOUND
    middle = (FOUND[:2] + FOUND[2:]) / 2
    starts = [(x0, middle[1]), (middle[0], y0), (x1, middle[1]), (middle[0], y1)]
    for i, (start, slope) in enumerate(zip(starts, gradient)):
        way = np.array([1, 0] if i % 2 == 0 else [0, 1])
        end = np.array(start) + LENGTH * slope * way
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        )
        beside = end + ((0.012 * np.sign(slope), 0) if i % 2 == 0 else (0.012, 0))
        side = "left" if i % 2 or slope > 0 else "right"
        axes.text(*beside, signed(slope, "+.2f"), fontsize=9, ha=side, va="center")


def _box(axes, box, color, linestyle="-"):
    low, size = box[:2], box[2:] - box[:2]
    axes.add_patch(Rectangle(low, *size, fill=False, edgecolor=color, lw=2, linestyle=linestyle))
