"""From scikit-learn's arrays to images: layouts, and a set of images with a weight each.

Shapes: N images, C channels, H×W pixels, F = C·H·W features.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from ..backend import as_array
from ..data.dataset import LabeledImages, channels_first
from ..errors import ConfigError, ShapeError

_CHUNK = 1 << 22  # pixels that are measured at a time


def as_images(X: object) -> object:
    """X as an array of NumPy; a table of pandas stays one, with the names of its columns."""
    return X if hasattr(X, "columns") else np.asarray(as_array(X))


def as_rows(X: object) -> object:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) as rows (N, F), in the order of their pixels. Rows stay."""
    return X.reshape(len(X), math.prod(X.shape[1:])) if X.ndim > 2 else X


def layout(shape: tuple[int, ...], image_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """How the pixels of one image lie in a row: (H, W), (H, W, C) or (C, H, W).

    shape: of the array of all images. image_shape: what the user says; None: as the array has it, or for rows a square
    where their length is one, else one line of pixels.
    Errors: ConfigError where the two do not fit.
    """
    own, features = tuple(shape[1:]), math.prod(shape[1:])
    if image_shape is None:
        side = math.isqrt(features)
        return own if len(own) > 1 else (side, side) if side * side == features else (1, features)
    image_shape = tuple(image_shape)
    if math.prod(image_shape) != features or (len(own) > 1 and own != image_shape):
        raise ConfigError(
            f"the images have the shape {own}, image_shape={image_shape} has {math.prod(image_shape)} features; "
            "give (height, width), (height, width, channels) or (channels, height, width) of one image"
        )
    return image_shape


def check_layout(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Axes of 1 make no difference. Errors: ShapeError for images, or rows of them, of another shape than expected."""
    own = tuple(shape[1:])
    sides = [[side for side in sizes if side != 1] for sizes in (own, expected)]
    if sides[0] != sides[1] and own != (math.prod(expected),):
        raise ShapeError(f"the images have the shape {own}, the fitted ones {expected}")


def images_of(rows: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Rows (N, F) -> images (N, C, H, W), a view unless the channels come last."""
    return channels_first(rows.reshape(len(rows), *image_shape))


@dataclass(frozen=True)
class Scaling:
    """(x − mean)/std a channel, then zeros at the lower and right edges up to `size` (height, width)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def __call__(self, images: np.ndarray, dtype=np.float32) -> np.ndarray:
        wide = np.float64 if images.dtype.kind != "f" or images.dtype.itemsize > 4 else np.float32
        mean, std = (np.asarray(values, wide)[:, None, None] for values in (self.mean, self.std))
        scaled = ((images - mean) / std).astype(dtype, copy=False)
        below, right = (side - own for side, own in zip(self.size, images.shape[2:]))
        return np.pad(scaled, ((0, 0), (0, 0), (0, below), (0, right))) if below or right else scaled


@dataclass(frozen=True, eq=False, repr=False)
class WeightedImages(LabeledImages):
    """Images (N, C, H, W) of any real type, their labels (N,) and weights (N,). Targets are pairs (labels, weights)."""

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: tuple
    scaling: Scaling | None = None

    @property
    def mean(self):
        """Of pixels in 0..1, as whoever prepares images by the model's notes has them."""
        return tuple(value / self._white for value in self.scaling.mean)

    @property
    def std(self):
        return tuple(value / self._white for value in self.scaling.std)

    @property
    def _white(self):
        return 255 if self.images.dtype == np.uint8 else 1

    @property
    def image_shape(self):
        return self.images.shape[1], *self.scaling.size

    def batch(self, indices):
        return self.images[indices]

    def targets(self, indices):
        return super().targets(indices), self.weights[indices]

    def prepare(self, inputs, dtype):
        return self.scaling(inputs, dtype)

    def take(self, indices):
        """The same set with these images only."""
        return replace(self, images=self.images[indices], labels=self.labels[indices], weights=self.weights[indices])

    def merged(self) -> "WeightedImages":
        """Each different image with its label once, with the sum of its weights, those of weight 0 left out.

        So an image of weight 2 is the same as the image twice. The order follows from the images.
        """
        keys = [
            hashlib.blake2b(image.tobytes(), digest_size=16, salt=str(label).encode()).digest()
            for image, label in zip(self.images, self.labels)
        ]
        _, first, which = np.unique(np.array(keys, "V16"), return_index=True, return_inverse=True)
        sums = np.bincount(which, self.weights)
        kept = np.flatnonzero(sums > 0)
        return replace(self.take(first[kept]), weights=sums[kept].astype(np.float32))

    def measured(self, size: tuple[int, int]) -> Scaling:
        """The weighted mean and deviation of each channel; a deviation of 0 becomes 1."""
        unit = float(np.abs([self.images.min(), self.images.max()]).max()) or 1.0  # squares must not overflow

        def mean_of(function):
            total = 0.0
            for part in np.array_split(np.arange(len(self)), max(1, self.images.size // _CHUNK)):
                total += self.weights[part] @ function(self.images[part] / unit).mean((2, 3), dtype=np.float64)
            return total / self.weights.sum(dtype=np.float64)

        mean = mean_of(lambda pixels: pixels)
        deviation = np.sqrt(mean_of(lambda pixels: (pixels - mean[:, None, None]) ** 2)) * unit
        return Scaling(tuple((mean * unit).tolist()), tuple(float(value) or 1.0 for value in deviation), size)
