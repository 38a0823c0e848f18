"""A training step on a GPU as a CUDA graph (see gpu.graph): what is nested, counted and refused about it."""

import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..backend import Count, array_module
from ..errors import ConfigError
from ..gpu.graph import CaptureError, Graphs
from .nested import Nested, arrays, each


class Replays:
    """Runs the work of a step by graphs where it can be captured, else as it is.

    counts:  those that the work advances, on the host and on the device.
    wanted:  True: what cannot be captured is an error; None: it then runs as it is, and `refused` says why.
    """

    def __init__(self, xp: types.ModuleType, counts: Sequence[Count], wanted: bool | None):
        self._xp, self._counts, self._wanted = xp, counts, wanted
        self._graphs, self.refused = Graphs(xp), None

    def __call__(self, key: Hashable, work: Callable[[Nested], Any], given: Nested) -> Any:
        """-> work(given). What a replay gives is overwritten by the next one."""
        inputs = list(arrays(given))
        if self.refused is None and all(array_module(item) is self._xp for item in inputs):
            before = [count.value for count in self._counts]
            try:
                found, by_python = self._graphs.run(key, lambda fresh: work(_renewed(given, fresh)), inputs)
            except CaptureError as error:
                self._refuse(error, before)
            else:
                if not by_python:
                    for count in self._counts:
                        count.advance_here(1)
                return found
        return work(given)

    def release(self) -> None:
        """Give back the memory of the graphs; they are captured again when they are needed."""
        self._graphs = Graphs(self._xp)

    def _refuse(self, error, before):
        """Go on without graphs. What capturing has counted on the host alone did not happen."""
        for count, value in zip(self._counts, before):
            count.advance_here(value - count.value)
        self.refused = f"the step cannot be captured in a CUDA graph ({error})"
        if self._wanted:
            raise ConfigError(f"{self.refused}; leave graph=True out") from error


def _renewed(nested, fresh):
    """The same nesting with other arrays."""
    fresh = iter(fresh)
    return each(lambda _: next(fresh), nested)
