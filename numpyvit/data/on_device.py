"""A set in the memory of a GPU, from which batches are taken, augmented and normalized there."""

import types

import numpy as np

from ..backend import Array
from .dataset import Dataset, LabeledImages


class OnDevice(LabeledImages):
    """A Dataset with its images, as uint8, and its labels on a device. Indices are the host's.

    xp: a namespace of arrays, such as CuPy.
    """

    def __init__(self, dataset: Dataset, xp: types.ModuleType):
        self._xp, self.image_shape, self.name = xp, dataset.image_shape, dataset.name
        self.classes, self.mean, self.std = dataset.classes, dataset.mean, dataset.std
        self.images, self.labels = xp.asarray(dataset.images), xp.asarray(dataset.labels.astype(np.int64))

    def batch(self, indices: np.ndarray) -> Array:
        """(B, C, H, W) uint8."""
        return self.images[self._xp.asarray(indices)]

    def targets(self, indices: np.ndarray) -> Array:
        """(B,) int64, the labels."""
        return self.labels[self._xp.asarray(indices)]
