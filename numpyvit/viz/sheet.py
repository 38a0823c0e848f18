"""Sheets of maps over an image: tiles in rows, one scale for the maps that are to be compared, and its color bar."""

import bisect
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import ShapeError
from ..files.atomic import write_atomically
from .text import readable

GAP, _LINE, _FOOT = 12, 24, 66
_LETTERS, _TITLE = 14, 18  # sizes
_FRAME = 2  # pixels of an outline
_NEAREST = 4  # images enlarged by more than this factor keep sharp pixel edges
_OCTAVES = 6  # the longest scale goes from a value to 64 times that value
_DARKEST = 0.65  # what the darkest pixels leave of a color: the map is to be seen first, the image through it
_GRAY = (0.299, 0.587, 0.114)
# from white through matplotlib's magma, reversed and without its darkest end: equal steps of lightness
_COLORS = np.array(
    [(255, 255, 255), (254, 202, 141), (253, 150, 104), (241, 96, 93), (205, 64, 113), (158, 47, 127), (114, 31, 129)]
)


@dataclass(frozen=True)
class Tile:
    """A map (rows, columns) over the image, or the image itself where there are no values.

    own_scale: shown from its lowest value to its 99th percentile instead of on the sheet's common scale, and starred.
    outlines:  parts that are outlined on it alone, each (top, left, bottom, right) as shares of the image.
    """

    name: str
    values: np.ndarray | None = None
    own_scale: bool = False
    outlines: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale from 2**low to 2**high."""

    low: int
    high: int

    @classmethod
    def over(cls, values: np.ndarray) -> Self:
        """From a power of two below nearly all values to one above; of very different values the high ones decide."""
        low, high = np.log2(np.maximum(np.quantile(values, [0.05, 0.995]), 1e-9))
        high = max(math.ceil(high), math.floor(low) + 1)
        return cls(max(math.floor(low), high - _OCTAVES), high)

    def share(self, values: np.ndarray) -> np.ndarray:
        """0 at the scale's beginning, 1 at its end."""
        return (np.log2(np.maximum(values, 1e-9)) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """(share, text) of each power of two."""
        powers = range(self.low, self.high + 1)
        return [((p - self.low) / (self.high - self.low), f"{2**p}" if p >= 0 else f"1/{2**-p}") for p in powers]


def draw_sheet(
    pixels: np.ndarray,
    tiles: Sequence[Tile],
    path: str | os.PathLike,
    title: str = "",
    unit: str = "",
    tile_size: int = 224,
    outline: tuple[float, float, float, float] | None = None,
) -> None:
    """Write a PNG of tiles with their names, in rows that fill the sheet, above the color bar of the common scale.

    pixels: (C, H, W) uint8, gray or RGB. unit: what is said about the numbers at the color bar.
    outline: (top, left, bottom, right) of a part that is outlined on each tile, as shares of the image.
    """
    from PIL import ImageDraw

    drawn, scale = color_tiles(pixels, tiles, tile_size)
    image = drawn[0]
    sheet, places = lay_out(len(tiles), image.size, title, foot=_FOOT, line=_LINE)
    draw = ImageDraw.Draw(sheet)
    for tile, colored, (x, y) in zip(tiles, drawn, places):
        sheet.paste(colored, (x, y))
        for part in (*tile.outlines, *([] if outline is None else [outline])):
            _draw_outline(draw, (x, y), image.size, part)
        name = tile.name + (" *" if tile.own_scale else "")
        write_line(draw, (x, y + image.height + 4), name, _LETTERS, image.width, "#333333")
    if scale is not None:
        starred = "   * from its lowest to its highest" if any(tile.own_scale for tile in tiles) else ""
        _draw_scale(sheet, draw, scale, unit + starred, sheet.height - _FOOT)
    save_png(sheet, path)


def draw_images(
    images: Sequence[np.ndarray],
    path: str | os.PathLike,
    names: Sequence[str],
    title: str = "",
    tile_size: int = 128,
) -> None:
    """Write a PNG of images side by side, a contact sheet, each with its name below.

    images: [(C, H, W) uint8, …], gray or RGB. tile_size: pixels of an image's longer side on the sheet.
    Errors: ShapeError where there are no images, or not as many names.
    """
    from PIL import ImageDraw

    if not len(images) or len(images) != len(names):
        raise ShapeError(f"{len(images)} images and {len(names)} names; expected as many, at least one")
    tiles = [enlarged(image, tile_size) for image in images]
    largest = tuple(max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    sheet, places = lay_out(len(tiles), largest, title, line=_LINE)
    draw = ImageDraw.Draw(sheet)
    for tile, name, (x, y) in zip(tiles, names, places):
        sheet.paste(tile, (x, y))
        write_line(draw, (x, y + tile.height + 4), name, _LETTERS, largest[0], "#333333")
    save_png(sheet, path)


def lay_out(count: int, size: tuple[int, int], title: str, foot: int = 0, line: int = 0) -> tuple:
    """A white Pillow image with the title above, and the left upper corner of each of `count` tiles, in rows.

    size: (width, height) of a tile. line: what is left free below each; foot: below them all.
    """
    from PIL import Image, ImageDraw

    columns, (width, height) = column_count(count, size[0] / size[1]), (size[0] + GAP, size[1] + line + GAP)
    top = GAP + (_LINE + GAP if title else 0)
    sheet = Image.new("RGB", (GAP + columns * width, top + -(-count // columns) * height + foot), "white")
    write_line(ImageDraw.Draw(sheet), (GAP, GAP), title, _TITLE, sheet.width - 2 * GAP, "black")
    return sheet, [(GAP + i % columns * width, top + i // columns * height) for i in range(count)]


def save_png(image: Any, path: str | os.PathLike) -> None:
    """Write a Pillow image, whole or not at all."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())


def color_tiles(pixels: np.ndarray, tiles: Sequence[Tile], tile_size: int):
    """-> [a Pillow image of each tile, all of one size], and the common Scale of their maps, if they have one."""
    image = enlarged(pixels, tile_size)
    light = _lightened(image)
    common = [tile.values.ravel() for tile in tiles if tile.values is not None and not tile.own_scale]
    scale = Scale.over(np.concatenate(common)) if common else None
    return [image if tile.values is None else _colored(light, _share(tile, scale)) for tile in tiles], scale


def enlarged(pixels: np.ndarray, tile_size: int):
    """(C, H, W) uint8 as a Pillow image whose longer side is tile_size. Errors: ShapeError for other channels."""
    from PIL import Image

    channels, height, width = pixels.shape
    if channels not in (1, 3):
        raise ShapeError(f"an image to draw on has 1 or 3 channels, got shape {pixels.shape}")
    factor = tile_size / max(height, width)
    image = Image.fromarray(np.broadcast_to(pixels.transpose(1, 2, 0), (height, width, 3)).copy())
    resample = Image.Resampling.NEAREST if factor > _NEAREST else Image.Resampling.BICUBIC
    return image.resize((max(1, round(width * factor)), max(1, round(height * factor))), resample)


def _lightened(image):
    """(H, W, 1) in _DARKEST..1: the image in gray with its contrast spread out, light enough to be colored."""
    gray = np.asarray(image, np.float32) @ np.array(_GRAY, np.float32)
    low, high = np.quantile(gray, [0.01, 0.99])
    return _DARKEST + (1 - _DARKEST) * np.clip((gray - low) / max(float(high - low), 1e-6), 0, 1)[..., None]


def outlined(image: Any, parts: Sequence[tuple[float, float, float, float]]) -> Any:
    """A Pillow image with parts of it outlined, each (top, left, bottom, right) as shares; frames at its edge too."""
    from PIL import ImageDraw

    image = image.copy()
    (width, height), draw = image.size, ImageDraw.Draw(image)
    for part in parts:
        _draw_outline(draw, (_FRAME, _FRAME), (width - 2 * _FRAME, height - 2 * _FRAME), part)
    return image


def column_count(count: int, aspect: float) -> int:
    """How many tiles stand in a row: few places left empty, and a sheet one and a half times as wide as high."""

    def cost(columns):
        rows = -(-count // columns)
        return 1 - count / (rows * columns) + 0.05 * abs(math.log(columns * aspect / rows / 1.5))

    return min(range(min(count, 3), min(count, 8) + 1), key=cost)


def _share(tile, scale):
    if not tile.own_scale:
        return scale.share(tile.values)
    low, high = tile.values.min(), np.quantile(tile.values, 0.99)
    return (tile.values - low) / max(float(high - low), 1e-12)


def _colored(light, share):
    """The gray image in the colors of a map; enlarged as floating point, so that no steps are seen."""
    from PIL import Image

    size = light.shape[1::-1]
    share = np.clip(share, 0, 1).astype(np.float32)  # a 0 far below the scale would swing over beside its edge
    share = Image.fromarray(share).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(np.rint(_colors(np.asarray(share)) * light).astype(np.uint8))


def _colors(share):
    """(..., 3) in 0..255 for values in 0..1; what lies outside gets the color of the end."""
    places = np.linspace(0, 1, len(_COLORS))
    return np.stack([np.interp(share, places, channel) for channel in _COLORS.T], axis=-1)


def _draw_outline(draw, place, size, outline):
    """A black frame in a white one, around the part, seen on any color."""
    (x, y), (width, height), (top, left, bottom, right) = place, size, outline
    box = (x + left * width, y + top * height, x + right * width - 1, y + bottom * height - 1)
    for margin, color in ((_FRAME, "white"), (_FRAME - 1, "black")):
        draw.rectangle((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin), outline=color)


def _draw_scale(sheet, draw, scale, unit, y):
    """The color bar, above on light pixels of the image and below on dark ones, with its ticks."""
    from PIL import Image, ImageFont

    width, height = min(480, sheet.width - 4 * GAP), 16
    write_line(draw, (GAP, y), unit, _LETTERS, sheet.width - 2 * GAP, "#333333")
    x, y = 2 * GAP, y + 22
    bar = _colors(np.linspace(0, 1, width))[None] * np.linspace(1, _DARKEST, height)[:, None, None]
    sheet.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (x, y))
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline="#999999")
    font = ImageFont.load_default(_LETTERS)
    for share, text in scale.ticks():
        place = x + share * (width - 1)
        draw.line((place, y + height, place, y + height + 3), fill="#333333")
        draw.text((place, y + height + 4), text, fill="#333333", font=font, anchor="ma")


def write_line(draw: Any, place: tuple[int, int], text: str, size: int, width: int, color: str) -> None:
    """Text on one line, in letters of this size, cut where it is too long."""
    text, font = readable(text, size)
    if draw.textlength(text, font) > width:
        fitting = bisect.bisect(range(len(text)), width, key=lambda end: draw.textlength(text[:end] + "…", font))
        text = text[: max(0, fitting - 1)] + "…"
    draw.text(place, text, fill=color, font=font)
