"""Boxes on images: what a detector found, solid, with class and score; what is true, dashed."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import ShapeError
from ..functional import box_cxcywh_to_xyxy
from .sheet import GAP, enlarged, lay_out, save_png, write_line
from .text import readable

_FOOT, _FOOT_LETTERS = 24, 14
_DASH, _SPACE = 6, 5
_FONT = 13
_LEAST_SIDE = 14  # a box smaller than its tag's line has the tag beside it
_COLORS = (  # by label, from the start again after the last; all are seen on light and on dark images
    (255, 90, 80),
    (70, 200, 90),
    (90, 150, 255),
    (255, 200, 40),
    (220, 110, 255),
    (50, 215, 215),
    (255, 145, 50),
    (255, 120, 180),
    (170, 220, 60),
    (190, 165, 130),
)
_WHITE = (255, 255, 255)


def draw_boxes(
    images: Sequence[np.ndarray],
    path: str | os.PathLike,
    classes: Sequence[str],
    *,
    found: Sequence[Mapping] | None = None,
    true: Sequence[Mapping] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    least: float = 0.5,
    title: str = "",
    tile_size: int = 480,
) -> None:
    """Write a PNG of images with their boxes, side by side in rows.

    images: [(C, H, W) uint8, …]. classes: names, by label. found: [{"scores", "labels", "boxes"}, …] as of
    score_detections, boxes left, top, right, bottom in pixels of an image of sizes[i], (height, width); default the
    image's own. Those scored below `least` are not drawn. true: [{"labels", "boxes"}, …] as of a detection set, boxes
    center x, center y, width, height in 0..1. tile_size: pixels of an image's longer side on the sheet.
    Errors: ShapeError where there are no images, or not one of each for every image.
    """
    from PIL import ImageDraw

    for name, values in (("found", found), ("true", true), ("sizes", sizes)):
        if not len(images) or (values is not None and len(values) != len(images)):
            raise ShapeError(f"{len(images)} images and {len(values or ())} {name}; expected as many, at least one")
    tiles = [
        with_boxes(image, classes, f, t, size, least, tile_size)
        for image, f, t, size in zip(images, *(values or [None] * len(images) for values in (found, true, sizes)))
    ]
    largest = tuple(max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    foot = _FOOT if found and true else 0
    sheet, places = lay_out(len(tiles), largest, title, foot)
    for tile, place in zip(tiles, places):
        sheet.paste(tile, place)
    if foot:
        text = f"solid: found with a score of {least:g} or more; dashed: true"
        place, width = (GAP, sheet.height - foot - 4), sheet.width - 2 * GAP
        write_line(ImageDraw.Draw(sheet), place, text, _FOOT_LETTERS, width, "#333333")
    save_png(sheet, path)


def with_boxes(
    image: np.ndarray,
    classes: Sequence[str],
    found: Mapping | None = None,
    true: Mapping | None = None,
    size: tuple[int, int] | None = None,
    least: float = 0.5,
    tile_size: int = 480,
):
    """One image with its boxes, as a Pillow image whose longer side is tile_size. Arguments: see draw_boxes.

    A box's color says its class; where found boxes are given too, true ones are white and have no tags.
    """
    from PIL import ImageDraw

    tile = enlarged(image, tile_size)
    draw = ImageDraw.Draw(tile)
    width = max(2, round(tile_size / 240))
    tags = []
    for label, box in _places(true, tile.size):
        _rectangle(draw, box, _color(label) if found is None else _WHITE, width, dashed=True)
        if found is None:
            tags.append((label, box, classes[label]))
    for label, box, score in _best(found, size or image.shape[1:], tile.size, least):
        _rectangle(draw, box, _color(label), width, dashed=False)
        tags.append((label, box, tag_text(classes[label], score)))
    for label, box, text in tags:
        _tag(draw, box, text, _color(label), tile.size)
    return tile


def tag_text(name: str, score: float) -> str:
    """A class and its score as a tag shows them:   cat .93."""
    return f"{name} {score:.2f}".replace(" 0.", " .")


def _color(label):
    return _COLORS[label % len(_COLORS)]


def _places(true, tile_size):
    """[(label, left, top, right, bottom on the tile), …] of true boxes."""
    if true is None:
        return []
    corners = box_cxcywh_to_xyxy(np.asarray(true["boxes"], float).reshape(-1, 4))
    boxes = np.clip(corners, 0, 1) * np.tile(tile_size, 2)
    return list(zip(np.asarray(true["labels"]).tolist(), boxes.tolist()))


def _best(found, size, tile_size, least):
    """[(label, box on the tile, score), …] of found boxes that score enough, the best last, to be drawn above."""
    if found is None:
        return []
    scores = np.asarray(found["scores"], float)
    shares = np.asarray(found["boxes"], float).reshape(-1, 4) / np.tile(size[::-1], 2)
    boxes = np.clip(shares, 0, 1) * np.tile(tile_size, 2)
    order = [i for i in np.argsort(scores, kind="stable") if scores[i] >= least]
    return [(int(found["labels"][i]), boxes[i].tolist(), scores[i]) for i in order]


def _rectangle(draw, box, color, width, dashed):
    """A frame on a dark edge, so that it is seen on every ground."""
    left, top, right, bottom = (round(value) for value in box)
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    sides = [(left, top, right, top), (right, top, right, bottom), (left, bottom, right, bottom)]
    sides.append((left, top, left, bottom))
    for paint, extra in (((0, 0, 0), 2), (color, 0)):
        for side in sides:
            for piece in _dashes(*side) if dashed else [side]:
                draw.line(piece, fill=paint, width=width + extra)


def _dashes(x0, y0, x1, y1):
    length = max(x1 - x0, y1 - y0)
    across, down = int(x1 > x0), int(y1 > y0)
    for start in range(0, length + 1, _DASH + _SPACE):
        end = min(start + _DASH, length)
        yield x0 + across * start, y0 + down * start, x0 + across * end, y0 + down * end


def _tag(draw, box, text, color, tile_size):
    """The text, black on the color, above the box where there is room, else within it or below; never off the image."""
    text, font = readable(text, _FONT)
    width, height = draw.textlength(text, font) + 6, _FONT + 4
    left = min(max(box[0] - 1, 0), max(tile_size[0] - width, 0))
    top = box[1] - height
    if top < 0:
        top = box[1] if box[3] - box[1] > 2 * _LEAST_SIDE else min(box[3], tile_size[1] - height)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 3, top + height / 2), text, fill="black", font=font, anchor="lm")
