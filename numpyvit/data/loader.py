"""Batches of a set: shuffled from the seed, augmented, normalized, the next one prepared while this one trains."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from .augment import Augmentation


class ImageSet(Protocol):
    """What a Loader needs of a set. Inputs may be nested, such as (images, mask); targets may be a list of dicts."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> Any:
        """Inputs to augment."""

    def targets(self, indices: np.ndarray) -> Any: ...

    def prepare(self, inputs: Any, dtype: np.dtype | type) -> Any:
        """What the model takes of them."""


class Loader:
    """Batches of a set. It is not iterated over itself; each epoch of it is:   for images, labels in loader.epoch(3): …

    Everything random in a batch follows from (seed, epoch, number of the batch), so an epoch can begin in its middle.
    In training each shard of a batch is a piece with random numbers of its own, see `pieces`.
    images: (B, C, H, W) of `dtype`; labels: (B,) int64. The last batch may be short. len(loader): batches an epoch.
    augment: functions (inputs, targets, rng) -> (inputs, targets) on uint8 images, see augment.py.

    A set of another form has the methods of ImageSet.
    """

    def __init__(
        self,
        dataset: ImageSet,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Iterable[Augmentation] = (),
        seed: int = 0,
        dtype: np.dtype | type = np.float32,
    ):
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ConfigError(f"batch_size must be an int of at least 1, got {batch_size!r}")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.augment, self.seed, self.dtype = tuple(augment), seed, dtype

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __repr__(self):
        order = "shuffled" if self.shuffle else "in order"
        return f"Loader({self.dataset!r}, {len(self):,} batches of {self.batch_size} an epoch, {order})"

    def epoch(self, epoch: int = 0, first: int = 0, every: int = 1) -> Iterator[tuple]:
        """The batches of an epoch from number `first` on, or some of them, each prepared one ahead on a thread."""
        for _, _, (batch,) in self.pieces(lambda count: ([slice(0, count)], range(1)), epoch, first, every):
            yield batch

    def pieces(
        self, divide: Callable[[int], tuple[list[slice], range]], epoch: int = 0, first: int = 0, every: int = 1
    ) -> Iterator[tuple[list[slice], range, list[tuple]]]:
        """As `epoch`, in pieces: (the slices of all pieces, the numbers of those wanted, [(images, labels) of each]).

        divide: from the number of images in a batch to the slices and the numbers of the pieces that are wanted. Others
        are not read. Each piece is augmented by itself, from random numbers that follow from its number too.
        """
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for number in itertools.chain(range(first, len(self), every), [None]):
                ready = waiting.result() if waiting else None
                waiting = None
                if number is not None:
                    indices = order[number * self.batch_size : (number + 1) * self.batch_size]
                    waiting = pool.submit(self._batch, indices, (self.seed, epoch, number, 1), *divide(len(indices)))
                if ready is not None:
                    yield ready

    def _batch(self, indices, seed, parts, wanted):
        return parts, wanted, [self._piece(indices[parts[i]], (*seed, i)) for i in wanted]

    def _piece(self, indices, seed):
        inputs, targets = self.dataset.batch(indices), self.dataset.targets(indices)
        rng = np.random.default_rng(seed if seed[-1] else seed[:-1])
        for function in self.augment:
            inputs, targets = _augmented(function, inputs, targets, rng)
        return self.dataset.prepare(inputs, self.dtype), targets


def _augmented(function, inputs, targets, rng):
    """What an augmentation returns. Errors: ConfigError for one of another form, such as (images, rng) -> images."""
    name = getattr(function, "__qualname__", type(function).__name__)
    form = f"augmentation {name} must be (inputs, targets, rng) -> (inputs, targets)"
    try:
        result = function(inputs, targets, rng)
    except TypeError as error:
        if error.__traceback__.tb_next is None:  # raised by the call, not within the function
            raise ConfigError(f"{form}, but {error}") from None
        raise
    if not isinstance(result, tuple) or len(result) != 2:
        raise ConfigError(f"{form}, but it returned a {type(result).__name__}; return a pair")
    return result
