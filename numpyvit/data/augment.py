"""Changes to many images at once, a piece of a batch:   (inputs, targets, rng) -> (inputs, targets).

inputs: images (B, C, H, W), targets: labels (B,), or what the set's task has as targets; rng: a numpy Generator. A
change returns new arrays.

`Loader(…, augment=[random_crop(4), random_flip()])` applies them in that order. Every draw comes from the generator
handed in.
"""

from collections.abc import Callable, Sequence

import numpy as np

Augmentation = Callable[..., tuple]  # (inputs, targets, rng) -> (inputs, targets)


def random_crop(padding: int) -> Augmentation:
    """Pad each side with zeros by `padding` pixels and cut the old size out at a random place, one an image."""

    def crop(images, targets, rng):
        B, C, H, W = images.shape
        padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        top, left = rng.integers(0, 2 * padding + 1, (2, B))
        rows = (top[:, None] + np.arange(H))[:, None, :, None]  # B, 1, H, 1
        columns = (left[:, None] + np.arange(W))[:, None, None, :]  # B, 1, 1, W
        return padded[np.arange(B)[:, None, None, None], np.arange(C)[:, None, None], rows, columns], targets

    return crop


def random_flip(p: float = 0.5) -> Augmentation:
    """Mirror each image left to right with probability p."""

    def flip(images, targets, rng):
        images = images.copy()
        chosen = rng.random(len(images)) < p
        images[chosen] = images[chosen, :, :, ::-1]
        return images, targets

    return flip


def random_affine(degrees: float = 0.0, shift: float = 0.0, scale: float = 0.0) -> Augmentation:
    """Rotate by up to ±degrees, move by up to ±shift pixels and scale by up to 1 ± scale, with bilinear sampling.

    Each output pixel (y, x), measured from the center, takes its value from the input at
    R(−θ)(y − dy, x − dx)/s, mixed from the four pixels around; outside is 0.
    """

    def affine(images, targets, rng):
        B, _, H, W = images.shape
        angle = np.deg2rad(rng.uniform(-degrees, degrees, B))
        dy, dx = rng.uniform(-shift, shift, (2, B))
        size = rng.uniform(1 - scale, 1 + scale, B)
        column = (slice(None), None, None)
        y = np.arange(H)[:, None] - (H - 1) / 2 - dy[column]  # B, H, W
        x = np.arange(W)[None, :] - (W - 1) / 2 - dx[column]
        cos, sin = (np.cos(angle) / size)[column], (np.sin(angle) / size)[column]
        turned = sample_bilinear(images, cos * y - sin * x + (H - 1) / 2, sin * y + cos * x + (W - 1) / 2)
        return turned, targets

    return affine


def sample_bilinear(images: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """images (B, C, H, W) at the places y, x (B, h, w) -> (B, C, h, w) of the same dtype; outside is 0."""
    H, W = images.shape[2:]
    batch = np.arange(len(images))[:, None, None]
    pixels = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))).transpose(0, 2, 3, 1)  # a border of 0 all around
    y, x = np.clip(y + 1, 0, H + 1), np.clip(x + 1, 0, W + 1)
    top, left = np.minimum(y.astype(np.intp), H), np.minimum(x.astype(np.intp), W)
    fy, fx = ((y - top)[..., None]).astype(np.float32), ((x - left)[..., None]).astype(np.float32)
    mixed = (1 - fy) * (1 - fx) * pixels[batch, top, left] + (1 - fy) * fx * pixels[batch, top, left + 1]
    mixed += fy * (1 - fx) * pixels[batch, top + 1, left] + fy * fx * pixels[batch, top + 1, left + 1]
    if images.dtype == np.uint8:
        mixed = np.rint(mixed)
    return mixed.astype(images.dtype).transpose(0, 3, 1, 2)


def normalize(
    images: np.ndarray, mean: Sequence[float], std: Sequence[float], dtype: np.dtype | type = np.float32
) -> np.ndarray:
    """(x/255 − mean)/std a channel: (B, C, H, W) uint8 -> floating point."""
    mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (mean, std))
    result = images * (1 / (255 * std)).astype(dtype)
    result -= (mean / std).astype(dtype)
    return result
