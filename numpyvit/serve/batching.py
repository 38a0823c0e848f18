"""Items of many callers, worked on a batch at a time by one thread."""

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Batcher:
    """One thread that calls work([item, …]) -> [answer, …] with items of several callers.

    max_batch: items in a call. max_wait: seconds that the first of them waits for others. So an answer is there after
    the batches before it, max_wait, and its own batch. Where a batch fails, its items are worked on one by one, so
    that one of them spoils no other's answer.
    """

    def __init__(self, work: Callable[[list], list], max_batch: int = 1, max_wait: float = 0.0):
        self.work, self.max_batch, self.max_wait = work, max_batch, max_wait
        self._waiting = queue.SimpleQueue()  # of (item, future); None ends the thread
        here = contextvars.copy_context().run  # the chosen kernels are chosen there too
        self._thread = threading.Thread(target=here, args=(self._run,), name="numpyvit-batches", daemon=True)
        self._thread.start()

    def submit(self, item: Any) -> Future:
        """-> the future of the answer. One that is canceled before its batch begins costs nothing."""
        future = Future()
        self._waiting.put((item, future))
        return future

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self):
        while (pair := self._waiting.get()) is not None:
            self._answer([pair, *self._others()])

    def _others(self):
        """What joins the first item of a batch."""
        end = time.monotonic() + self.max_wait
        for _ in range(self.max_batch - 1):
            try:
                pair = self._waiting.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            if pair is None:
                self._waiting.put(None)
                return
            yield pair

    def _answer(self, pairs):
        wanted = [pair for pair in pairs if pair[1].set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            answers = self.work([item for item, _ in wanted])
        except Exception as error:
            if len(wanted) > 1:
                self._answer_alone(wanted)
            else:
                wanted[0][1].set_exception(error)
            return
        for (_, future), answer in zip(wanted, answers):
            future.set_result(answer)

    def _answer_alone(self, pairs):
        for item, future in pairs:
            try:
                future.set_result(self.work([item])[0])
            except Exception as error:
                future.set_exception(error)
