"""A set of images with boxes: what a detector is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from ..errors import ConfigError, DtypeError, InputError, ShapeError
from .augment import normalize
from .cache import ImageCache


class Source(Protocol):
    """Where the images and targets of a set come from.

    image_shape: the (C, H, W) into which every image fits. img_size: what they were resized to. One that reads files
    also has `paths`, by which reports name its images.
    """

    image_shape: tuple[int, int, int]
    img_size: int | tuple[int, int]

    def __len__(self) -> int: ...

    def image(self, i: int) -> np.ndarray:
        """(C, H, W) uint8."""

    def target(self, i: int) -> Mapping: ...


class DetectionDataset:
    """Images of one size or many, each with any number of boxes.

    classes: names, by label. mean, std: of each channel, of pixels in 0..1. name: that `load` knows the whole set by; a
    part of it has none. cache: where the source's images are kept once they are made; None: it has them in memory.
    `DetectionDataset.from_arrays` makes a set of your own arrays.
    """

    kind = "detection"

    def __init__(
        self,
        source: Source,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        name: str | None = None,
        rows: np.ndarray | None = None,
        cache: ImageCache | None = None,
    ):
        self.source, self.classes, self.name, self.cache = source, tuple(classes), name, cache
        self.mean, self.std = tuple(mean), tuple(std)
        self._rows = np.arange(len(source)) if rows is None else rows

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[np.ndarray],
        targets: Sequence[Mapping],
        classes: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Self:
        """A set from images, a list of (C, H, W) uint8 arrays or one of (N, C, H, W), and a target for each.

        targets: [{"labels": (n,) integers, "boxes": (n, 4) center x, center y, width, height in 0..1}, …]; what else
        stands there, such as "iscrowd" (n,), is kept. mean, std: default ½ for each channel.
        Errors: ShapeError, DtypeError, InputError or ConfigError that says what does not fit.
        """
        classes = tuple(classes)
        if len(images) != len(targets) or not len(images):
            raise ShapeError(f"{len(images)} images and {len(targets)} targets, expected as many, at least one")
        for i, image in enumerate(images):
            _check_image(i, image, len(images[0]))
        targets = [_checked(i, *pair, len(classes)) for i, pair in enumerate(zip(images, targets))]
        half = (0.5,) * len(images[0])
        return cls(_Arrays(images, targets), classes, mean or half, std or half)

    def __len__(self):
        return len(self._rows)

    def __repr__(self):
        shape = "×".join(map(str, self.image_shape))
        names = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
        return f"DetectionDataset({len(self):,} images of up to {shape}, {len(self.classes)} classes: {names})"

    @property
    def image_shape(self):
        return self.source.image_shape

    @property
    def img_size(self):
        """The img_size of a model for it: [height, width], or the length of the shorter side."""
        size = self.source.img_size
        return size if isinstance(size, int) else list(size)

    @property
    def paths(self):
        """The files of its images, None where the source has none."""
        paths = getattr(self.source, "paths", None)
        return None if paths is None else [paths[i] for i in self._rows]

    def batch(self, indices):
        """-> images (B, C, H, W) uint8, mask (B, H, W).

        Images smaller than the batch's largest height and width are padded at the right and the bottom, where the mask
        is True.
        """
        rows = self._rows[indices].tolist()
        if self.cache is None:
            return pad([self.source.image(i) for i in rows])
        return pad(self.cache.get([(self.source, i) for i in rows], lambda key: self.source.image(key[1])))

    def targets(self, indices: np.ndarray) -> list[dict]:
        """A dict for each image. "labels": (n,) int64. "boxes": (n, 4) float32, center x, center y, width and height,
        in 0..1 of the image without its padding. "size": (height, width) of the original image in pixels. "image_id".
        Where known also "area" (n,) in square pixels of the original image, "iscrowd" and "difficult" (n,) bool.
        """
        return [dict(self.source.target(i)) for i in self._rows[indices]]

    def prepare(
        self, inputs: tuple[np.ndarray, np.ndarray], dtype: np.dtype | type = np.float32
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a model is given: (normalized images with 0 at the padding, mask)."""
        return normalize_padded(*inputs, self.mean, self.std, dtype)

    def take(self, indices: np.ndarray) -> "DetectionDataset":
        """The same set with these images only; images that are kept in memory are shared with it."""
        return DetectionDataset(self.source, self.classes, self.mean, self.std, None, self._rows[indices], self.cache)

    def normalized_by(self, mean: Sequence[float], std: Sequence[float]) -> "DetectionDataset":
        """The same set with another mean and std, such as those that a model was trained with."""
        return DetectionDataset(self.source, self.classes, mean, std, self.name, self._rows, self.cache)


def pad(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """-> (B, C, H, W) with zeros at the right and the bottom of smaller images, mask (B, H, W) True there."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    padded = np.zeros((len(images), images[0].shape[0], height, width), images[0].dtype)
    mask = np.ones((len(images), height, width), bool)
    for image, place, missing in zip(images, padded, mask):
        place[:, : image.shape[1], : image.shape[2]] = image
        missing[: image.shape[1], : image.shape[2]] = False
    return padded, mask


def normalize_padded(
    images: np.ndarray,
    mask: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: np.dtype | type = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """-> (normalized images with 0 at padding, mask), from what `pad` returned."""
    images = normalize(images, mean, std, dtype)
    images *= ~mask[:, None]
    return images, mask


def own_sizes(mask: np.ndarray) -> np.ndarray:
    """(B, 2): height and width of each image without its padding."""
    return np.stack([(~mask[:, :, 0]).sum(1), (~mask[:, 0]).sum(1)], axis=1)


# ---- from arrays ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arrays:
    images: list
    targets: list

    def __len__(self):
        return len(self.images)

    @property
    def image_shape(self):
        return tuple(max(sides) for sides in zip(*(image.shape for image in self.images)))

    @property
    def img_size(self):
        return self.image_shape[1:]

    def image(self, i):
        return self.images[i]

    def target(self, i):
        return self.targets[i]


def _check_image(i, image, channels):
    dtype, shape = getattr(image, "dtype", None), getattr(image, "shape", ())
    if dtype != np.uint8:
        raise DtypeError(f"image {i} is {dtype or type(image).__name__}, expected an array of uint8 pixels")
    if len(shape) != 3 or 0 in shape or shape[0] != channels:
        raise ShapeError(f"image {i} has the shape {shape}, expected (C, H, W), of equal C for all")


def _checked(i, image, target, classes):
    """The target with its arrays in the types that a set has. Errors: ConfigError and others that name the target."""
    if not {"labels", "boxes"} <= set(target):
        raise ConfigError(f"target {i} has the keys {', '.join(map(str, target))}; expected labels and boxes")
    labels, boxes = np.asarray(target["labels"]), np.asarray(target["boxes"], np.float32)
    labels = labels.astype(np.int64) if labels.size == 0 else labels
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"target {i} has labels of {labels.dtype}, expected integers")
    if labels.ndim != 1 or boxes.shape != (len(labels), 4):
        raise ShapeError(f"target {i} has labels {labels.shape} and boxes {boxes.shape}, expected (n,) and (n, 4)")
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(f"target {i} has labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    if len(labels) and not (np.isfinite(boxes).all() and boxes.min() >= 0 and boxes.max() <= 1):
        raise InputError(f"target {i} has boxes outside 0..1, expected center x, center y, width, height in 0..1")
    given = {"size": image.shape[1:], "image_id": i}
    return {**given, **target, "labels": labels.astype(np.int64), "boxes": boxes}
