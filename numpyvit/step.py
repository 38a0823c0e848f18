"""One training step over shards of the batch on threads.

NumPy releases the interpreter inside its loops, so threads over shards speed up the elementwise work as well as the
products; BLAS is held to one thread each meanwhile. The shards and the order in which their gradients are summed follow
from the batch and the model alone, so the result is bit-equal on any number of threads.
"""

import contextlib
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from . import losses
from .backend import array_module, keep_freed_memory, on_host
from .core import Tape
from .errors import ConfigError, DtypeError, InputError, NonFiniteError
from .optim import check_clip_norm, clip_global_norm

_MAX_SHARDS = 8
_MIN_SHARD = 48_000  # numbers: 64 pictures of 28×28 pixels
_TINY_BATCH, _TINY_WORK = 15_000, 4_000_000  # numbers; images times parameters
_SMALL_UPDATE = 400_000  # parameters; handing fewer to several threads takes longer than one needs for them


def available_threads():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_batch(x, model, least=2):
    """Slices of nearly equal length over a batch of images: two of them, if each then has `least` images.

    More only of at least four images, and more where they are small, and one alone where batch and model are tiny:
    below that, handing the interpreter from thread to thread and adding up one more set of gradients cost more than
    they save.
    """
    if x.size < _TINY_BATCH and len(x) * model.num_parameters() < _TINY_WORK:
        return [slice(0, len(x))]
    count = max(len(x) // 4, min(2, len(x) // least))
    count = max(1, min(_MAX_SHARDS, count, max(2, x.size // _MIN_SHARD)))
    edges = [len(x) * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


class Workers:
    """Threads for shards, the caller's own among them. Errors of any thread are raised in the caller."""

    def __init__(self, threads):
        keep_freed_memory()
        self.threads = threads
        self._start()

    def _start(self):
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(max(self.threads, _MAX_SHARDS))  # threads start when they are first needed

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
        shards = split_batch(x, self.model) if on_host(x) else [slice(None)]
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
        workers = self.workers if total.size > _SMALL_UPDATE else shared_workers(1)

        def add(chunk):
            part = slice(*chunk[:2])
            for tape in tapes[1:]:
                total[part] += tape.flat[part]

        def add_and_update(chunk):
            add(chunk)
            optimizer.update(chunk, total)

        if self.clip_norm is None:
            workers.map(add_and_update, chunks)
        else:
            workers.map(add, chunks)
            clip_global_norm(tapes[0], self.clip_norm)
            workers.map(lambda chunk: optimizer.update(chunk, total), chunks)
        self.steps += 1


def _join(parts):
    """The shards' logits, or pairs of logits, as those of the batch."""
    if isinstance(parts[0], tuple):
        return tuple(map(_join, zip(*parts)))
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts)


def _part(gradient, shard):
    return tuple(g[shard] for g in gradient) if isinstance(gradient, tuple) else gradient[shard]
