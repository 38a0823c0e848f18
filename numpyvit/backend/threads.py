"""Threads for shards of a batch, and how many threads BLAS may use meanwhile."""

import contextlib
import contextvars
import itertools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from ..errors import ConfigError

_MIN_POOL = 8  # threads; several callers at once share them


def available_threads() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Threads for shards, the caller's own among them. Errors of any thread are raised in the caller."""

    def __init__(self, threads: int):
        self.threads = threads
        self._start()

    def _start(self):
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(max(self.threads, _MIN_POOL))  # threads start when they are first needed

    def __reduce__(self):
        return shared_workers, (self.threads,)  # a copy shares the threads

    def map(self, function: Callable, *items: Iterable) -> list:
        """[function(*item) for item in zip(*items)], each thread taking the next item that nobody has taken."""
        self._survive_fork()
        items = list(zip(*items))
        if not items or _inside.a_job:
            return list(itertools.starmap(function, items))
        results, turns, failed = [None] * len(items), itertools.count(), threading.Event()

        def work():
            while not failed.is_set() and (i := next(turns)) < len(items):
                try:
                    results[i] = function(*items[i])
                except BaseException:
                    failed.set()  # the others need not go on
                    raise

        self._run(work, min(self.threads, len(items)))
        return results

    def _survive_fork(self):
        """Threads do not survive a fork: start the pool again in the child."""
        if self._process != os.getpid():
            self._start()

    def _run(self, job, count):
        """Run the job on `count` threads at once, this one among them."""
        run = [contextvars.copy_context().run for _ in range(count - 1)]  # the chosen kernels are chosen there too
        futures, own_error = [self._pool.submit(there, _inside.run, job) for there in run], None
        try:
            _inside.run(job)
        except BaseException as error:
            own_error = error
        # what has not begun by now has nothing left to do; the pool may be busy with the work of others
        errors = [own_error] + [future.exception() for future in futures if not future.cancel()]
        for error in errors:
            if error is not None:
                raise error


class _Inside(threading.local):
    """Whether this thread runs a job already, in which it has BLAS to itself alone."""

    a_job = False

    def run(self, job):
        self.a_job = True
        try:
            with blas_threads(1):
                job()
        finally:
            self.a_job = False


_inside = _Inside()


class _Limits:
    """Open limits on some libraries: the smallest holds, and the last to close restores what was before the first."""

    def __init__(self, libraries):
        self.libraries, self.open, self.before = libraries, [], []

    def add(self, threads):
        first, held = not self.open, min(self.open, default=threads)
        if first:
            self.before = [library.get_num_threads() for library in self.libraries]
        self.open.append(threads)
        if first or threads < held:
            self.apply()

    def remove(self, threads):
        self.open.remove(threads)
        if not self.open or min(self.open) > threads:
            self.apply()

    def apply(self):
        for library, before in zip(self.libraries, self.before):
            _set_num_threads(library, min(self.open, default=before))


def _set_num_threads(library, threads):
    """Set a limit from any thread: threadpoolctl 3.8 ignores all threads but the one that was the first to set it."""
    clear = getattr(library, "clear_controlling_thread", lambda force: None)
    clear(force=True)
    library.set_num_threads(threads)
    clear(force=True)  # and let other threads set theirs


class _BlasThreads:
    """`with blas_threads(n):` BLAS shares each product among n threads.

    OpenBLAS's own pool is one for the process, so its limits count whichever thread opened them. A BLAS on top of
    OpenMP has a limit for each thread, so every thread that shares work opens one.
    """

    def __init__(self):
        self._lock, self._own, self._shared = threading.Lock(), threading.local(), None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextlib.contextmanager
    def __call__(self, threads):
        with self._lock:
            own = self._limits()
            self._shared.add(threads)
            own.add(threads)
        try:
            yield
        finally:
            with self._lock:
                own.remove(threads)
                self._shared.remove(threads)

    def _limits(self):
        """This thread's limits; those of all threads are made beside the first."""
        if self._shared is None:
            self._shared = _Limits([library for library in _blas_libraries() if not _by_thread(library)])
        if not hasattr(self._own, "limits"):
            self._own.limits = _Limits([library for library in _blas_libraries() if _by_thread(library)])
        return self._own.limits

    def _after_fork(self):
        """In a forked process only the forking thread lives on, and only its limits."""
        self._lock = threading.Lock()
        if self._shared is not None and self._shared.open:
            self._shared.open = list(self._limits().open)
            self._shared.apply()


def _by_thread(library):
    return getattr(library, "threading_layer", None) == "openmp"


@cache
def _blas_libraries():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


blas_threads = _BlasThreads()


def blas_name() -> str:
    """The BLAS that NumPy uses, with the kind of processor that it has found: "openblas 0.3.31 for SkylakeX"."""
    if not _blas_libraries():
        return "unknown"
    info = _blas_libraries()[0].info()  # NumPy's, which was loaded first
    kind = f" for {info['architecture']}" if "architecture" in info else ""
    return f"{info['internal_api']} {info['version']}{kind}"


def shared_workers(threads: int | None = None) -> Workers:
    """The workers for a number of threads, the same object at each call; None: one for each processor that may be used.

    A thread just started takes some milliseconds to reach a processor of its own.
    Errors: ConfigError where threads is not an int above 0.
    """
    if threads is None:
        threads = available_threads()
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads must be an int of at least 1, got {threads!r}")
    return _workers(threads)


_workers = cache(Workers)
