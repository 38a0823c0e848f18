"""Work on a GPU as CUDA graphs: launched at once instead of kernel by kernel.

A graph repeats the kernels that ran while it was captured, on the same memory. So it holds for arrays of one shape,
copied into inputs of its own, and whatever changes from one time to the next must lie on the device (see
backend.Count): a number of the host stays what it was.
"""

import contextlib
import types
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backend import Array

WARM_UP = 2  # times that work runs by itself: kernels are compiled then, and memory is reserved
MOST = 8  # graphs; each keeps the memory of a step


@dataclass
class _Graph:
    """Work for one shape. The pool's memory is the graph's own as long as there is a graph."""

    pool: Any
    calls: int = 0
    graph: Any = None
    inputs: list[Array] = field(default_factory=list)
    result: Any = None


class CaptureError(Exception):
    """Work that cannot be part of a graph; __cause__ is what went wrong. Nothing was done."""


class Graphs:
    """Runs work as it is at first, then captures it, once for each shape of its inputs, and replays it.

    The first runs are work like any other; nothing is done twice or thrown away. A graph has a stream of its own, which
    waits for what the caller's stream was given before, and the other way round.
    xp: a namespace whose `cuda` is as CuPy's.
    """

    def __init__(self, xp: types.ModuleType):
        self._cuda = xp.cuda
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._before, self._after = (xp.cuda.Event(disable_timing=True) for _ in range(2))
        self._graphs = {}

    def run(self, key: Hashable, work: Callable[[list[Array]], Any], inputs: Sequence[Array]) -> tuple[Any, bool]:
        """-> work(inputs), and whether Python has worked it out, by itself or to capture it.

        What a replay gives lies in memory that the next one overwrites. key: what beside the shapes of the inputs the
        work depends on. Errors: those of work; CaptureError.
        """
        key = (key, tuple((array.shape, array.dtype.char) for array in inputs))
        if key not in self._graphs and len(self._graphs) == MOST:
            return work(inputs), True
        one = self._graphs.setdefault(key, _Graph(self._cuda.MemoryPool()))
        with self._own_stream(), self._cuda.using_allocator(one.pool.malloc):
            if one.calls < WARM_UP:
                one.calls += 1
                return work(inputs), True
            captured = one.graph is None
            if captured:
                self._capture(one, work, inputs)
            for place, array in zip(one.inputs, inputs):
                place[...] = array
            one.graph.launch(self._stream)
        return one.result, captured

    def _capture(self, one, work, inputs):
        one.inputs = [array.copy() for array in inputs]
        self._stream.begin_capture()
        try:
            one.result = work(one.inputs)
            one.graph = self._stream.end_capture()
        except Exception as error:
            with contextlib.suppress(Exception):  # CUDA ends a capture that went wrong with an error of its own
                self._stream.end_capture()
            raise CaptureError(f"{type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _own_stream(self):
        callers = self._cuda.get_current_stream()
        callers.record(self._before)
        self._stream.wait_event(self._before)
        try:
            with self._stream:
                yield
        finally:
            self._stream.record(self._after)
            callers.wait_event(self._after)
