"""Nested tuples, lists and dicts of arrays, the batch axis first: how inputs, outputs, targets and gradients may come.

None stands where something is left out, such as a mask.
"""

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Array, array_module, to_module
from ..errors import InputError

Nested = Any  # an array, or nested tuples, lists and dicts of arrays


def arrays(value: Nested) -> Iterator[Array]:
    """Each array inside, in order."""
    if isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays(item)
    elif value is not None:
        yield value


def first_array(value: Nested) -> Array:
    """The first array inside, as long as the batch. Errors: InputError without one."""
    found = next(arrays(value), None)
    if found is None:
        raise InputError(f"expected an array of images, got a {type(value).__name__} without any")
    return found


def each(function: Callable[[Array], Any], value: Nested) -> Nested:
    """The same nesting with function(array) for each array."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {key: each(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return _like(value, [each(function, item) for item in value])
    return function(value)


def take(value: Nested, part: Any) -> Nested:
    """The rows `part` of each array inside."""
    return each(lambda array: array[part], value)


def to_device(value: Nested, xp: ModuleType) -> Nested:
    """Each NumPy array inside as one of the namespace `xp`; what else there is, such as a file's name, stays."""
    return each(lambda item: to_module(item, xp) if isinstance(item, np.ndarray) else item, value)


def join(parts: Sequence[Nested]) -> Nested:
    """What `take` cut, together again."""
    first = parts[0]
    if len(parts) == 1 or first is None:
        return first
    if isinstance(first, dict):
        return {key: join([part[key] for part in parts]) for key in first}
    if isinstance(first, (tuple, list)):
        return _like(first, list(map(join, zip(*parts))))
    return array_module(first).concatenate(parts)


def join_targets(parts: Sequence[Nested]) -> Nested:
    """As `join` for targets, of which a list holds an item for each image."""
    first = parts[0]
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, tuple):
        return _like(first, list(map(join_targets, zip(*parts))))
    return join(parts)


def _like(value, items):
    """The items in a list, a tuple or a named tuple, as `value` is."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
