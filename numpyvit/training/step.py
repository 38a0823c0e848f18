"""One training step over shards of the batch on threads.

NumPy releases the interpreter inside its loops, so threads over shards speed up the elementwise work as well as the
products; BLAS is held to one thread each meanwhile. The shards and the order in which their gradients are summed follow
from the batch and the model alone, so the result is bit-equal on any number of threads.
"""

from collections.abc import Callable

import numpy as np

from .. import losses
from ..backend import as_array, on_host, shared_workers
from ..core import Layer, Seed, Tape
from ..errors import DtypeError, InputError, NonFiniteError
from ..optim import Optimizer, check_clip_norm, clip_global_norm
from . import shards
from .nested import first_array, join, take
from .shards import Sharding


class TrainStep:
    """Forward, loss, backward and update of one batch:   loss = step(x, targets).

    x, targets and what the model returns may be arrays or nested tuples, lists and dicts of them, the batch axis first.
    x and targets may be of other libraries, see backend.as_array.

    loss:      called as loss(logits, targets) -> (value, gradient) with the outputs of the whole batch; a third result,
               {"name": a mean over the batch}, is kept as `parts` until the next step. Targets are never divided.
    threads:   default all processors that this process may use; the result does not depend on it.
               One step at a time: threads of your own that train need a TrainStep and a model each.
    seed:      of dropout and DropPath; each step and shard draws a stream of its own. None turns them off.
    clip_norm: bound on the global norm of the gradients.
    sharding:  how a batch is divided; see Sharding.
    Errors: NonFiniteError before anything is updated, where the loss is not finite (on the host; on a GPU the caller
    looks, since each look stalls it).
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
    ):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        if clip_norm is not None:
            check_clip_norm(clip_norm)
        self.seed, self.clip_norm, self.steps = seed, clip_norm, 0
        self.sharding = sharding or shards.DEFAULT
        self.workers = shared_workers(threads)
        self.logits, self.parts = None, {}
        self._tapes = []

    def __getstate__(self):
        return {**vars(self), "_tapes": []}  # they are made again where they are needed

    def __call__(self, x, targets):
        x, targets = as_array(x), as_array(targets)
        images = first_array(x)
        if not hasattr(images, "shape") or images.ndim == 0:
            raise DtypeError(f"a training step takes an array of images, got a {type(images).__name__}")
        if images.shape[0] == 0:
            raise InputError("a training step got an empty batch, expected at least one image")
        parts = self.sharding.split(x, self.model)
        while len(self._tapes) < len(parts):
            self._tapes.append(Tape(self.model, input_gradient=False))
        tapes = self._tapes[: len(parts)]
        pieces = [take(x, part) for part in parts]
        self.logits = join(self.workers.map(self._forward, range(len(parts)), pieces, tapes))
        loss, gradient, *rest = self.loss(self.logits, targets)
        self.parts = rest[0] if rest else {}
        if on_host(images) and not np.isfinite(loss):
            raise NonFiniteError(f"the loss of step {self.steps + 1} is {float(loss)}; nothing was updated")
        self.workers.map(lambda part, tape: self.model.backward(take(gradient, part), tape), parts, tapes)
        self._update(tapes)
        return loss

    def replay(self, x):
        """The outputs of the next step for a batch, or of one that failed, by its shards and random numbers.

        Nothing changes. core.observing sees each layer's output meanwhile.
        """
        parts = self.sharding.split(x, self.model)
        return join(
            [self._forward(i, take(x, part), Tape(self.model, input_gradient=False)) for i, part in enumerate(parts)]
        )

    def _forward(self, i, shard, tape):
        tape.discard()
        tape.zero()
        tape.reseed(None if self.seed is None else (self.seed, self.steps, i))
        return self.model.forward(shard, tape)

    def _update(self, tapes):
        """Sum the shards' gradients in their order, clip, and update, chunk by chunk on the threads."""
        optimizer, total = self.optimizer, tapes[0].flat
        optimizer.begin(tapes[0])
        chunks = list(optimizer.chunks())
        workers = self.workers if total.size > self.sharding.small_update else shared_workers(1)

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
