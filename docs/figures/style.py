"""What the figures share: colors, a matrix with its numbers, and how they become PNGs."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, GRAY, INK = "#2166ac", "#d6604d", "#3a8f5c", "#8c8c8c", "#222222"
SIGNED = "RdBu"  # red below 0, white at 0, blue above
RULES = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.edgecolor": GRAY,
    "xtick.color": INK,
    "ytick.color": INK,
}


def png(draw) -> bytes:
    """The figure of a page as PNG: on white, to be read on dark pages too, and in few colors, to be small."""
    with matplotlib.rc_context(RULES):
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=140, facecolor="white", metadata={"Software": None})
    small, image = io.BytesIO(), Image.open(buffer).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def panels(width: float, height: float, rows: int, columns: int, **options) -> tuple[Figure, np.ndarray]:
    """A figure of width × height inches with its axes (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def matrix(axes: Axes, values: np.ndarray, title: str, numbers: str = "z.1f") -> None:
    """Cells colored by sign and size, with their numbers."""
    largest = abs(values).max()
    axes.imshow(values, SIGNED, vmin=-1.6 * largest, vmax=1.6 * largest)  # pale enough to read the numbers
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, signed(value, numbers), ha="center", va="center", fontsize=7)
    axes.set_title(title)
    bare(axes)


def signed(value: float, numbers: str) -> str:
    """A number with a true minus."""
    return f"{value:{numbers}}".replace("-", "−")


def bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
