"""The curves of a training run."""

import io
import os
from collections.abc import Mapping, Sequence

from ..files.atomic import write_atomically

PANELS = {"loss": ("loss",), "accuracy": ("accuracy",)}
_PARTS = (("train", "training", "--"), ("val", "validation", "-"))  # a record's prefix, its name, its line


def draw_curves(
    records: list[dict],
    path: str | os.PathLike,
    panels: Mapping[str, Sequence[str]] = PANELS,
    shares: Sequence[str] = ("accuracy",),
    best: int | None = None,
) -> None:
    """Figures over the epochs, of training (dashed) and validation (solid), as a PNG.

    records: what `fit` returns. panels: {title: figures}, such as "loss" for the keys train_loss and val_loss; what no
    record holds is left out. shares: figures in 0..1, shown in percent. best: the epoch to mark.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    drawn = {title: lines for title, names in panels.items() if (lines := _lines(records, names))}
    width = 6.4 * len(drawn)
    figure = Figure(figsize=(width, 4.4))
    figure.subplots_adjust(0.7 / width, 0.12, 1 - 0.2 / width, 0.92, wspace=0.18)  # a layout engine takes as long again
    for axes, (title, lines) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items()):
        _draw_panel(axes, title, lines, [record["epoch"] for record in records], best)
        if set(panels[title]) <= set(shares):
            axes.yaxis.set_major_formatter(PercentFormatter(1))  # with as many decimals as the range needs
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_atomically(path, buffer.getvalue())


def _lines(records, names):
    """[(label, color, line style, values)] of the figures that the records hold, each figure in its color."""
    return [
        (f"{part} {name}", f"C{number}", style, [record[key] for record in records])
        for number, name in enumerate(names)
        for prefix, part, style in _PARTS
        if (key := f"{prefix}_{name}") in records[-1]
    ]


def _draw_panel(axes, title, lines, epochs, best):
    from matplotlib.ticker import MaxNLocator

    for label, color, style, values in lines:
        axes.plot(epochs, values, style, color=color, label=label, marker="o" if len(epochs) == 1 else "")
    if best is not None:
        axes.axvline(best, color="0.4", linestyle=":", label=f"best epoch, {best}")
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.4)
    axes.legend()
