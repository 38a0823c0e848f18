"""CUDA graphs on the stand-in: what is done between the begin and the end of a capture is kept, and done again.

As on a GPU nothing runs while it is captured. New arrays hold NaN until the graph is launched, and each launch works on
the same memory with the same host numbers. So a step that took a number of the host, such as a learning rate, gives the
old one's result when it is replayed. What cannot be captured is an error: transfers, synchronizations and, as CuPy
refuses cuBLAS there, products that do not go through `matmul`, for which functional has a form of its own.
"""

import threading
from collections.abc import Callable

import numpy as np

from .counting import LAUNCHES, count, is_view


class _Current(threading.local):
    """The recording of this thread: what other threads do meanwhile is not captured, as on a GPU."""

    recording = None


_current = _Current()


class CaptureError(RuntimeError):
    """Something was done while a graph was captured that cannot be part of one."""


class Recording:
    """The operations of a graph, in their order."""

    def __init__(self):
        self._operations = []

    def begin(self) -> None:
        _current.recording = self

    def end(self) -> None:
        _current.recording = None

    def add(self, operation: Callable[[], None]) -> None:
        self._operations.append(operation)

    def launch(self) -> None:
        """Do all of it."""
        count(LAUNCHES, "graph")
        for operation in self._operations:
            operation()


def refuse(what: str) -> None:
    """Errors: CaptureError while a graph is captured."""
    if _current.recording is not None:
        raise CaptureError(f"{what} cannot be captured in a graph")


def perform(function: Callable, args: list, keywords: dict, writes: bool) -> object:
    """function(*args, **keywords) of host arrays, now or, while a graph is captured, at each of its launches.

    writes: whether it writes into an array that there was. -> its result, numbers as 0-d arrays.
    """
    recording = _current.recording
    if recording is None:
        return _arrays(function(*args, **keywords))
    if writes:
        recording.add(lambda: function(*args, **keywords))
        return None
    with np.errstate(all="ignore"):
        result = _arrays(function(*args, **keywords))
    if is_view(result, args):
        return result
    places = result if isinstance(result, (tuple, list)) else [result]
    for place in places:
        place.fill(np.nan if place.dtype.kind == "f" else 0)

    def again():
        found = _arrays(function(*args, **keywords))
        for place, array in zip(places, found if isinstance(found, (tuple, list)) else [found]):
            place[...] = array

    recording.add(again)
    return result


def _arrays(result):
    if isinstance(result, (tuple, list)):
        return type(result)(map(_arrays, result))
    return np.asarray(result) if isinstance(result, np.generic) else result
