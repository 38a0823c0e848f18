"""A digit cut into patches, the matrix that they make, and how alike the sine features of positions are."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import numpyvit as nv
from numpyvit import functional as F

from .style import BLUE, INK, ORANGE, bare, panels

PATCH, SHOWN = 2, 6  # pixels a side; the patch that is framed


def draw() -> Figure:
    train, _ = nv.data.load("digits")
    image = train.images[3].astype(float)[None] / 255
    cols = F.im2col(image, (PATCH, PATCH))[0]
    figure, ((left, middle, right),) = panels(8.4, 3.2, 1, 3, width_ratios=[8, 5, 8])

    left.imshow(image[0, 0], "gray_r", vmax=2)
    side = image.shape[-1] // PATCH
    for n in range(side * side):
        row, column = PATCH * (n // side), PATCH * (n % side)
        left.text(column - 0.35, row - 0.35, n, ha="left", va="top", color=INK, fontsize=9)
    left.set_title(f"x (1, 8, 8), patches of {PATCH}×{PATCH}")
    bare(left)
    for edge in np.arange(-0.5, 8, PATCH):
        left.axhline(edge, color=BLUE, lw=0.8)
        left.axvline(edge, color=BLUE, lw=0.8)
    row, column = PATCH * (SHOWN // side), PATCH * (SHOWN % side)
    left.add_patch(_frame(column - 0.5, row - 0.5, PATCH, PATCH))

    middle.imshow(cols, "gray_r", vmax=2, aspect="auto")
    middle.add_patch(_frame(-0.5, SHOWN - 0.5, PATCH * PATCH, 1))
    middle.set(title="cols (16, 4)", xticks=range(4), yticks=range(16))
    middle.set_xticklabels(["0,0", "0,1", "1,0", "1,1"])
    middle.set(xlabel="i, j within the patch", ylabel="patch n")
    middle.tick_params(length=0, labelsize=7)

    features = F.sine_features(np.arange(32.0), 32, temperature=100.0)
    alike = features @ features.T / 16
    shown = right.imshow(alike, "Blues", vmin=0, vmax=1)
    right.set(title="how alike the sine features of x and x' are", xlabel="x'", ylabel="x")
    figure.colorbar(shown, ax=right, shrink=0.8)
    return figure


def _frame(x, y, width, height):
    return Rectangle((x, y), width, height, fill=False, edgecolor=ORANGE, lw=2, zorder=3, clip_on=False)
