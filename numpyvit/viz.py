"""Pictures of a run and of a model: the curves of training."""

import io

from .files import write_atomically

_BLUE, _ORANGE, _GREY, _DARK = (31, 119, 180), (255, 127, 14), (215, 215, 215), (60, 60, 60)


def draw_curves(records, path):
    """Loss and accuracy over the epochs, training and validation, as a PNG. records: what `fit` returns."""
    from PIL import Image

    panels = [
        _panel(records, "loss", "loss", lambda v: f"{v:.2f}"),
        _panel(records, "accuracy", "accuracy", lambda v: f"{v:.0%}"),
    ]
    sheet = Image.new("RGB", (sum(p.width for p in panels), panels[0].height), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def _panel(records, key, title, label):
    """One chart with the two curves train_<key> and val_<key>."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, left, top, right, bottom = 640, 440, 80, 50, 615, 385
    image = Image.new("RGB", (width, height), "white")
    draw, font, large = ImageDraw.Draw(image), ImageFont.load_default(16), ImageFont.load_default(20)
    curves = {"train": [r[f"train_{key}"] for r in records], "validation": [r[f"val_{key}"] for r in records]}
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
        draw.text((left - 8, y), label(tick), fill=_DARK, font=font, anchor="rm")
    for epoch in sorted({1, last, *(round(1 + (last - 1) * i / 4) for i in range(5))}):
        draw.text((place(epoch, low)[0], bottom + 8), str(epoch), fill=_DARK, font=font, anchor="mt")
    draw.text(((left + right) / 2, height - 8), "epoch", fill=_DARK, font=font, anchor="mb")
    draw.text((left, 16), title, fill=_DARK, font=large, anchor="lt")
    for i, (name, values) in enumerate(curves.items()):
        colour = (_BLUE, _ORANGE)[i]
        points = [place(epoch + 1, value) for epoch, value in enumerate(values)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=3, joint="curve")
        else:
            x, y = points[0]
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        draw.line((right - 250 + 130 * i, 26, right - 222 + 130 * i, 26), fill=colour, width=3)
        draw.text((right - 214 + 130 * i, 26), name, fill=_DARK, font=font, anchor="lm")
    return image


def _nice_ticks(low, high):
    """-> lower end, upper end and about five round values that cover low..high."""
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    step = next(m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5) if m * 10.0**e * 5 >= span)
    first, last = int(low // step), -int(-high // step)
    ticks = [step * i for i in range(first, max(last, first + 1) + 1)]
    return ticks[0], ticks[-1], ticks
