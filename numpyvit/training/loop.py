"""The loop over a run's epochs and steps, and what it saves when it is interrupted, killed or diverges."""

import contextlib
import shlex
import time
import warnings

import numpy as np

from ..backend import on_host
from ..data.loader import Loader
from ..data.preprocessing import Preprocessing
from ..errors import Interrupted, NonFiniteError, NumpyvitError, RunError
from ..optim import EMA, SGD, AdamW, constant_schedule, cosine_schedule, layer_decay, step_schedule
from ..weights.checkpoint import load_checkpoint, save_checkpoint
from .divergence import explain_non_finite, overflowed_parameter
from .evaluation import evaluate, home
from .progress import Progress
from .records import Clock, Sums, best_record, describe, figures
from .step import TrainStep
from .stopping import catch_signals

_READ_EVERY = 20  # steps between two looks at the loss on a device, where each look stalls it


class Trainer:
    """The state of one run and the loop over it."""

    def __init__(self, model, train, val, test, task, settings, augment, notes, threads, progress, save_every):
        self.model, self.val, self.test, self.settings = model, val, test, settings
        self.task = task
        self.directory, self.threads, self.shown, self.save_every = None, threads, progress, save_every
        preprocessing = getattr(train, "preprocessing", Preprocessing(train.mean, train.std))
        model.pretrained_cfg = {**preprocessing.as_dict(), "classes": list(train.classes)}
        self.notes = {**model.pretrained_cfg, **notes}  # from which a file gives a model the same pretrained_cfg
        self.xp, dtype = home(model)
        self.loader = Loader(train, settings.batch_size, shuffle=True, augment=augment, seed=settings.seed, dtype=dtype)
        factors = layer_decay(model, settings.layer_decay) if settings.layer_decay else None
        self.optimizer = _optimizer(model, settings, factors)
        self.ema = EMA(model, settings.ema_decay) if settings.ema_decay else None
        self.step = TrainStep(
            model,
            self.optimizer,
            loss=task.loss,
            threads=threads,
            seed=settings.seed,
            clip_norm=settings.clip_norm,
        )
        total = settings.epochs * len(self.loader)
        self.total_steps = min(total, settings.steps or total)
        self.rate = _schedule(settings, self.total_steps)
        self.steps, self.epoch, self.batch, self.records = 0, 0, 0, []
        self.sums, self.clock = Sums(), Clock()

    # -- the loop

    def run(self, directory=None):
        """Train to the end, from the state in the directory where there is one. Returns the records."""
        self.directory = directory
        if directory is not None:
            self._restore(directory.load_state())
        name = overflowed_parameter(self.model)
        if name is not None:
            raise NonFiniteError(f"the given weights hold NaN or infinity in {name}; check where they come from")
        self._warn_of_long_warmup()
        self._save_at = time.monotonic() + self.save_every
        with Progress(self.shown, self.total_steps, self.steps) as self.progress, catch_signals() as stop:
            if directory is not None:
                if self._finished():
                    self._write_results()  # some may have been removed
                    self._draw()
                else:
                    directory.remove_result()
            while not self._finished():
                self._train_epoch(stop)
                self._finish_epoch()
        if self.ema is not None:
            self.ema.copy_to_model()
        if self.test is not None and directory is not None and not directory.has_result():
            directory.write_result(self._test())
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
            for images, labels in self.loader.epoch(self.epoch, self.batch):
                self.clock.waited += time.perf_counter() - ended
                self._train_batch(images, labels)
                if stop.signum is not None:
                    self._stop(stop.signum)
                if self.steps == self.total_steps:
                    return
                if self.directory is not None and time.monotonic() >= self._save_at:
                    self._save_state()
                ended = time.perf_counter()

    def _train_batch(self, images, labels):
        start = time.perf_counter()
        self.optimizer.lr = self.rate(self.steps)
        x, y = self.xp.asarray(images), self.xp.asarray(labels)
        try:
            targets = self.task.targets(x, y, self.threads)
            loss = self.step(x, targets)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {explain_non_finite(self.model, lambda: self.step.replay(x))}") from None
        if self.ema is not None:
            self.ema.update()
        self.sums.add(loss, self.task.score(self.step.logits, targets), len(labels))
        self.steps, self.batch = self.steps + 1, self.batch + 1
        self.clock.add(len(labels), time.perf_counter() - start)
        self._show(loss)

    def _finish_epoch(self):
        record = self._record(self._validate())
        self.records.append(record)
        self.clock = Clock()
        if self.batch == len(self.loader):
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
        if self.directory is not None:
            self._write_results()
            self._save_state()
            self._draw()
        self.progress.line(describe(record))

    def _validate(self):
        """-> the figures of the validation set, if there is one. Errors: NonFiniteError, before anything is saved."""
        if self.val is None:
            self._check_weights()
            return {}
        with self._saved_on_error(), self._averaged():
            scores = evaluate(self.model, self.val, threads=self.threads)
        if not np.isfinite(scores["loss"]):
            raise NonFiniteError(
                f"the validation loss after step {self.steps} is {scores['loss']}; this epoch was not saved; "
                f"{self._explain_validation()}"
            )
        return {"val_loss": scores["loss"], "val_accuracy": scores["accuracy"]}

    def _test(self):
        """-> the test figures of the last and of the best weights. The model keeps the last ones."""
        last, best = self.records[-1], best_record(self.records)
        scores = {"last": self._test_figures(last["epoch"])}
        if best is last:
            return {**scores, "best": scores["last"]}
        weights = self.model.state_dict()
        self.model.load_state_dict(load_checkpoint(self.directory.file("best.safetensors")))
        scores["best"] = self._test_figures(best["epoch"])
        self.model.load_state_dict(weights)
        return scores

    def _test_figures(self, epoch):
        scores = evaluate(self.model, self.test, threads=self.threads)
        return {name: scores[name] for name in ("loss", "accuracy", "top5_accuracy", "images")} | {"epoch": epoch}

    def _averaged(self):
        """While open, the model's weights are those that count: the average where one is kept."""
        return self.ema.applied() if self.ema is not None else contextlib.nullcontext()

    def _record(self, scores):
        return {
            "epoch": self.epoch + 1,
            **{f"train_{name}": value for name, value in self.sums.means(self.task).items()},
            **scores,
            "lr": self.rate(self.steps - 1),
            "seconds": self.clock.seconds,
            "images_per_second": self.clock.images_per_second,
            "loader_seconds": self.clock.waited,
        }

    def _explain_validation(self):
        images, _ = next(iter(Loader(self.val, 1, dtype=self.loader.dtype).epoch()))
        with self._averaged():
            return explain_non_finite(self.model, lambda: self.model(self.xp.asarray(images)))

    # -- files

    def _write_results(self):
        """What the weights after the last record are worth, and the weights themselves."""
        last = self.records[-1]
        measured = {"val_accuracy": last["val_accuracy"]} if "val_accuracy" in last else {}
        notes = {**self.notes, "epoch": last["epoch"], **measured}
        names = ["last.safetensors"] + (["best.safetensors"] if best_record(self.records) is last else [])
        with self._averaged():
            for name in names:
                save_checkpoint(self.directory.file(name), self.model, **notes)
        self.directory.write_metrics(self.records)

    def _draw(self):
        """The curves. Whatever goes wrong there, the run goes on."""
        from ..viz import draw_curves

        try:
            draw_curves(self.records, self.directory.file("curves.png"))
        except Exception as error:
            warnings.warn(f"curves.png was not drawn ({type(error).__name__}: {error})", stacklevel=2)

    def _save_state(self):
        """Write everything that continuing needs. Errors: NonFiniteError rather than weights that are not finite."""
        start = time.monotonic()
        self._check_weights()
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": array for name, array in self.ema.state_dict().items()}
        notes = {"epoch": self.epoch, "batch": self.batch, "records": self.records, "steps": self.steps}
        self.directory.save_state(tensors, {**notes, "sums": self.sums.values(), "clock": self.clock.values()})
        now = time.monotonic()
        self._save_at = now + max(self.save_every, 10 * (now - start))

    def _check_weights(self):
        if overflowed_parameter(self.model) is not None:
            raise NonFiniteError(f"after step {self.steps} {explain_non_finite(self.model)}")

    def _restore(self, state):
        """Go back to where a saved state was; None is the beginning."""
        if state is None:
            return
        tensors, notes = state
        part = lambda name: {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}  # noqa: E731
        self.model.load_state_dict(part("model."))
        self.optimizer.load_state_dict(part("optimizer."))
        if self.ema is not None:
            self.ema.load_state_dict(part("ema."))
        self.epoch, self.batch, self.records = notes["epoch"], notes["batch"], notes["records"]
        self.steps = self.step.steps = notes["steps"]
        self.sums, self.clock = Sums(*notes["sums"]), Clock(*notes["clock"])

    # -- the end before the end

    def _stop(self, signum):
        if self.directory is None:
            raise Interrupted(f"stopped after step {self.steps}; without a run directory nothing was saved", signum)
        self._save_state()
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
            if self.directory is not None:
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
        out = str(self.directory.path)
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
                f"{figures(self.sums.means(self.task))}, {clock.images_per_second:.0f} img/s, "
                f"waited {clock.waited:.1f} s",
            )


def _optimizer(model, settings, lr_scale):
    common = {"lr": settings.lr, "weight_decay": settings.weight_decay, "lr_scale": lr_scale}
    if settings.optimizer == "sgd":
        return SGD(model, momentum=settings.momentum, **common)
    return AdamW(model, **common)


def _schedule(settings, total_steps):
    lr, warmup = settings.lr, settings.warmup_steps
    if settings.schedule == "cosine":
        return cosine_schedule(lr, total_steps, warmup)
    if settings.schedule == "constant":
        return constant_schedule(lr, warmup)
    if settings.schedule == "step":
        return step_schedule(lr, max(1, int(total_steps * 0.6)), 0.1, warmup)
