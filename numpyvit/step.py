"""One training step over shards of the batch on threads.

NumPy releases the interpreter inside its loops, so threads over shards speed up the elementwise work as well as the
products; BLAS is held to one thread each meanwhile. The shards and the order in which their gradients are summed follow
from the batch and the model alone, so the result is bit-equal on any number of threads.
"""

import itertools

import numpy as np

from . import losses
from .backend import array_module, on_host, shared_workers
from .core import Tape
from .errors import DtypeError, InputError, NonFiniteError
from .optim import check_clip_norm, clip_global_norm

_MAX_SHARDS = 8
_MIN_SHARD = 48_000  # numbers: 64 pictures of 28×28 pixels
_TINY_BATCH, _TINY_WORK = 15_000, 4_000_000  # numbers; images times parameters
_SMALL_UPDATE = 400_000  # parameters; handing fewer to several threads takes longer than one needs for them


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


class TrainStep:
    """Forward, loss, backward and update of one batch:   loss = step(x, targets).

    loss:      called as loss(logits, targets) -> (value, gradient) with the logits of the whole batch.
    threads:   default all processors that this process may use; the result does not depend on it.
               One step at a time: threads of your own that train need a TrainStep and a model each.
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

    def __getstate__(self):
        return {**vars(self), "_tapes": []}  # they are made again where they are needed

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
