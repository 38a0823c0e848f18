"""Changes to many images at once, a piece of a batch:   (inputs, targets, rng) -> (inputs, targets).

inputs: images (B, C, H, W), targets: labels (B,), or what the set's task has as targets; rng: a numpy Generator. A
change returns new arrays. Images may lie on a device: then only what is drawn for each of them goes there.

`Loader(…, augment=[random_crop(4), random_flip()])` applies them in that order. Every draw comes from the generator
handed in.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..backend import Array, array_module

Augmentation = Callable[..., tuple]  # (inputs, targets, rng) -> (inputs, targets)


def random_crop(padding: int) -> Augmentation:
    """Pad each side with zeros by `padding` pixels and cut the old size out at a random place, one an image."""

    def crop(images, targets, rng):
        xp, (B, C, H, W) = array_module(images), images.shape
        padded = xp.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        top, left = xp.asarray(rng.integers(0, 2 * padding + 1, (2, B)))
        rows = (top[:, None] + xp.arange(H))[:, None, :, None]  # B, 1, H, 1
        columns = (left[:, None] + xp.arange(W))[:, None, None, :]  # B, 1, 1, W
        return padded[xp.arange(B)[:, None, None, None], xp.arange(C)[:, None, None], rows, columns], targets

    return crop


def random_flip(p: float = 0.5) -> Augmentation:
    """Mirror each image left to right with probability p."""

    def flip(images, targets, rng):
        xp = array_module(images)
        chosen = xp.asarray(rng.random(len(images)) < p)
        return xp.where(chosen[:, None, None, None], images[..., ::-1], images), targets

    return flip


def random_affine(degrees: float = 0.0, shift: float = 0.0, scale: float = 0.0) -> Augmentation:
    """Rotate by up to ±degrees, move by up to ±shift pixels and scale by up to 1 ± scale, with bilinear sampling.

    Each output pixel (y, x), measured from the center, takes its value from the input at
    R(−θ)(y − dy, x − dx)/s, mixed from the four pixels around; outside is 0.
    """

    def affine(images, targets, rng):
        xp, (B, _, H, W) = array_module(images), images.shape
        angle = np.deg2rad(rng.uniform(-degrees, degrees, B))
        dy, dx = rng.uniform(-shift, shift, (2, B))
        size = rng.uniform(1 - scale, 1 + scale, B)
        drawn = xp.asarray(np.stack([dy, dx, np.cos(angle) / size, np.sin(angle) / size]))
        dy, dx, cos, sin = drawn[:, :, None, None]
        y = xp.arange(H)[:, None] - (H - 1) / 2 - dy  # B, H, W
        x = xp.arange(W)[None, :] - (W - 1) / 2 - dx
        turned = sample_bilinear(images, cos * y - sin * x + (H - 1) / 2, sin * y + cos * x + (W - 1) / 2)
        return turned, targets

    return affine


def sample_bilinear(images: Array, y: Array, x: Array) -> Array:
    """images (B, C, H, W) at the places y, x (B, h, w) -> (B, C, h, w) of the same dtype; outside is 0."""
    xp, (H, W) = array_module(images), images.shape[2:]
    batch = xp.arange(len(images))[:, None, None]
    pixels = xp.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))).transpose(0, 2, 3, 1)  # a border of 0 all around
    y, x = xp.clip(y + 1, 0, H + 1), xp.clip(x + 1, 0, W + 1)
    top, left = xp.minimum(y.astype(np.intp), H), xp.minimum(x.astype(np.intp), W)
    fy, fx = ((y - top)[..., None]).astype(np.float32), ((x - left)[..., None]).astype(np.float32)
    mixed = (1 - fy) * (1 - fx) * pixels[batch, top, left] + (1 - fy) * fx * pixels[batch, top, left + 1]
    mixed += fy * (1 - fx) * pixels[batch, top + 1, left] + fy * fx * pixels[batch, top + 1, left + 1]
    if images.dtype == np.uint8:
        mixed = xp.rint(mixed)
    return mixed.astype(images.dtype).transpose(0, 3, 1, 2)


def normalize(images: Array, mean: Sequence[float], std: Sequence[float], dtype: np.dtype | type = np.float32) -> Array:
    """(x/255 − mean)/std a channel: (B, C, H, W) uint8 -> floating point."""
    mean, std = (np.asarray(values, np.float64) for values in (mean, std))
    scale, shift = array_module(images).asarray(np.stack([1 / (255 * std), mean / std]).astype(dtype))[:, :, None, None]
    result = images * scale
    result -= shift
    return result
