"""Training: `fit` on a set, and what happens when a run is interrupted, killed or diverges."""

import contextlib
import shlex
import signal
import threading
import time

import numpy as np

from . import losses
from .backend import array_module, on_host
from .core import Tape, observing
from .data.loader import Loader
from .errors import ConfigError, NonFiniteError, NumpyvitError
from .evaluation import check_images, check_number_of_classes, evaluate, home
from .io import save_checkpoint
from .optim import EMA, AdamW, constant_schedule, cosine_schedule, layer_decay, step_schedule
from .run_directory import FREE, RunDirectory
from .training.step import TrainStep

_READ_EVERY = 20  # steps between two looks at the loss on a device, where each look stalls it


class Interrupted(NumpyvitError):
    """Training was stopped by Ctrl-C after its state was saved."""


def fit(
    model,
    train,
    val,
    *,
    epochs=10,
    steps=None,
    batch_size=128,
    lr=1e-3,
    weight_decay=0.05,
    schedule="constant",
    warmup_steps=100,
    label_smoothing=0.0,
    clip_norm=1.0,
    ema_decay=None,
    freeze=(),
    layer_decay=None,
    augment=(),
    seed=0,
    out=None,
    resume=False,
    threads=None,
    progress=True,
    config=None,
):
    """Train a model with AdamW on a set (see numpyvit.data) and validate it after each epoch.

    epochs, steps:  stop after so many epochs, or updates if that comes first.
    schedule:       of the learning rate after a linear rise over `warmup_steps`: "constant"; or, with an end that a
                    resumed run cannot move, "cosine" to 0 over all updates or "step" (a tenth after 60% of them).
    ema_decay:      keep a moving average of the weights, which is what is validated and saved.
    freeze:         patterns of parameters that stay as they are, e.g. "blocks.*"; see Layer.freeze.
    layer_decay:    factor by which each block, from the last to the first, learns slower; see optim.layer_decay.
    augment:        functions (images, rng) -> images on uint8 pictures, as numpyvit.data.random_crop makes.
    out:            run directory for checkpoints, metrics and curves; None writes nothing.
    resume:         go on from the state in `out`, bit for bit, as if it had never stopped.
    config:         further settings to note in config.json; on resume they must be the same.
    Returns the list of records, one dict an epoch. The model ends with the weights that were validated last.
    Errors: NonFiniteError with the step and the first layer whose output is not finite; Interrupted after Ctrl-C.
    """
    settings = {
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "label_smoothing": label_smoothing,
        "clip_norm": clip_norm,
        "ema_decay": ema_decay,
        "seed": seed,
        "freeze": list(freeze),
        "layer_decay": layer_decay,
    }
    _check_settings(settings)
    for dataset in (train, val):
        check_images(model, dataset)
        check_number_of_classes(model, dataset)
    if freeze:
        model.freeze(*freeze)
    config = config or {}
    notes = {"data": config["data"]} if "data" in config else {}
    trainer = Trainer(model, train, val, settings, augment, notes, threads, progress)
    if out is not None:
        free = FREE if schedule == "constant" else tuple(key for key in FREE if key not in ("epochs", "steps"))
        recipe = getattr(model, "_recipe", {})
        trainer.directory = RunDirectory(out, {**recipe, **settings, **config}, resume, free)
        if resume:
            trainer.restore(trainer.directory.load_state())
    return trainer.run()


def _check_settings(settings):
    for name in ("epochs", "batch_size", "steps"):
        value = settings[name]
        if not (value is None and name == "steps") and not (isinstance(value, (int, np.integer)) and value >= 1):
            raise ConfigError(f"{name} must be an int of at least 1, got {value!r}")
    if not isinstance(settings["seed"], (int, np.integer)) or settings["seed"] < 0:
        raise ConfigError(f"seed must be a non-negative int, got {settings['seed']!r}")
    if not 0 <= settings["label_smoothing"] <= 1:
        raise ConfigError(f"label_smoothing must lie in 0..1, got {settings['label_smoothing']}")


class Trainer:
    """The state of one run and the loop over it."""

    def __init__(self, model, train, val, settings, augment, notes, threads, progress):
        self.model, self.val, self.settings = model, val, settings
        self.directory, self.threads, self.progress = None, threads, progress
        preparation = {"classes": list(train.classes), "mean": list(train.mean), "std": list(train.std)}
        preparation |= getattr(train, "reading", {})
        model.pretrained_cfg = {**getattr(model, "pretrained_cfg", {}), "crop_pct": 1.0, **preparation}
        self.notes = {**preparation, **notes}  # from which a file gives a model the same pretrained_cfg
        self.xp, dtype = home(model)
        self.loader = Loader(
            train, settings["batch_size"], shuffle=True, augment=augment, seed=settings["seed"], dtype=dtype
        )
        factors = layer_decay(model, settings["layer_decay"]) if settings["layer_decay"] else None
        self.optimizer = AdamW(model, lr=settings["lr"], weight_decay=settings["weight_decay"], lr_scale=factors)
        self.ema = EMA(model, settings["ema_decay"]) if settings["ema_decay"] else None
        smoothing = settings["label_smoothing"]
        self.step = TrainStep(
            model,
            self.optimizer,
            loss=lambda logits, targets: losses.cross_entropy(logits, targets, smoothing),
            threads=threads,
            seed=settings["seed"],
            clip_norm=settings["clip_norm"],
        )
        total = settings["epochs"] * len(self.loader)
        self.total_steps = min(total, settings["steps"] or total)
        self.rate = _schedule(settings, self.total_steps)
        self.epoch, self.batch, self.records = 0, 0, []
        self.sums = Sums()

    # -- the loop

    def run(self):
        with self._progress_bar() as bar, _catch_interrupt() as interrupted:
            while self.step.steps < self.total_steps or self._unfinished():
                self._train_epoch(bar, interrupted)
                self._finish_epoch(bar)
        if self.ema is not None:
            self.ema.copy_to_model()
        return self.records

    def _unfinished(self):
        """Whether the epoch's steps are done, but not its validation: it was interrupted in between."""
        return self.batch > 0 and not any(record["epoch"] == self.epoch + 1 for record in self.records)

    def _train_epoch(self, bar, interrupted):
        if self.step.steps == self.total_steps:
            return
        ended = time.perf_counter()
        for images, labels in self.loader.epoch(self.epoch, self.batch):
            start = time.perf_counter()
            self.sums.waited += start - ended
            self.optimizer.lr = self.rate(self.step.steps)
            x, y = self.xp.asarray(images), self.xp.asarray(labels)
            try:
                loss = self.step(x, y)
            except NonFiniteError as error:
                raise NonFiniteError(f"{error}; {explain_non_finite(self.model, x)}") from None
            if self.ema is not None:
                self.ema.update()
            self.sums.add(loss, losses.accuracy(self.step.logits, y), len(labels), time.perf_counter() - start)
            self.batch += 1
            self._show(bar, loss)
            if interrupted.is_set():
                self._stop()
            if self.step.steps == self.total_steps:
                return
            ended = time.perf_counter()

    def _finish_epoch(self, bar):
        with self.ema.applied() if self.ema is not None else contextlib.nullcontext():
            scores = evaluate(self.model, self.val, threads=self.threads)
            if not np.isfinite(scores["loss"]):
                why = explain_non_finite(self.model, self._one_picture())
                raise NonFiniteError(
                    f"the validation loss after step {self.step.steps} is {scores['loss']}; "
                    f"this epoch was not saved; {why}"
                )
            record = self._record(scores)
            # a run bounded by steps may have ended within this epoch before; what it found then is replaced
            self.records = [r for r in self.records if r["epoch"] != record["epoch"]] + [record]
            if self.directory is not None:
                self._save_results()
        if self.batch == len(self.loader):
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
        self._save_state()
        if bar is not None:
            bar.write(describe(record))

    def _record(self, scores):
        return {
            "epoch": self.epoch + 1,
            **self.sums.means("train_"),
            "val_loss": scores["loss"],
            "val_accuracy": scores["accuracy"],
            "lr": self.rate(self.step.steps - 1),
            "seconds": self.sums.seconds,
            "images_per_second": self.sums.count / self.sums.seconds,
            "loader_seconds": self.sums.waited,
        }

    def _one_picture(self):
        images, _ = next(iter(Loader(self.val, 1, dtype=self.loader.dtype).epoch()))
        return self.xp.asarray(images)

    # -- files

    def _save_results(self):
        records = self.records
        notes = {**self.notes, "epoch": records[-1]["epoch"], "val_accuracy": records[-1]["val_accuracy"]}
        if records[-1]["val_accuracy"] >= max(r["val_accuracy"] for r in records):
            save_checkpoint(self.directory.file("best.safetensors"), self.model, **notes)
        save_checkpoint(self.directory.file("last.safetensors"), self.model, **notes)
        self.directory.write_metrics(records)
        from .viz import draw_curves

        draw_curves(records, self.directory.file("curves.png"))

    def _save_state(self):
        if self.directory is None:
            return
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": array for name, array in self.ema.state_dict().items()}
        notes = {"epoch": self.epoch, "batch": self.batch, "records": self.records, "sums": self.sums.values()}
        self.directory.save_state(tensors, {**notes, "steps": self.step.steps})

    def restore(self, state):
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
        self.sums, self.step.steps = Sums(*notes["sums"]), notes["steps"]

    def _stop(self):
        if self.directory is None:
            raise Interrupted(f"stopped after step {self.step.steps}; without a run directory nothing was saved")
        self._save_state()
        out = str(self.directory.path)
        how = f"fit(…, out={out!r}, resume=True)"
        if "data" in self.notes:
            how = f"numpyvit train --resume --out {shlex.quote(out)}"
        raise Interrupted(
            f"stopped after step {self.step.steps} of {self.total_steps}; everything is saved. Go on with: {how}"
        )

    # -- what the user sees

    def _progress_bar(self):
        if not self.progress:
            return contextlib.nullcontext()
        from tqdm import tqdm

        return tqdm(total=self.total_steps, initial=self.step.steps, unit="step", smoothing=0.1, dynamic_ncols=True)

    def _show(self, bar, loss):
        if bar is None:
            return
        bar.update()
        if on_host(loss) or self.step.steps % _READ_EVERY == 0:
            shown = self.sums.means("")
            bar.set_description(f"epoch {self.epoch + 1}/{self.settings['epochs']}", refresh=False)
            rate = self.sums.count / self.sums.seconds
            bar.set_postfix_str(
                f"loss {shown['loss']:.3f}, acc {shown['accuracy']:.1%}, {rate:.0f} img/s, "
                f"waited {self.sums.waited:.1f} s",
                refresh=False,
            )


class Sums:
    """Loss and accuracy summed over the images of an epoch, on the device; and the seconds that its steps took and that
    they waited for batches."""

    def __init__(self, loss=0.0, right=0.0, count=0, seconds=0.0, waited=0.0):
        self.loss, self.right, self.count, self.seconds, self.waited = loss, right, count, seconds, waited

    def add(self, loss, accuracy, count, seconds):
        self.loss = self.loss + loss.astype("float64") * count
        self.right = self.right + accuracy.astype("float64") * count
        self.count += count
        self.seconds += seconds

    def values(self):
        return [float(self.loss), float(self.right), self.count, self.seconds, self.waited]

    def means(self, prefix):
        return {f"{prefix}loss": float(self.loss) / self.count, f"{prefix}accuracy": float(self.right) / self.count}


def describe(record):
    """One line about an epoch."""
    return (
        f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  accuracy {record['train_accuracy']:.2%}   "
        f"val loss {record['val_loss']:.4f}  accuracy {record['val_accuracy']:.2%}   "
        f"{record['images_per_second']:.0f} img/s, waited {record['loader_seconds']:.1f} s for data"
    )


def explain_non_finite(model, x):
    """Name the first parameter or layer output that is not finite, for the message of a diverged run."""
    for name, parameter in model.named_parameters():
        if not _finite(parameter.data):
            return f"the parameter {name} is not finite: the last update overflowed; lower lr or clip the gradients"
    found = []

    def look(name, layer, output):
        if not found and not all(map(_finite, output if isinstance(output, tuple) else (output,))):
            found.append(f"{name or 'the model'} ({type(layer).__name__})")

    with observing(model, look), np.errstate(all="ignore"):
        tape = Tape(model)
        model.forward(x, tape)
    if found:
        return f"the first layer whose output is not finite is {found[0]}; lower lr, clip the gradients, check the data"
    return "every layer's output is finite, so the loss itself overflowed; check the labels and the loss"


def _finite(array):
    return bool(array_module(array).isfinite(array).all())


def _schedule(settings, total_steps):
    lr, warmup = settings["lr"], settings["warmup_steps"]
    if settings["schedule"] == "cosine":
        return cosine_schedule(lr, total_steps, warmup)
    if settings["schedule"] == "constant":
        return constant_schedule(lr, warmup)
    if settings["schedule"] == "step":
        return step_schedule(lr, max(1, int(total_steps * 0.6)), 0.1, warmup)
    raise ConfigError(f"schedule must be 'cosine', 'constant' or 'step', got {settings['schedule']!r}")


@contextlib.contextmanager
def _catch_interrupt():
    """An event that Ctrl-C sets, so that a step is never cut in half; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handler(signum, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
