"""Ranks that are threads of one process, for tests of what groups do."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..backend.messages import pack, unpack
from ..backend.ranks import Group

_PATIENCE = 60  # seconds after which a rank that waits alone is an error


class _Meeting:
    """What the ranks of one group share."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=_PATIENCE)
        self.errors = threading.Barrier(size)
        self.boxes = [None] * size
        self.bytes_sent = [0] * size


class ThreadGroup(Group):
    """A rank that is a thread. bytes_sent: how much of arrays it has sent by `swap`."""

    def __init__(self, rank: int, size: int, meeting: _Meeting):
        self.rank, self.size, self.neighbours, self.local = rank, size, size, rank
        self._meeting, self._together = meeting, None

    @property
    def bytes_sent(self) -> int:
        return self._meeting.bytes_sent[self.rank]

    def gather(self, value):
        return [unpack(data) for data in self._exchange(pack(value))]

    def swap(self, sends, receives):
        sends = [(rank, array.copy()) for rank, array in sends]
        self._meeting.bytes_sent[self.rank] += sum(array.nbytes for _, array in sends)
        sent = self._exchange(sends)
        arriving = [iter([array for to, array in sends if to == self.rank]) for sends in sent]
        for rank, array in receives:
            array[...] = next(arriving[rank])

    def _exchange(self, item):
        """[the item of each rank]."""
        meeting = self._meeting
        meeting.boxes[self.rank] = item
        meeting.barrier.wait()
        items = list(meeting.boxes)
        meeting.barrier.wait()
        return items

    def failed_together(self):
        if self._together is None:
            with contextlib.suppress(threading.BrokenBarrierError):
                self._meeting.errors.wait(timeout=1)
            self._together = not self._meeting.errors.broken
        return self._together

    def abort(self, code=1):
        self._meeting.barrier.abort()


def run_ranks(size: int, function: Callable) -> list:
    """[function(group) of each rank], on threads of their own. An error of any rank ends all, and is raised here."""
    meeting = _Meeting(size)

    def run(rank):
        group = ThreadGroup(rank, size, meeting)
        try:
            return function(group)
        except BaseException:
            group.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        ranks = [pool.submit(run, rank) for rank in range(size)]
    errors = [rank.exception() for rank in ranks if rank.exception() is not None]
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
    return [rank.result() for rank in ranks]
