"""Batches made on the device from a data set of uint8 that lies there."""

from collections.abc import Sequence

import numpy as np

from ..backend import Array, array_module
from .program import launch_for_each, struct


def images_from_pixels(
    pixels: Array,
    chosen: Array,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    top: Array,
    left: Array,
    flip: Array,
    padding: int = 0,
) -> Array:
    """y = (pixel/255 − mean)/std, cropped and mirrored, in one pass:   (n, C, H, W) uint8 -> (B, C, H, W) float32.

    chosen:    which images, (B,) int64, in 0..n−1: on a device nobody looks.
    top, left: where each is cut out of itself with `padding` zeros on each side, (B,) int32; `padding` is the middle.
    flip:      (B,) uint8, 1 where an image is mirrored left to right.
    """
    xp, (B, (_, C, H, W)) = array_module(pixels), (len(chosen), pixels.shape)
    factor, offset = (1 / (255 * np.asarray(std, np.float64)), np.divide(mean, std))
    factor, offset = (xp.asarray(values.astype(np.float32)) for values in (factor, offset))
    y = xp.empty((B, C, H, W), dtype=np.float32)
    arrays = (pixels, chosen, top, left, flip, factor, offset, y)
    crop = struct(channels=C, height=H, width=W, padding=padding)
    launch_for_each("images_from_pixels", y.size, *arrays, y.size, crop)
    return y
