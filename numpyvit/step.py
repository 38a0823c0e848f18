"""One training step over shards of the batch on threads.

NumPy releases the interpreter inside its loops, so threads over shards speed up the elementwise work as well as the
products; BLAS is held to one thread each meanwhile. The shards and the order in which their gradients are summed follow
from the batch alone, so the result is bit-equal on any number of threads.
"""

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np

from . import losses
from .backend import array_module, keep_freed_memory, on_host
from .core import Tape
from .errors import ConfigError, DtypeError, InputError, NonFiniteError
from .optim import check_clip_norm, clip_global_norm

MAX_SHARDS = 8
_MIN_SHARD = 48_000  # numbers: 64 pictures of 28×28 pixels
_TINY_BATCH = 2_000  # numbers: 192 pictures of 8×8 pixels


def available_threads():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_batch(x, least=2):
    """Slices of nearly equal length over a batch of images: two of them, if each then has `least` images.

    More only of at least four images, and more where they are small, and one alone where all are tiny: below that,
    handing the interpreter from thread to thread and adding up one more set of gradients cost more than they save.
    """
    if x.size < _TINY_BATCH:
        return [slice(0, len(x))]
    count = max(len(x) // 4, min(2, len(x) // least))
    return split(len(x), min(MAX_SHARDS, count, max(2, x.size // _MIN_SHARD)))


def split(length, count):
    """`count` slices of nearly equal length, at least one."""
    count = max(1, count)
    edges = [length * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


class Workers:
    """Threads for shards, the caller's own among them. Errors of any thread are raised in the caller."""

    def __init__(self, threads):
        keep_freed_memory()
        self.threads = threads
        self._start()

    def _start(self):
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(max(self.threads, MAX_SHARDS))  # threads start when they are first needed
        self._one_team = threading.Lock()

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

        self._run([work] * min(self.threads, len(items)))
        return results

    def together(self, function, count, on_error):
        """[function(i) for i in range(count)], all running at once, so that they may wait for each other.

        on_error: called where one fails, to free those that wait for it at a barrier.
        """
        self._survive_fork()
        workers = Workers(self.threads) if _inside.a_job else self  # in a job, its own threads may all be taken
        results = [None] * count

        def work(i):
            try:
                results[i] = function(i)
            except BaseException:
                on_error()
                raise

        with workers._one_team:  # two teams with half of the threads each would wait for ever
            try:
                workers._run([partial(work, i) for i in range(count)])
            except BaseException:
                on_error()
                raise
        return results

    def _survive_fork(self):
        """Threads do not: in a forked process start them anew."""
        if self._process != os.getpid():
            self._start()

    def _run(self, jobs):
        """The first job on this thread, the others beside it."""
        with _one_blas_thread:
            futures, own_error = [self._pool.submit(_inside.run, job) for job in jobs[1:]], None
            try:
                _inside.run(jobs[0])
            except BaseException as error:
                own_error = error
            errors = [own_error] + [future.exception() for future in futures]
        errors = [error for error in errors if error is not None]
        causes = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
        for error in causes + errors:
            raise error


class _Inside(threading.local):
    """Whether this thread runs a job already."""

    a_job = False

    def run(self, job):
        before, self.a_job = self.a_job, True
        try:
            job()
        finally:
            self.a_job = before


_inside = _Inside()


class _OneBlasThread:
    """A context in which each product runs on the thread that asks for it; the last to leave restores what was."""

    def __init__(self):
        self._lock, self._inside, self._limit = threading.Lock(), 0, None

    def __enter__(self):
        with self._lock:
            if self._inside == 0:
                self._limit = _blas_controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


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


class TrainStep:
    """Forward, loss, backward and update of one batch:   loss = step(x, targets).

    loss:      called as loss(logits, targets) -> (value, gradient) with the logits of the whole batch.
    threads:   default all processors that this process may use; the result does not depend on it.
    seed:      of dropout and DropPath; each step and shard draws a stream of its own. None turns them off.
    clip_norm: bound on the global norm of the gradients.
    Errors: NonFiniteError before anything is updated, where the loss is not finite (on the host; on a GPU the caller
    looks, since each look stalls it).
    """

    def __init__(self, model, optimizer, loss=losses.cross_entropy, threads=None, seed=0, clip_norm=None):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        if clip_norm is not None:
            check_clip_norm(clip_norm)
        self.seed, self.clip_norm, self.steps = seed, clip_norm, 0
        self.workers = shared_workers(threads)
        self.logits = None
        self._tapes = []

    def __call__(self, x, targets):
        if not hasattr(x, "shape") or x.ndim == 0:
            raise DtypeError(f"a training step takes an array of images, got a {type(x).__name__}")
        if x.shape[0] == 0:
            raise InputError("a training step got an empty batch, expected at least one image")
        shards = split_batch(x) if on_host(x) else [slice(None)]
        while len(self._tapes) < len(shards):
            self._tapes.append(Tape(self.model, input_gradient=False))
        tapes = self._tapes[: len(shards)]

        def forward(i, shard, tape):
            tape.discard()
            tape.zero()
            tape.reseed(None if self.seed is None else (self.seed, self.steps, i))
            return self.model.forward(x[shard], tape)

        self.logits = _join(self.workers.map(forward, range(len(shards)), shards, tapes))
        loss, gradient = self.loss(self.logits, targets)
        if on_host(x) and not np.isfinite(loss):
            raise NonFiniteError(f"the loss of step {self.steps + 1} is {float(loss)}; nothing was updated")
        self.workers.map(lambda shard, tape: self.model.backward(_part(gradient, shard), tape), shards, tapes)
        self._update(tapes)
        return loss

    def _update(self, tapes):
        """Sum the shards' gradients in their order, clip, and update, chunk by chunk on the threads."""
        optimizer, total = self.optimizer, tapes[0].flat
        optimizer.begin(tapes[0])
        chunks = list(optimizer.chunks())

        def add(chunk):
            part = slice(*chunk[:2])
            for tape in tapes[1:]:
                total[part] += tape.flat[part]

        def add_and_update(chunk):
            add(chunk)
            optimizer.update(chunk, total)

        if self.clip_norm is None:
            self.workers.map(add_and_update, chunks)
        else:
            self.workers.map(add, chunks)
            clip_global_norm(tapes[0], self.clip_norm)
            self.workers.map(lambda chunk: optimizer.update(chunk, total), chunks)
        self.steps += 1


def _join(parts):
    """The shards' logits, or pairs of logits, as those of the batch."""
    if isinstance(parts[0], tuple):
        return tuple(map(_join, zip(*parts)))
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts)


def _part(gradient, shard):
    return tuple(g[shard] for g in gradient) if isinstance(gradient, tuple) else gradient[shard]
