"""Colored shapes on noise, drawn from a seed: a set to learn detection on, of which nothing is stored."""

import numpy as np

from ..errors import ConfigError
from ..functional import box_xyxy_to_cxcywh
from .cache import CACHE_MB, ImageCache
from .detection import DetectionDataset

PARTS = {"train": 2000, "val": 500, "test": 500}  # images
CLASSES = ("circle", "cross", "ring", "square", "triangle")
_COLORS = np.array(
    [(220, 50, 47), (60, 170, 60), (50, 100, 220), (230, 190, 40), (200, 70, 190), (60, 190, 200), (235, 235, 235)],
    np.uint8,
)
_MOST = 4  # shapes in an image
_SIDES = (0.16, 0.42)  # of a shape, over the image's shorter side
_HIDDEN = 0.25  # the largest share of a shape's box, or of an earlier one's, that two boxes have in common
_TRIES = 20  # places that are tried for a shape before it is left out
_NOISE = 70  # the background goes from 0 to this
_SMALLEST = 16  # pixels: on a smaller image shapes cannot be told apart


def load_shapes(
    size: tuple[int, int] = (64, 64), seed: int = 0, *, cache_mb: int = CACHE_MB
) -> dict[str, DetectionDataset]:
    """{"train", "val", "test"}: DetectionDatasets of 2,000, 500 and 500 images. size: (height, width) of an image.

    cache_mb: images are kept once they are drawn, while they fit into so many MiB.
    """
    if min(size) < _SMALLEST:
        raise ConfigError(f"shapes are drawn on images of at least {_SMALLEST}×{_SMALLEST} pixels, got {size}")
    half, cache = (0.5,) * 3, ImageCache(cache_mb)
    sources = {part: _Drawn(count, tuple(size), (seed, i)) for i, (part, count) in enumerate(PARTS.items())}
    return {
        part: DetectionDataset(source, CLASSES, half, half, "shapes", cache=cache) for part, source in sources.items()
    }


class _Drawn:
    """Images that follow from a seed and their number. What is drawn in them is kept."""

    def __init__(self, count, size, seed):
        self.count, self.image_shape, self.img_size, self.seed = count, (3, *size), size, seed
        self._shapes = {}

    def __len__(self):
        return self.count

    def image(self, i):
        image, *self._shapes[i] = draw_shapes(np.random.default_rng((*self.seed, int(i))), self.image_shape[1:])
        return image

    def target(self, i):
        if i not in self._shapes:
            self.image(i)
        labels, boxes = self._shapes[i]
        height, width = size = self.image_shape[1:]
        places = box_xyxy_to_cxcywh(boxes) / (width, height, width, height)
        return {"labels": labels, "boxes": places.astype(np.float32), "image_id": int(i), "size": size}


def draw_shapes(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> image (3, H, W) uint8, labels (n,) int64, boxes (n, 4) int64: left, top, right, bottom in pixels.

    One to four shapes of different colors, later ones before earlier ones. A box is that of the whole shape, whether or
    not a part of it is hidden, and has no empty row or column.
    """
    height, width = size
    image = rng.integers(0, _NOISE, (3, height, width), dtype=np.uint8)
    labels, boxes = [], np.empty((0, 4), np.int64)
    for color in rng.permutation(_COLORS)[: rng.integers(1, _MOST + 1)]:
        label = rng.integers(len(CLASSES))
        shape = shape_pixels(CLASSES[label], max(5, round(min(size) * rng.uniform(*_SIDES))))
        box = _free_place(rng, shape.shape, size, boxes)
        if box is None:
            continue
        left, top, right, bottom = box
        image[:, top:bottom, left:right][:, shape] = color[:, None]
        labels.append(label)
        boxes = np.append(boxes, [box], axis=0)
    return image, np.array(labels, np.int64), boxes


def shape_pixels(name: str, side: int) -> np.ndarray:
    """(h, w) bool: a shape that touches all four sides of its box, h and w at most `side`."""
    across = np.abs(np.arange(side) - (side - 1) / 2)  # from the middle
    x, y, half = across[None, :], across[:, None], side / 2
    if name == "square":
        return np.ones((side, side), bool)
    if name == "cross":
        return np.minimum(x, y) <= half / 3
    if name == "triangle":
        return x <= (np.arange(side)[:, None] + 1) / 2
    disc = x * x + y * y <= half * half
    return disc if name == "circle" else disc & (x * x + y * y > (0.55 * half) ** 2)


def _free_place(rng, shape, size, boxes):
    """A box of this (height, width) in the image that hides little of the others, or None after some tries."""
    (height, width), (image_height, image_width) = shape, size
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for _ in range(_TRIES):
        left = int(rng.integers(0, image_width - width + 1))
        top = int(rng.integers(0, image_height - height + 1))
        box = np.array([left, top, left + width, top + height])
        sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        shared = np.maximum(sides, 0).prod(1)
        if (shared <= _HIDDEN * np.minimum(areas, height * width)).all():
            return box
    return None
