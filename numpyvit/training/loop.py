"""The loop over a run's epochs and steps, and what becomes of it when it is interrupted, killed or diverges."""

import contextlib
import itertools
import math
import shlex
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from .. import kernels
from ..backend import ALONE, Group, on_host
from ..core import Layer
from ..data.augment import Augmentation
from ..data.loader import ImageSet, Loader
from ..data.preprocessing import Preprocessing
from ..errors import Interrupted, NonFiniteError, NumpyvitError, RunError
from ..gpu.precision import products_in
from ..optim import EMA
from . import shards
from .device import Losses, check_precision, memory_errors, place, too_large
from .divergence import explain_non_finite, overflowed_parameter
from .evaluation import evaluate_task, module_and_dtype
from .nested import first_array, to_device
from .optimization import make_optimizer, make_schedule
from .progress import Progress
from .records import Clock, Sums, describe, validation_figures
from .run_writer import RunWriter, averaged
from .settings import Settings
from .shards import Divided
from .step import TrainStep
from .stopping import catch_signals
from .task import Task

_READ_EVERY = 20  # steps between two looks at the loss on a device, where each look stalls it


class Trainer:
    """The state of one run and the loop over it."""

    def __init__(
        self,
        model: Layer,
        train: ImageSet,
        val: ImageSet | None,
        test: ImageSet | None,
        task: Task,
        settings: Settings,
        augment: Sequence[Augmentation],
        notes: Mapping,
        threads: int | None,
        progress: bool,
        save_every: float,
        on_epoch: Callable[[list[dict]], None] | None = None,
        *,
        group: Group = ALONE,
        accumulate: int = 1,
    ):
        self.on_epoch = on_epoch
        self.model, self.val, self.test, self.settings = model, val, test, settings
        self.task = task
        self.writer, self.threads, self.save_every = None, threads, save_every
        self.group, self.shown = group, progress and group.leads
        preprocessing = getattr(train, "preprocessing", Preprocessing(train.mean, train.std))
        model.pretrained_cfg = {**preprocessing.as_dict(), "classes": list(train.classes)}
        self.notes = {**model.pretrained_cfg, **notes}  # from which a file gives a model the same pretrained_cfg
        self.xp, dtype = module_and_dtype(model)
        check_precision(settings.precision, self.xp, dtype)
        self.train = train
        train, self.placed = place(train, self.xp, group)
        self.losses = None if self.xp is np else Losses(self.xp, _READ_EVERY)
        self.loader = Loader(train, settings.batch_size, shuffle=True, augment=augment, seed=settings.seed, dtype=dtype)
        self.optimizer = make_optimizer(model, settings)
        self.ema = EMA(model, settings.ema_decay) if settings.ema_decay else None
        self.step = TrainStep(
            model, self.optimizer, task.loss, threads=threads, seed=settings.seed, clip_norm=settings.clip_norm,
            group=group, accumulate=accumulate, sharding=replace(shards.DEFAULT, max_shards=settings.shards),
        )  # fmt: skip
        shape = getattr(train, "image_shape", None) or first_array(self._first_image(train)).shape
        self.image_size = math.prod(shape)  # numbers in an image
        total = settings.epochs * len(self.loader)
        self.total_steps = min(total, settings.steps or total)
        self.rate = make_schedule(settings, self.total_steps)
        self.steps, self.epoch, self.batch, self.records = 0, 0, 0, []
        self.sums, self.clock = Sums(), Clock()

    # -- the loop

    def run(self, directory=None):
        """Train to the end, from the state in the directory where there is one. Returns the records.

        directory: a RunDirectory on the leading rank alone.
        """
        if self.group.from_first(directory is not None):
            self.writer = RunWriter(
                directory, self.model, self.optimizer, self.ema, self.task, self.notes, self.threads, self.group
            )
            self._restore(self.writer.load_state())
        name = overflowed_parameter(self.model)
        if name is not None:
            raise NonFiniteError(f"the given weights hold NaN or infinity in {name}; check where they come from")
        self._warn_of_long_warmup()
        self._save_at, self._draw_at = time.monotonic() + self.save_every, time.monotonic()
        with (
            products_in(self.settings.precision),
            Progress(self.shown, self.total_steps, self.steps) as self.progress,
            catch_signals() as stop,
        ):
            if self.placed:
                self.progress.line(self.placed)
            if self.writer is not None:
                if self._finished():
                    self.writer.write_results(self.records)  # some may have been removed
                    self._draw()
                else:
                    self.writer.remove_result()
            while not self._finished():
                self._train_epoch(stop)
                self._finish_epoch()
        if self.ema is not None:
            self.ema.copy_to_model()
        if self.test is not None and self.writer is not None:
            self.writer.write_test(self.records, self.test)
        return self.records

    def _finished(self):
        """Whether all steps are done, and the validation after the last of them too."""
        validated = self.batch == 0 or any(record["epoch"] == self.epoch + 1 for record in self.records)
        return self.steps >= self.total_steps and validated

    def _train_epoch(self, stop):
        if self.steps >= self.total_steps:
            return
        self.records = [r for r in self.records if r["epoch"] <= self.epoch]  # one of a part of this epoch is outdated
        with self._saved_on_error():
            ended = time.perf_counter()
            for parts, own, pieces in self.loader.pieces(self._divide, self.epoch, self.batch):
                self.clock.waited += time.perf_counter() - ended
                self._train_batch(parts, own, pieces)
                asked = [signum for signum in self.group.gather(stop.signum) if signum is not None]
                if asked:
                    self._stop(asked[0])
                if self.steps == self.total_steps:
                    return
                if self.writer is not None and time.monotonic() >= self._save_at:
                    self._save_state()
                ended = time.perf_counter()

    def _divide(self, count):
        return self.step.divide(count, count * self.image_size, self.xp is np)

    def _train_batch(self, parts, own, pieces):
        start = time.perf_counter()
        self.optimizer.lr = self.rate(self.steps)
        given = self._given(own, pieces)
        x, targets = Divided(parts, own, [x for x, _ in given]), [of_piece for _, of_piece in given]
        loss = self._step(x, targets)
        if self.ema is not None:
            self.ema.update()
        count = len(x)
        self.sums.add({"loss": loss, **self.step.parts}, self.task.score(self.step.logits, self.step.targets), count)
        self.steps, self.batch = self.steps + 1, self.batch + 1
        self.clock.add(count, time.perf_counter() - start)
        self._show(loss)

    def _step(self, x, targets):
        with contextlib.suppress(*memory_errors(self.xp)):  # what an error in hand holds would not be given back
            try:
                loss = self.step(x, targets)
            except NonFiniteError as error:
                self.group.failed_together()  # asked before ranks take different times to explain it
                why = explain_non_finite(self.model, lambda: self.step.replay(x))
                raise NonFiniteError(f"{error}; {why}") from None
            if self.losses is not None:
                self._look_at_losses(loss)
            return loss
        self.step.release()
        raise too_large(self.model, self.task.loss, x.pieces[0], targets[0], self.xp)

    def _look_at_losses(self, loss):
        self.losses.add(loss)
        found = self.losses.first_not_finite()
        if found:
            ago, value = found
            raise NonFiniteError(
                f"the loss of step {self.step.steps - ago} is {value}, seen after step {self.step.steps}; "
                f"{explain_non_finite(self.model)}"
            )

    def _given(self, own, pieces):
        """[(what the model is given, targets) for each of the rank's own pieces of a batch]."""
        given, shared = [], {}
        if self.task.most is not None:
            found = self.group.gather([self.task.most(labels) for _, labels in pieces])
            shared["most"] = max(itertools.chain(*found))
        for i, (inputs, labels) in zip(own, pieces):
            rng = np.random.default_rng((self.settings.seed, self.steps, i, 3))
            inputs, labels = to_device(inputs, self.xp), to_device(labels, self.xp)
            given.append(self.task.batch(self.model, inputs, labels, rng, self.threads, **shared))
        return given

    def _finish_epoch(self):
        record = self._record(self._validate())
        self.records.append(record)
        self.clock = Clock()
        if self.batch == len(self.loader):
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
        if self.writer is not None:
            self.writer.write_results(self.records)
            self._save_state()
            self._draw()
        if self.on_epoch is not None:
            self.on_epoch(self.records)
        self.progress.line(describe(record, self.task))

    def _validate(self):
        """-> the figures of the validation set, if there is one. Errors: NonFiniteError, before anything is saved."""
        if self.val is None:
            self._check_weights()
            return {}
        with self._saved_on_error(), averaged(self.ema):
            figures = evaluate_task(self.task, self.model, self.val, self.group, threads=self.threads)
        recorded = validation_figures(figures, self.task)
        if recorded["val_loss"] is None:
            raise NonFiniteError(
                f"the validation loss after step {self.steps} is {figures['loss']}; this epoch was not saved; "
                f"{self._explain_validation()}"
            )
        return recorded

    def _record(self, scores):
        return {
            "epoch": self.epoch + 1,
            **{f"train_{name}": value for name, value in self.sums.figures(self.task).items()},
            **scores,
            "lr": self.rate(self.steps - 1),
            "seconds": self.clock.seconds,
            "images_per_second": self.clock.images_per_second,
            "loader_seconds": self.clock.waited,
        }

    def _explain_validation(self):
        inputs = to_device(self._first_image(self.val), self.xp)
        with averaged(self.ema):
            return explain_non_finite(self.model, lambda: self.model(inputs))

    def _first_image(self, dataset):
        return next(Loader(dataset, 1, dtype=self.loader.dtype).epoch())[0]

    # -- files

    def _draw(self):
        """Draw after an epoch, but only where it takes no more than a tenth of the time; always after the last step."""
        start = time.monotonic()
        if start >= self._draw_at or self._finished():
            self.writer.draw(self.records, self.train if self.val is None else self.val)
            now = time.monotonic()
            self._draw_at = now + 10 * (now - start)

    def _save_state(self):
        """Write everything that continuing needs. Errors: NonFiniteError rather than weights that are not finite."""
        start = time.monotonic()
        self._check_weights()
        position = {"epoch": self.epoch, "batch": self.batch, "records": self.records, "steps": self.steps}
        position["kernels"] = kernels.chosen()
        self.writer.save_state({**position, "sums": self.sums.values(), "clock": self.clock.values()})
        now = time.monotonic()
        self._save_at = now + max(self.save_every, 10 * (now - start))

    def _check_weights(self):
        if overflowed_parameter(self.model) is not None:
            raise NonFiniteError(f"after step {self.steps} {explain_non_finite(self.model)}")

    def _restore(self, position):
        """Go back to a saved position; None is the beginning."""
        if position is None:
            return
        self.epoch, self.batch, self.records = position["epoch"], position["batch"], position["records"]
        self.steps = self.step.steps = position["steps"]
        self.sums, self.clock = Sums(*position["sums"]), Clock(*position["clock"])
        before, now = position.get("kernels", "numpy"), kernels.chosen()
        if before != now:
            warnings.warn(
                f"the run was trained with the kernels {before!r} and goes on with {now!r}, "
                "so the last digits of its weights will be others",
                stacklevel=4,
            )

    # -- the end before the end

    def _stop(self, signum):
        if self.writer is None:
            raise Interrupted(f"stopped after step {self.steps}; without a run directory nothing was saved", signum)
        self._save_state()
        self.group.barrier()  # others wait for the rank that saves
        raise Interrupted(
            f"stopped after step {self.steps} of {self.total_steps}; everything is saved. {self._how_to_go_on()}",
            signum,
        )

    @contextlib.contextmanager
    def _saved_on_error(self):
        """Save the last whole step before an error goes on, and say so in a note of the error."""
        try:
            yield
        except (Interrupted, RunError):
            raise  # saved already, or it was saving that failed
        except Exception as error:
            self.group.failed_together()  # asked before saving, which may take longer than others wait
            if self.writer is not None and self.group.leads:
                error.add_note(self._save_after_error())
            raise

    def _save_after_error(self):
        if self.optimizer.steps != self.steps:  # it counts a step before it changes a weight, the loop afterwards
            return "the error came within an update: the run goes on from what was saved before"
        try:
            self._save_state()
        except (NumpyvitError, MemoryError) as error:
            return f"the state after step {self.steps} was not saved: {error or type(error).__name__}"
        return f"everything up to step {self.steps} is saved. {self._how_to_go_on()}"

    def _how_to_go_on(self):
        if not self.group.leads:
            return "The first rank says how to go on"
        out = str(self.writer.directory.path)
        how = f"fit(…, out={out!r}, resume=True)"
        if "data" in self.notes:
            how = f"numpyvit train --resume --out {shlex.quote(out)}"
        return f"Go on with: {how}"

    # -- what the user sees

    def _warn_of_long_warmup(self):
        warmup = self.settings.warmup_steps
        if warmup >= self.total_steps:
            warnings.warn(
                f"the run of {self.total_steps} steps ends within its warm-up of {warmup}, so the learning rate only "
                f"comes to {self.rate(self.total_steps - 1):.2g}; train longer or set fewer warm-up steps",
                stacklevel=3,
            )

    def _show(self, loss):
        self.progress.step()
        if self.progress.has_bar and (on_host(loss) or self.steps % _READ_EVERY == 0):
            clock = self.clock
            self.progress.explain(
                f"epoch {self.epoch + 1}/{self.settings.epochs}",
                f"{self.task.describe(self.sums.figures(self.task))}, {clock.images_per_second:.0f} img/s, "
                f"waited {clock.waited:.1f} s",
            )
