"""What the stand-in has as `cupy.cuda`: streams, graphs, memory pools and what a GPU says of itself.

Work is done at once, so streams have no order to keep; that each event is waited for is left to the tests.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

from .counting import SYNCHRONIZATIONS, count
from .recording import CaptureError, Recording, refuse


class OutOfMemoryError(MemoryError):
    """What CuPy raises where the GPU's memory does not suffice."""


class Event:
    """A place in a stream that others can wait for."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.recorded = False

    def record(self, stream=None):
        self.recorded = True

    def synchronize(self):
        _wait("event")


class Stream:
    """A queue of work, current in one thread. waited: the events that it was to wait for."""

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False):
        self.null, self.waited, self._recording = null, [], None

    def __enter__(self):
        _current.streams = (*_current.streams, self)
        return self

    def __exit__(self, *error):
        _current.streams = _current.streams[:-1]

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        if not event.recorded:
            raise RuntimeError("an event is waited for that was not recorded")
        self.waited.append(event)

    def synchronize(self):
        _wait("stream")

    def begin_capture(self, mode=None):
        if self.null or get_current_stream() is not self:
            raise CaptureError("only the current stream is captured, and never the null stream")
        self._recording = Recording()
        self._recording.begin()

    def end_capture(self):
        recording, self._recording = self._recording, None
        if recording is None:
            raise CaptureError("no capture was begun")
        recording.end()
        return Graph(recording)


class Graph:
    """What was captured."""

    def __init__(self, recording: Recording):
        self._recording = recording

    def launch(self, stream=None):
        self._recording.launch()


class MemoryPool:
    """Memory from which arrays are made on a GPU."""

    def malloc(self, size):
        raise AssertionError("the stand-in's arrays lie in NumPy's memory")

    def free_all_blocks(self):
        pass


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], object] | None = None) -> Iterator[None]:
    yield


def _wait(what):
    refuse("a synchronization")
    count(SYNCHRONIZATIONS, what)


class _Current(threading.local):
    """The streams that this thread has entered, as in CuPy a stream is current in one thread."""

    streams = (Stream(null=True),)


_current = _Current()


def get_current_stream() -> Stream:
    return _current.streams[-1]


GIB = 1 << 30
cuda = SimpleNamespace(
    Event=Event,
    Graph=Graph,
    MemoryPool=MemoryPool,
    Stream=Stream,
    get_current_stream=get_current_stream,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    runtime=SimpleNamespace(
        getDevice=lambda: 0,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"Stand-in", "totalGlobalMem": 8 * GIB},
        memGetInfo=lambda: (6 * GIB, 8 * GIB),
    ),
    using_allocator=using_allocator,
)
