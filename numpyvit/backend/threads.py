"""Threads for shards of a batch, and how many threads BLAS may use meanwhile."""

import contextlib
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from ..errors import ConfigError
from .process import keep_freed_memory

_MIN_POOL = 8  # threads; several callers at once share them


def available_threads():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Threads for shards, the caller's own among them. Errors of any thread are raised in the caller."""

    def __init__(self, threads):
        keep_freed_memory()
        self.threads = threads
        self._start()

    def _start(self):
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(max(self.threads, _MIN_POOL))  # threads start when they are first needed

    def map(self, function, *items):
        """[function(*item) for item in zip(*items)], each thread taking the next item that nobody has taken."""
        self._survive_fork()
        items = list(zip(*items))
        if not items or _inside.a_job:
            return list(itertools.starmap(function, items))
        results, turns = [None] * len(items), itertools.count()

        def work():
            while (i := next(turns)) < len(items):
                results[i] = function(*items[i])

        self._run(work, min(self.threads, len(items)))
        return results

    def _survive_fork(self):
        """Threads do not: in a forked process start them anew."""
        if self._process != os.getpid():
            self._start()

    def _run(self, job, count):
        """The job on so many threads at once, this one among them."""
        with blas_threads(1):
            futures, own_error = [self._pool.submit(_inside.run, job) for _ in range(count - 1)], None
            try:
                _inside.run(job)
            except BaseException as error:
                own_error = error
            errors = [own_error] + [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error


class _Inside(threading.local):
    """Whether this thread runs a job already."""

    a_job = False

    def run(self, job):
        self.a_job = True
        try:
            job()
        finally:
            self.a_job = False


_inside = _Inside()


class _BlasThreads:
    """`with blas_threads(n):` BLAS shares each product among n threads.

    Where several are open at once the smallest n holds, and the last to leave restores what was before the first.
    """

    def __init__(self):
        self._lock, self._open, self._before = threading.Lock(), [], None

    @contextlib.contextmanager
    def __call__(self, threads):
        with self._lock:
            limit = self._set([*self._open, threads])
            self._open.append(threads)
            self._before = self._before or limit
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(threads)
                if self._open:
                    self._set(self._open)
                else:
                    self._before.restore_original_limits()
                    self._before = None

    def _set(self, limits):
        return _blas_controller().limit(limits=min(limits), user_api="blas")


blas_threads = _BlasThreads()


def shared_workers(threads=None):
    """The workers of so many threads, the same at each call; None: as many as processors that this process may use.

    A thread just started takes some milliseconds to reach a processor of its own.
    Errors: ConfigError where threads is not an int above 0.
    """
    if threads is None:
        threads = available_threads()
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads must be an int of at least 1, got {threads!r}")
    return _workers(threads)


_workers = cache(Workers)


@cache
def _blas_controller():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
