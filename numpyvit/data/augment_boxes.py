"""Changes to many images with boxes at once, a piece of a batch:   (inputs, targets, rng) -> (inputs, targets).

inputs: images (B, C, H, W) uint8 and mask (B, H, W), True at the padding; targets: a dict for each image, as of a
detection set. Boxes are clipped to what is seen of the image; those of which too little is left are dropped with their
labels. A change returns new arrays and dicts.

`Loader(…, augment=[random_box_flip(), random_box_scale(0.7, 1.4)])` applies them in that order. Every draw comes from
the generator handed in.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import ConfigError
from ..functional import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh
from .augment import Augmentation
from .detection import own_sizes, pad

_OF_EACH_BOX = ("labels", "boxes", "area", "iscrowd", "difficult")  # keys of a target
_KEPT = 0.25  # the least share of a box's area that must be left


def random_box_flip(horizontal: float = 0.5, vertical: float = 0.0) -> Augmentation:
    """Mirror each image left to right, and top to bottom, with these probabilities."""

    def flip(inputs, targets, rng):
        (images, mask), targets = inputs, [dict(target) for target in targets]
        images = images.copy()
        sideways, upside = rng.random(len(images)) < horizontal, rng.random(len(images)) < vertical
        for image, (h, w), target, x, y in zip(images, own_sizes(mask), targets, sideways, upside):
            own = image[:, :h, :w]
            own[:] = own[:, :: -1 if y else 1, :: -1 if x else 1].copy()
            target["boxes"] = target["boxes"].copy()
            target["boxes"][:, :2] = np.where((x, y), 1 - target["boxes"][:, :2], target["boxes"][:, :2])
        return (images, mask), targets

    return flip


def random_box_crop(smallest: float = 0.5, p: float = 0.5, kept: float = _KEPT) -> Augmentation:
    """Cut each image, with probability p, to a rectangle whose sides are `smallest` to 1 of its own.

    kept: boxes are dropped of which less than this share of the area lies in the rectangle. An image that is cut is
    smaller; the batch is padded to its largest.
    """
    _check_share("smallest", smallest)

    def crop(inputs, targets, rng):
        images, mask = inputs
        cut, results = [], []
        for image, size, target in zip(images, own_sizes(mask), targets):
            shares, places = rng.uniform(smallest, 1, 2), rng.random(2)
            if rng.random() >= p:
                shares[:] = 1
            sides = np.maximum(1, np.rint(shares * size).astype(int))
            top, left = np.rint(places * (size - sides)).astype(int)
            height, width = sides
            cut.append(image[:, top : top + height, left : left + width])
            results.append(seen_through(target, (left, top, left + width, top + height), size, kept))
        return pad(cut), results

    return crop


def random_box_scale(low: float = 0.5, high: float = 1.5, kept: float = _KEPT) -> Augmentation:
    """Resize each image by a factor between low and high; of one that grows a random part of the old size is kept.

    One that shrinks is padded, so the batch keeps its shape. kept: as random_box_crop's.
    Source: G. Ghiasi et al., Simple Copy-Paste, 2021, arXiv:2012.07177, section 3, large scale jitter.
    """
    if not 0 < low <= high:
        raise ConfigError(f"low and high must be factors with 0 < low <= high, got {low!r} and {high!r}")

    def scale(inputs, targets, rng):
        images, mask = inputs
        resized, empty, results = np.zeros_like(images), np.ones_like(mask), []
        for i, (size, target) in enumerate(zip(own_sizes(mask), targets)):
            factor, places = rng.uniform(low, high), rng.random(2)
            height, width = np.maximum(1, np.rint(size * min(factor, 1)).astype(int))
            window = size / max(factor, 1)  # what is seen of the image, in its own pixels
            top, left = places * (size - window)
            box = left, top, left + window[1], top + window[0]
            own = images[i, :, : size[0], : size[1]]
            resized[i, :, :height, :width] = _resized(own, box, (height, width))
            empty[i, :height, :width] = False
            results.append(seen_through(target, box, size, kept))
        return (resized, empty), results

    return scale


def seen_through(target: Mapping, window: Sequence[float], size: Sequence[int], kept: float = _KEPT) -> dict:
    """The target of the part of an image that lies in a window. window: left, top, right, bottom, in pixels.

    size: (height, width) of the image in the same pixels. Boxes of which less than the share `kept` lies in the window
    are dropped. "size" and "area" become those of the part that is seen.
    """
    window = np.asarray(window, float) / np.tile(size[::-1], 2)
    origin, sides = window[:2], window[2:] - window[:2]
    boxes = np.asarray(target["boxes"], np.float64)
    seen = np.clip((box_cxcywh_to_xyxy(boxes) - np.tile(origin, 2)) / np.tile(sides, 2), 0, 1)
    low, high = seen[:, :2], seen[:, 2:]
    share = ((high - low) * sides).prod(1) / np.maximum(boxes[:, 2:].prod(1), 1e-12)
    some = (share >= kept) & (high > low).all(1)
    boxes = box_xyxy_to_cxcywh(seen).astype(np.float32)
    height, width = target["size"]
    result = {**target, "boxes": boxes, "size": (max(1, round(height * sides[1])), max(1, round(width * sides[0])))}
    if "area" in target:
        result["area"] = target["area"] * share
    return result | {key: result[key][some] for key in _OF_EACH_BOX if key in result}


def _resized(image, box, size):
    """The part of an image (C, H, W) within a box, with bilinear weights, as (C, *size)."""
    from PIL import Image

    planes = [Image.fromarray(plane) for plane in image]
    return [np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR, box)) for plane in planes]


def _check_share(name, value):
    if not 0 < value <= 1:
        raise ConfigError(f"{name} must be above 0 and at most 1, got {value!r}")
