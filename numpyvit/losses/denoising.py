"""Queries that are told which box is theirs, wrongly by a little   (DN-DETR, Li et al. 2022, arXiv:2203.01305, §4)."""

from collections.abc import Sequence

import numpy as np

from ..core import Seed, make_rng
from .matching import Target


def denoising_queries(
    targets: Sequence[Target],
    num_classes: int,
    rng: Seed = 0,
    groups: int = 5,
    label_noise: float = 0.2,
    box_noise: float = 0.4,
    most: int | None = None,
) -> dict[str, np.ndarray]:
    """The boxes of each image, `groups` times with noise, for a model that learns to put them right.

    targets:     one {"labels": (n,), "boxes": (n, 4)} an image, as for numpyvit.losses.detection.
    rng:         a generator or a seed.
    label_noise: how many labels are replaced by random ones.
    box_noise:   how far a box is moved at most, in parts of half its size, and by how much of it its size changes.
    most:        m, where other images belong to the batch as well; else the most boxes of these.
    Returns {"labels": (B, groups, m), "boxes": (B, groups, m, 4), "targets": (B, groups, m)}, m the most boxes of an
    image; "targets" says which box of the image a query is to find, −1 where there is none. A model takes it as third
    input, (images, mask, queries), and gives what became of them in its outputs under "denoising".
    """
    rng = make_rng(rng)
    if most is None:
        most = max((len(target["labels"]) for target in targets), default=0)
    shape = (len(targets), groups, most)
    labels, boxes = np.zeros(shape, np.int64), np.full((*shape, 4), 0.5, np.float32)
    index = np.full(shape, -1, np.int64)
    for i, target in enumerate(targets):
        n = len(target["labels"])
        labels[i, :, :n], index[i, :, :n] = target["labels"], np.arange(n)
        boxes[i, :, :n] = np.asarray(target["boxes"]).reshape(n, 4)
    labels = np.where(rng.random(shape) < label_noise, rng.integers(0, num_classes, shape), labels)
    size = boxes[..., 2:]
    reach = np.concatenate([size / 2, size], axis=-1) * box_noise
    boxes += reach * rng.uniform(-1, 1, boxes.shape).astype(np.float32)
    return {"labels": labels, "boxes": boxes.clip(0, 1), "targets": index}
