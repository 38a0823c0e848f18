"""Whole numbers that a captured step reads on the device."""

import types

import numpy as np

from .arrays import Array


class Count:
    """A count on the host and, for a model on a device, the same number there.

    What is computed on a device reads `there`: then nothing of the number is fixed when a step is captured in a graph
    (see gpu.graph), and each replay advances it.
    """

    def __init__(self, xp: types.ModuleType = np):
        self._here, self._there = 0, None if xp is np else xp.zeros((), dtype=np.uint64)

    @property
    def value(self) -> int:
        return self._here

    @value.setter
    def value(self, number: int) -> None:
        self._here = number
        if self._there is not None:
            self._there.fill(number)

    @property
    def there(self) -> int | Array:
        """The number where the arrays live: an int, or a 0-d uint64 array on the device."""
        return self._here if self._there is None else self._there

    def advance(self) -> None:
        self._here += 1
        if self._there is not None:
            self._there += 1

    def advance_here(self, by: int) -> None:
        """After a replay that advanced the number on the device, or a capture, which advances it on the host alone."""
        self._here += by
