"""The parts of the data of a run: to train on, to choose the best weights on, to measure them on."""

import os

import numpy as np

from ..data.loader import ImageSet
from ..errors import ConfigError


def load_parts(
    name: str | os.PathLike, data_dir: str | os.PathLike | None = None, **options
) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    """-> (training set, validation set or None, test set) by name, folder or CSV; options as of data.load.

    A set with all three parts says itself which is which. Otherwise the validation set is yet to be held out of the
    training set.
    """
    from .. import data

    if data.has_boxes(name):
        parts = data.load_detection(name, **options)
    elif data.has_classes(name):
        parts = data.load_folder_parts(name, **options)
    else:
        train, test = data.load(name, data_dir, **options)
        parts = {"train": train, "val": None, "test": test}
    return parts["train"], parts["val"], parts["test"]


def hold_out(dataset: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """-> (the rest, a validation set): of each class this fraction by a draw from the seed, one image at least.

    A class of a single image is only trained on. A set without a label for each image counts as one class.
    Errors: ConfigError where nothing could be held out.
    """
    rng, held = np.random.default_rng((seed, 2)), np.zeros(len(dataset), bool)
    labels = getattr(dataset, "labels", np.zeros(len(dataset), int))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        count = min(len(own) - 1, max(1, round(fraction * len(own))))
        held[own[:count]] = True
    if not held.any():
        raise ConfigError(
            f"the training set has no class of two images, so none can be held out for validation; "
            f"give a validation set, or val_fraction=0 (--val-fraction 0) instead of {fraction}"
        )
    return dataset.take(np.flatnonzero(~held)), dataset.take(np.flatnonzero(held))
