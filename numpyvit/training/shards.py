"""A batch divided into shards: which ones. How inputs are cut and outputs joined is in nested.py."""

import itertools
from dataclasses import dataclass

from ..backend import on_host
from .nested import first_array


@dataclass(frozen=True)
class Sharding:
    """How a batch is divided. The shards follow from the batch and the model alone, never from the number of threads.

    max_shards:   more are not made.
    min_shard:    numbers in a shard, beyond two shards: 64 images of 28×28 pixels.
    min_map:      numbers in the smallest map of a shard, beyond two shards, where a model says how small its maps get.
    tiny_batch, tiny_work: a batch of fewer numbers, and of fewer images times parameters, stays whole: handing the
                  interpreter from thread to thread and adding up one more set of gradients cost more than they save.
    small_update: parameters; sharing the update of fewer takes longer than one thread needs for it.
    """

    max_shards: int = 8
    min_shard: int = 48_000
    min_map: int = 100_000
    tiny_batch: int = 15_000
    tiny_work: int = 4_000_000
    small_update: int = 400_000

    def split(self, x, model, least=2):
        """Slices of nearly equal length over a batch: two if each then has `least` images, more of at least four."""
        array = first_array(x)
        count = len(array)
        if not on_host(array) or (array.size < self.tiny_batch and count * model.num_parameters() < self.tiny_work):
            return [slice(0, count)]
        shards = max(count // 4, min(2, count // least))
        shards = max(1, min(self.max_shards, shards, max(2, self._large(array, model))))
        edges = [count * i // shards for i in range(shards + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def _large(self, array, model):
        """How many shards are large enough for threads: between the calls of a smaller one they wait for each other."""
        shards = array.size // self.min_shard
        return min(shards, len(array) * model.smallest_map // self.min_map) if model.smallest_map else shards


DEFAULT = Sharding()
