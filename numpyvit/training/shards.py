"""A batch divided into shards: which ones. How inputs are cut and outputs joined is in nested.py."""

import itertools
from dataclasses import dataclass
from typing import Any

from ..backend import on_host
from .nested import first_array


@dataclass(frozen=True)
class Sharding:
    """How a batch is divided. The shards follow from the batch and the model alone, never from the number of threads.

    max_shards:   more are not made.
    min_shard:    numbers in a shard, beyond two shards: 64 images of 28×28 pixels; more where the model asks for it.
    tiny_batch, tiny_work: a batch of fewer numbers, and of fewer images times parameters, stays whole: handing the
                  interpreter from thread to thread and adding up one more set of gradients cost more than they save.
    small_update: parameters; sharing the update of fewer takes longer than one thread needs for it.
    """

    max_shards: int = 8
    min_shard: int = 48_000
    tiny_batch: int = 15_000
    tiny_work: int = 4_000_000
    small_update: int = 400_000

    def split(self, x, model, least=2):
        """Slices of nearly equal length over a batch: two if each then has `least` images, more of at least four."""
        array = first_array(x)
        return self.slices(len(array), array.size, model, least) if on_host(array) else [slice(0, len(array))]

    def slices(self, count, numbers, model, least=2):
        """As `split`, for a batch of so many images on the host, and numbers in them."""
        if numbers < self.tiny_batch and count * model.num_parameters() < self.tiny_work:
            return [slice(0, count)]
        shards = max(count // 4, min(2, count // least))
        shards = max(1, min(self.max_shards, shards, max(2, numbers // max(self.min_shard, model.min_shard))))
        edges = [count * i // shards for i in range(shards + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True)
class Divided:
    """A batch of which a rank holds its own shards.

    parts: the slices of all shards over the batch; own: the numbers of this rank's; pieces: their images.
    """

    parts: list[slice]
    own: range
    pieces: list[Any]

    def __len__(self):
        return self.parts[-1].stop


DEFAULT = Sharding()
