"""A short run that is stopped at its n-th event. Also a program, for stops that take the process with them."""

import contextlib
import itertools
import os
import signal
import sys
from unittest import mock

import numpyvit as nv
from numpyvit import data

SIGNALS = {"kill": signal.SIGKILL, "int": signal.SIGINT, "term": signal.SIGTERM}
STEPS = 10  # in two epochs


class Fault:
    """Does something at the event of number `at`, and counts the steps that were done."""

    def __init__(self, kind=None, at=0):
        self.kind, self.at, self.events, self.where, self.steps = kind, at, itertools.count(), None, 0

    def event(self, where):
        if next(self.events) != self.at or self.kind is None:
            return
        self.where = where
        if self.kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.kind])
        elif self.kind == "full":
            raise OSError(28, "No space left on device")
        else:
            raise {"error": RuntimeError, "memory": MemoryError}[self.kind]("on purpose")

    def before(self, owner, name):
        """A patch: the function is an event."""
        function = getattr(owner, name)

        def observed(*args, **options):
            self.event(name)
            return function(*args, **options)

        return mock.patch.object(owner, name, observed)

    def counting_steps(self):
        function = nv.TrainStep.__call__

        def step(*args):
            self.event("step")
            loss = function(*args)
            self.steps += 1
            return loss

        return mock.patch.object(nv.TrainStep, "__call__", step)

    def planted(self):
        """Disk full: events are what is written. Else also steps, updates, averages."""
        stack = contextlib.ExitStack()
        stack.enter_context(self.before(os, "fsync"))
        stack.enter_context(self.before(os, "replace"))
        if self.kind != "full":
            stack.enter_context(self.counting_steps())
            stack.enter_context(self.before(nv.optim.AdamW, "update"))
            stack.enter_context(self.before(nv.optim.EMA, "update"))
        return stack

    def augment(self, images, labels, rng):
        if self.kind != "full":
            self.event("batch")
        return data.random_affine(10, 0.5)(images, labels, rng)


def train(out, fault, save_every=1e9):
    """The run, from its beginning or from its state."""
    train_set, val_set = data.load("digits")
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=2, num_heads=2, drop_rate=0.1, drop_path_rate=0.1)
    resume = os.path.exists(os.path.join(out, "config.json"))
    with fault.planted():
        return nv.fit(
            model, train_set.take(slice(0, 300)), val_set.take(slice(0, 60)), epochs=2, batch_size=64, ema_decay=0.9,
            warmup_steps=2, augment=[fault.augment], out=out, resume=resume, save_every=save_every, threads=1,
            progress=False,
        )  # fmt: skip


if __name__ == "__main__":
    out, kind, at, save_every = sys.argv[1:]
    train(out, Fault(kind, int(at)), float(save_every))
