"""A set of images in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..backend import as_array
from ..errors import ConfigError, DtypeError, InputError, ShapeError
from .augment import normalize

_CHUNK = 1 << 22  # bytes of images that are counted at a time


class LabeledImages:
    """What sets with one class for each image share. A subclass has images by `batch`, labels, classes, mean and std.

    kind: what is to be learned, from which the task of a run follows (see training.task).
    """

    kind = "classification"

    @property
    def img_size(self):
        """[height, width], the img_size of a model for it."""
        return list(self.image_shape[1:])

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        """One line about the set, with any of its pixels left out."""
        shape = "×".join(map(str, self.image_shape))
        names = ", ".join(map(str, self.classes[:3])) + (", …" if len(self.classes) > 3 else "")
        return f"{type(self).__name__}({len(self):,} images of {shape}, {len(self.classes)} classes: {names})"

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """(B,) int64, the labels."""
        return self.labels[indices].astype(np.int64, copy=False)

    def prepare(self, inputs: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
        """(B, C, H, W) uint8 of `batch`, augmented or not -> normalized, of `dtype`."""
        return normalize(inputs, self.mean, self.std, dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(LabeledImages):
    """Images in memory. images: (N, C, H, W) uint8, labels: (N,) integers; mean and std a channel, of pixels in 0..1.

    name: that `load` knows the whole set by; a part of it has none.
    Errors: DtypeError, ShapeError, InputError or ConfigError that says what does not fit. `Dataset.from_arrays` takes
    other layouts and floating-point images.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple
    mean: tuple
    std: tuple
    name: str | None = None

    def __post_init__(self):
        _check_images(self.images)
        _check_labels(self.labels, len(self.images), len(self.classes))
        channels = self.images.shape[1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if np.shape(values) != (channels,) or not np.isfinite(values).all():
                raise ConfigError(f"{name} must be {channels} finite numbers, one a channel, got {values!r}")
        if min(self.std) <= 0:
            raise ConfigError(f"std must be above 0, got {self.std!r}")

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Self:
        """A set from images (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, and labels (N,).

        images: uint8, or floating point in 0..1, which is rounded to steps of 1/255. classes: names; default "0", "1",
        … up to the highest label. mean, std: of each channel, of pixels in 0..1; default those of these images. A test
        set is given those of the training set: Dataset.from_arrays(x, y, train.classes, train.mean, train.std).
        Arrays of other libraries, such as tensors of PyTorch or a list of Pillow's images of one size, are taken too,
        see backend.as_array.
        Errors: as Dataset's.
        """
        images, labels = channels_first(_to_uint8(_stacked(images))), np.asarray(as_array(labels))
        if not len(images):
            raise InputError("there are no images in the arrays")
        if classes is None:
            _check_labels(labels, len(images))
            classes = map(str, range(int(labels.max()) + 1))
        if mean is None or std is None:
            own_mean, own_std = _mean_and_std(images)
            mean, std = own_mean if mean is None else mean, own_std if std is None else std
        return cls(images, labels, tuple(classes), tuple(mean), tuple(std))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """(B, C, H, W) uint8."""
        return self.images[indices]

    def take(self, indices: np.ndarray) -> "Dataset":
        """The same set with these images only."""
        return Dataset(self.images[indices], self.labels[indices], self.classes, self.mean, self.std)


# ---- checks ---------------------------------------------------------------------------------------------------------


def _check_images(images):
    dtype, shape = getattr(images, "dtype", None), getattr(images, "shape", None)
    if dtype != np.uint8:
        raise DtypeError(
            f"images are {dtype or type(images).__name__}, a Dataset holds an array of uint8 pixels, which are scaled "
            "and normalized batch by batch; Dataset.from_arrays takes floating point in 0..1"
        )
    if len(shape) == 4 and shape[1] not in (1, 3) and shape[2] > 3 and shape[3] in (1, 3):
        raise ShapeError(
            f"images of shape {shape} have their channels last, a Dataset holds (N, C, H, W); "
            "Dataset.from_arrays takes both"
        )
    if len(shape) != 4 or 0 in shape[1:]:
        raise ShapeError(f"images have the shape {shape}, expected (N, C, H, W); Dataset.from_arrays takes (N, H, W)")


def _check_labels(labels, images, classes=None):
    dtype, shape = getattr(labels, "dtype", None), getattr(labels, "shape", None)
    if dtype is None or dtype.kind not in "iu":
        raise DtypeError(f"labels are {dtype or type(labels).__name__}, expected an array of integers")
    if shape != (images,):
        raise ShapeError(f"labels have the shape {shape}, expected ({images},): one for each image")
    if images and (labels.min() < 0 or (classes is not None and labels.max() >= classes)):
        bound = "from 0 up" if classes is None else f"0 to {classes - 1} for the {classes} classes"
        raise InputError(f"labels go from {labels.min()} to {labels.max()}, expected {bound}")


# ---- from other arrays ----------------------------------------------------------------------------------------------


def _stacked(images):
    """One array of an array, or of a list of images. Errors: ShapeError where they differ in size."""
    try:
        return np.asarray(as_array(images))
    except ValueError:
        raise ShapeError("the images differ in size or channels; resize and convert them to one shape") from None


def _to_uint8(images):
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DtypeError(f"images are {images.dtype}, expected uint8, or floating point in 0..1")
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    if not (low >= 0 and high <= 1):  # NaN too
        raise InputError(f"floating-point images go from {low} to {high}, expected 0 to 1; scale them or give uint8")
    return np.rint(images * images.dtype.type(255)).astype(np.uint8)


def channels_first(images: np.ndarray) -> np.ndarray:
    """(N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels -> (N, C, H, W)."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise ShapeError(
        f"images have the shape {images.shape}, expected (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels"
    )


def _mean_and_std(images):
    """Of each channel, of pixels in 0..1, from how often each of the 256 values occurs; a std of 0 becomes 1."""
    channels = images.shape[1]
    counts = np.zeros((channels, 256))
    for part in np.array_split(images, max(1, min(len(images), images.nbytes // _CHUNK))):
        for c in range(channels):
            counts[c] += np.bincount(part[:, c].ravel(), minlength=256)
    levels, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return tuple(mean.tolist()), tuple(float(np.sqrt(v)) or 1.0 for v in variance)
