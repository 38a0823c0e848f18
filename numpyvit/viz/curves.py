"""The curves of a training run."""

import io
import math

from ..files.atomic import write_atomically

_BLUE, _ORANGE, _GREY, _DARK = (31, 119, 180), (255, 127, 14), (215, 215, 215), (60, 60, 60)


def draw_curves(records, path):
    """Loss and accuracy over the epochs, training and validation, as a PNG. records: what `fit` returns.

    By matplotlib where it works, else by Pillow alone.
    """
    buffer = io.BytesIO()
    try:
        _curves_by_matplotlib(records, buffer)
    except Exception:  # there is none, or one that does not work with the other packages
        buffer = io.BytesIO()
        _curves_by_pillow(records, buffer)
    write_atomically(path, buffer.getvalue())


def _curves_by_matplotlib(records, buffer):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(12.8, 4.4), layout="constrained")
    epochs = [record["epoch"] for record in records]
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        for part, name in _parts(records):
            axes.plot(
                epochs,
                [record[f"{part}_{key}"] for record in records],
                label=name,
                marker="o" if len(epochs) == 1 else "",
            )
        axes.set(title=key, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.4)
        axes.legend()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.savefig(buffer, format="png", dpi=100)


def _parts(records):
    """The prefixes of the records' keys with their names; without a validation set there are no val_… keys."""
    return [(part, name) for part, name in (("train", "train"), ("val", "validation")) if f"{part}_loss" in records[0]]


def _curves_by_pillow(records, buffer):
    from PIL import Image

    panels = [_panel(records, "loss", "{:.2f}"), _panel(records, "accuracy", "{:.0%}")]
    sheet = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height), "white")
    for i, panel in enumerate(panels):
        sheet.paste(panel, (i * panel.width, 0))
    sheet.save(buffer, "PNG")


def _panel(records, key, label):
    """One chart with the two curves train_<key> and val_<key>."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, left, top, right, bottom = 640, 440, 80, 50, 615, 385
    image = Image.new("RGB", (width, height), "white")
    draw, font, large = ImageDraw.Draw(image), ImageFont.load_default(16), ImageFont.load_default(20)
    curves = {name: [r[f"{part}_{key}"] for r in records] for part, name in _parts(records)}
    low, high, ticks = _nice_ticks(min(map(min, curves.values())), max(map(max, curves.values())))
    last = max(len(records), 2)

    def place(epoch, value):
        return (
            left + (right - left) * (epoch - 1) / (last - 1),
            bottom - (bottom - top) * (value - low) / (high - low),
        )

    for tick in ticks:
        y = place(1, tick)[1]
        draw.line((left, y, right, y), fill=_GREY)
        draw.text((left - 8, y), label.format(tick), fill=_DARK, font=font, anchor="rm")
    for epoch in sorted({1, last, *(round(1 + (last - 1) * i / 4) for i in range(5))}):
        draw.text((place(epoch, low)[0], bottom + 8), str(epoch), fill=_DARK, font=font, anchor="mt")
    draw.text(((left + right) / 2, height - 8), "epoch", fill=_DARK, font=font, anchor="mb")
    draw.text((left, 33), key, fill=_DARK, font=large, anchor="ls")
    for i, (name, values) in enumerate(curves.items()):
        color = (_BLUE, _ORANGE)[i]
        points = [place(epoch + 1, value) for epoch, value in enumerate(values)]
        if len(points) > 1:
            draw.line(points, fill=color, width=3, joint="curve")
        else:
            x, y = points[0]
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=color)
        draw.line((right - 250 + 130 * i, 26, right - 222 + 130 * i, 26), fill=color, width=3)
        draw.text((right - 214 + 130 * i, 26), name, fill=_DARK, font=font, anchor="lm")
    return image


def _nice_ticks(low, high):
    """-> lower end, upper end and about five round values that cover low..high."""
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * 5 >= span * 0.999)
    first, last = int(low // step), -int(-high // step)
    ticks = [step * i for i in range(first, max(last, first + 1) + 1)]
    return ticks[0], ticks[-1], ticks
