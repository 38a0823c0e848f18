"""A batch divided into shards: which ones, and how inputs are cut and outputs joined.

Inputs, outputs, targets and gradients may be arrays or nested tuples, lists and dicts of them, the batch axis first.
"""

import itertools
from dataclasses import dataclass

from ..backend import array_module, on_host
from ..errors import InputError


@dataclass(frozen=True)
class Sharding:
    """How a batch is divided. The shards follow from the batch and the model alone, never from the number of threads.

    max_shards:   more are not made.
    min_shard:    numbers in a shard, beyond two shards: 64 images of 28×28 pixels.
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
        count = len(array)
        if not on_host(array) or (array.size < self.tiny_batch and count * model.num_parameters() < self.tiny_work):
            return [slice(0, count)]
        shards = max(count // 4, min(2, count // least))
        shards = max(1, min(self.max_shards, shards, max(2, array.size // self.min_shard)))
        edges = [count * i // shards for i in range(shards + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]


DEFAULT = Sharding()


def first_array(value):
    """The first array in nested tuples, lists and dicts, as long as the batch. Errors: InputError without one."""
    found = next(_arrays(value), None)
    if found is None:
        raise InputError(f"expected an array of images, got a {type(value).__name__} without any")
    return found


def _arrays(value):
    if not isinstance(value, (tuple, list, dict)):
        yield value
        return
    for item in value.values() if isinstance(value, dict) else value:
        yield from _arrays(item)


def take(value, part):
    """The rows `part` of each array inside."""
    if isinstance(value, dict):
        return {key: take(item, part) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return _like(value, [take(item, part) for item in value])
    return value[part]


def join(parts):
    """What `take` cut, together again."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, dict):
        return {key: join([part[key] for part in parts]) for key in first}
    if isinstance(first, (tuple, list)):
        return _like(first, list(map(join, zip(*parts))))
    return array_module(first).concatenate(parts)


def _like(value, items):
    """The items in a list, a tuple or a named tuple, as `value` is."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
