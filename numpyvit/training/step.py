"""One training step over shards of the batch on threads and ranks.

NumPy releases the interpreter inside its loops, so threads over shards speed up the elementwise work as well as the
products; BLAS is held to one thread each meanwhile. The shards and the tree in which their gradients are added follow
from the batch and the model alone, so the result is bit-equal on any number of threads and ranks.
"""

import itertools
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .. import kernels, losses
from ..backend import ALONE, Count, Group, as_array, blas_threads, on_host, shared_workers, to_host
from ..core import Layer, Seed, Tape
from ..errors import ConfigError, DtypeError, InputError, NonFiniteError
from ..gpu import precision
from ..optim import Optimizer, check_clip_norm, clip_global_norm
from . import shards
from .nested import first_array, join, join_targets, take, to_device
from .replay import Replays
from .settings import COUNT
from .shards import Divided, Sharding
from .tree import own_pairs, own_roots, share, sum_over_ranks


class TrainStep:
    """Forward, loss, backward and update of one batch:   loss = step(x, targets).

    x, targets and what the model returns may be arrays or nested tuples, lists and dicts of them, the batch axis first.
    x and targets may be of other libraries, see backend.as_array.

    loss:       called as loss(logits, targets) -> (value, gradient) with the outputs of the whole batch; a third
                result, {"name": a mean over the batch}, is kept as `parts` until the next step. Targets are never
                divided.
    threads:    default all processors that this process may use, 1 on a GPU; the result does not depend on it.
                One step at a time: threads of your own that train need a TrainStep and a model each.
    seed:       of dropout and DropPath; each step and shard draws a stream of its own. None turns them off.
    clip_norm:  bound on the global norm of the gradients.
    sharding:   how a batch is divided; see Sharding.
    group:      the ranks that share the work (see backend.ranks); all call the step with the same whole batch, and the
                models of all stay equal.
    accumulate: how many parts of the batch, each of whole shards, follow one another, so that what is kept for
                backward is that of one part. All but the last part get a second forward. The result does not depend
                on it.
    graph:      on a GPU alone: whether a step is captured as a CUDA graph, once a shape, after two that run as they
                are, and replayed. Replays give the same bits; `logits` and `parts` lie in memory that the next step
                overwrites. None: where it can be captured; False: never; True: an error where it cannot.
    Errors: NonFiniteError before anything is updated, where the loss is not finite (on the host; on a GPU the caller
    looks, since each look stalls it). ConfigError where the ranks' weights differ, or a graph is asked for without a
    GPU or cannot be had.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss: Callable[..., tuple] = losses.cross_entropy,
        threads: int | None = None,
        seed: Seed | None = 0,
        clip_norm: float | None = None,
        sharding: Sharding | None = None,
        group: Group | None = None,
        accumulate: int = 1,
        graph: bool | None = None,
    ):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        if clip_norm is not None:
            check_clip_norm(clip_norm)
        if not COUNT.allows(accumulate):
            raise ConfigError(f"accumulate must be {COUNT.expected}, got {accumulate!r}")
        self.seed, self.clip_norm = seed, clip_norm
        xp = optimizer.weights.layout.xp
        self._count = Count(xp)
        self.sharding = sharding or shards.DEFAULT
        self.group, self.accumulate = group or ALONE, accumulate
        threads = threads if self.group is ALONE else self.group.threads(threads)
        self.workers = shared_workers(threads if xp is np else 1)  # a GPU gets its work from one thread, in one stream
        self.logits, self.targets, self.parts = None, None, {}
        self._tapes = []
        fits = xp is not np and self.group is ALONE
        if graph and not fits:
            raise ConfigError("graph=True is for a model on a GPU by itself; leave it out")
        counts = self._count, optimizer.count
        self._graphs = Replays(xp, counts, graph) if fits and graph is not False else None

    @property
    def steps(self) -> int:
        return self._count.value

    @steps.setter
    def steps(self, steps: int) -> None:
        self._count.value = steps

    def __getstate__(self):
        return {**vars(self), "_tapes": [], "_graphs": None}  # tapes are made again; a copy's steps run as they are

    def __call__(self, x, targets):
        """x: the whole batch, or a shards.Divided of it; then targets is a list with those of each of its pieces."""
        batch, divided = self._divided(x)
        targets = as_array(targets)
        if self._graphs is None:
            return self._work(batch, targets, divided)
        return self._replayed(batch, targets, divided)

    def _replayed(self, batch, targets, divided):
        """As `_work`, by a graph where there is one."""

        def work(given):
            pieces, targets = given
            loss = self._work(replace(batch, pieces=pieces), targets, divided)
            return loss, self.logits, self.targets, self.parts

        weights = self.optimizer.weights
        weights.check_trainable()
        weights.adopt()
        fixed = self.loss, self.seed, self.clip_norm, kernels.chosen(), precision.chosen()
        loss, self.logits, self.targets, self.parts = self._graphs(fixed, work, (batch.pieces, targets))
        return loss.copy()

    def _work(self, batch, targets, divided):
        outputs = self._forward(batch)
        if divided:
            outputs, targets = zip(*self._gathered(list(zip(outputs, targets))))
            self.logits, self.targets = join(outputs), join_targets(targets)
        else:
            self.logits, self.targets = join(self._gathered(outputs)), targets
        with blas_threads(1):  # a product shared among threads is rounded in another way
            loss, gradient, *rest = self.loss(self.logits, self.targets)
        self.parts = rest[0] if rest else {}
        if on_host(first_array(self.logits)) and not np.isfinite(loss):
            raise NonFiniteError(f"the loss of step {self.steps + 1} is {float(loss)}; nothing was updated")
        self._backward(batch, gradient)
        self._update(len(batch.parts), batch.own)
        return loss

    def release(self):
        """Give back the memory that steps keep for the next ones."""
        self._tapes = []
        if self._graphs is not None:
            self._graphs.release()

    def replay(self, x):
        """The outputs of the next step for a batch, or of one that failed, by its shards and random numbers.

        Nothing changes. core.observing sees each layer's output meanwhile. Of a Divided those of its pieces.
        """
        batch, _ = self._divided(x)
        outputs = [
            self._forward_one(i, piece, Tape(self.model, input_gradient=False))
            for i, piece in zip(batch.own, batch.pieces)
        ]
        return join(outputs) if outputs else None

    def _divided(self, x):
        """-> the batch as Divided, and whether it came so."""
        if isinstance(x, Divided):
            return x, True
        x = as_array(x)
        images = first_array(x)
        if not hasattr(images, "shape") or images.ndim == 0:
            raise DtypeError(f"a training step takes an array of images, got a {type(images).__name__}")
        if images.shape[0] == 0:
            raise InputError("a training step got an empty batch, expected at least one image")
        parts, own = self.divide(len(images), images.size, on_host(images))
        return Divided(parts, own, [take(x, parts[i]) for i in own]), False

    def divide(self, count, numbers, host=True):
        """-> the slices of all shards of a batch of so many images and numbers, and which shards are this rank's.

        host: whether the model is there. On a GPU by itself a batch stays whole.
        """
        whole = not host and self.group is ALONE
        parts = [slice(0, count)] if whole else self.sharding.slices(count, numbers, self.model)
        return parts, share(len(parts), self.group)

    def _gathered(self, values):
        """The lists of all ranks one after another, their arrays where the model's are."""
        gathered = [value for of_rank in self.group.gather(values) for value in of_rank]
        return gathered if self.group is ALONE else to_device(gathered, self.optimizer.weights.layout.xp)

    def _forward(self, batch):
        """-> the outputs of the own pieces. Of the last round the tapes keep what backward needs."""
        if self.steps == 0 and self.group.size > 1:
            self._check_equal_weights()
        while len(self._tapes) < max(len(batch.pieces), 1):
            self._tapes.append(Tape(self.model, input_gradient=False))
        rounds, outputs = self._rounds(batch), []
        for part in rounds:
            outputs += self._forward_round(batch, part)
            if part is not rounds[-1]:
                for tape in self._tapes[part]:
                    tape.discard()
        return outputs

    def _backward(self, batch, gradient):
        rounds = self._rounds(batch)
        for part in reversed(rounds):
            if part != rounds[-1]:
                self._forward_round(batch, part)
            slices, tapes = [batch.parts[i] for i in batch.own[part]], self._tapes[part]
            self.workers.map(lambda rows, tape: self.model.backward(take(gradient, rows), tape), slices, tapes)

    def _rounds(self, batch):
        """Slices over the own pieces: those that are in memory at a time."""
        count = len(batch.pieces)
        rounds = max(1, min(self.accumulate, count))
        edges = [count * i // rounds for i in range(rounds + 1)]
        return [slice(*edge) for edge in itertools.pairwise(edges)]

    def _forward_round(self, batch, part):
        return self.workers.map(self._forward_one, batch.own[part], batch.pieces[part], self._tapes[part])

    def _forward_one(self, i, piece, tape):
        tape.discard()
        tape.zero()
        if self.seed is None:
            tape.reseed(None)
        elif tape.layout.xp is np:
            tape.reseed((self.seed, self.steps, i))
        else:  # the number of the step lies there, so that a graph does not fix it
            tape.reseed((self.seed, i), self._count.there)
        return self.model.forward(piece, tape)

    def _update(self, count, own):
        """Add the shards' gradients in their tree, clip, and update, chunk by chunk on the threads."""
        optimizer, first, alone = self.optimizer, self._tapes[0], self.group.size == 1
        total = first.flat
        optimizer.begin(first)
        chunks = list(optimizer.chunks())
        workers = self.workers if total.size > self.sharding.small_update else shared_workers(1)
        sums = {i: tape.flat for i, tape in zip(own, self._tapes)}
        additions = [(sums[left], sums[right]) for left, right in own_pairs(count, own)]

        def add(chunk):
            part = slice(*chunk[:2])
            for left, right in additions:
                left[part] += right[part]

        def update(chunk):
            optimizer.update(chunk, total)

        if alone and self.clip_norm is None:
            workers.map(lambda chunk: (add(chunk), update(chunk)), chunks)
        else:
            workers.map(add, chunks)
            if not alone:
                sum_over_ranks(self.group, count, {root: sums[root] for root in own_roots(count, own)}, total)
            if self.clip_norm is not None:
                with blas_threads(1):
                    clip_global_norm(first, self.clip_norm)
            workers.map(update, chunks)
        self._count.advance()

    def _check_equal_weights(self):
        sums = self.group.gather(zlib.crc32(to_host(self.optimizer.weights.current())))
        if len(set(sums)) > 1:
            other = next(rank for rank, found in enumerate(sums) if found != sums[0])
            raise ConfigError(
                f"the weights of rank {other} differ from those of rank 0; make the model with the same seed or the "
                "same checkpoint on every rank"
            )
