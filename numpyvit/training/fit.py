"""`fit`: train a model on a set."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..backend import ALONE, Array, Group, check_alike
from ..core import Layer
from ..data.loader import ImageSet
from ..errors import ConfigError, Interrupted
from .augmentation import augmentation
from .divergence import explain_non_finite
from .evaluation import check_dataset, evaluate, from_pair
from .loop import Trainer
from .parts import hold_out
from .recipes import recipe
from .run_directory import open_run
from .settings import as_config, check_settings, free_on_resume, list_settings
from .task import Task, kind_of, task_for

__all__ = ["Interrupted", "evaluate", "explain_non_finite", "fit"]


def fit(
    model: Layer,
    train: ImageSet | tuple[Array, Array],
    val: ImageSet | tuple[Array, Array] | None,
    *,
    test: ImageSet | tuple[Array, Array] | None = None,
    task: Task | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    save_every: float = 10.0,
    threads: int | None = None,
    progress: bool = True,
    config: Mapping | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
    group: Group | None = None,
    accumulate: int = 1,
    **settings,
) -> list[dict]:
    """Train a model on a set (see numpyvit.data) and validate it after each epoch.

    train, val:     sets of numpyvit.data, or pairs of arrays (images, labels), see Dataset.from_arrays. The best
                    weights are chosen on val; None holds a part of the training set out for it, see val_fraction.
    test:           a set that is looked at once, after the last step, for result.json in `out`.
    task:           training.Distillation(teacher) or another training.Task; None follows from the set: for labels it
                    is Classification with the settings' label_smoothing.
    out:            run directory for checkpoints, metrics and curves; None writes nothing.
    resume:         go on from the state in `out`, bit for bit, as if it had never stopped.
    save_every:     seconds of training after which the state is saved within an epoch too; longer where saving would
                    take more than a tenth of the time.
    progress:       a bar on stderr where that is a terminal, a line an epoch on stdout.
    config:         further settings to note in config.json; on resume they must be the same.
    on_epoch:       a function that is called after each epoch with the list of records so far, on every rank.
    group:          the ranks that share the work, see training.connect; all call fit alike, and the weights do not
                    depend on how many there are. One of them writes files and shows progress.
    accumulate:     how many parts of a batch follow one another, so that memory holds one part's activations, see
                    TrainStep; the weights do not depend on it.
    {settings}

    A setting that is not given is what `numpyvit train` takes for the same set (see training.recipes): sets of
    numpyvit.data.load are known by their names; for others it follows from the number of images, and arrays are not
    augmented. The schedules "cosine" and "step" have an end, which a resumed run cannot move.
    Returns the list of records, one dict an epoch. The model ends with the weights that were validated last.
    Errors: ConfigError for an unknown setting; NonFiniteError with the step and the first layer whose output is not
    finite; Interrupted after Ctrl-C or SIGTERM; RunError where another process writes into `out`. Before an error goes
    on the state is saved.
    """
    check_settings(settings)
    group = group or ALONE
    threads = threads if group is ALONE else group.threads(threads)
    train = _dataset(train)
    val, test = (None if part is None else _dataset(part, like=train) for part in (val, test))
    if len(train) == 0:
        raise ConfigError("the data set is empty")
    if task is not None and not isinstance(task, Task):
        raise ConfigError(f"task must be a numpyvit.training.Task, such as Classification(), got {task!r:.80}")
    if task is not None and "label_smoothing" in settings:
        raise ConfigError("label_smoothing is a setting of the task where one is given; give it to the task alone")
    name, batch_size = getattr(train, "name", None), settings.get("batch_size")
    settings = replace(recipe(name, len(train), batch_size=batch_size, kind=kind_of(train)), **settings)
    task = task or task_for(train, settings)
    for dataset in (train, val, test):
        if dataset is not None:
            task.check(model, dataset)
    if val is None and settings.val_fraction:
        train, val = hold_out(train, settings.val_fraction, settings.seed)
    if settings.freeze:
        model.freeze(*settings.freeze)
    if not any(parameter.trainable for _, parameter in model.named_parameters()):
        raise ConfigError(
            f"every parameter is frozen (freeze={list(settings.freeze)}), so nothing would be trained; freeze less"
        )
    sets = {"training": train, "validation": val, "test": test}
    counts = {f"the number of {name} images": 0 if part is None else len(part) for name, part in sets.items()}
    check_alike(group, {**counts, **as_config(settings)}, "call fit alike on all ranks")
    config = config or {}
    notes = {"data": config["data"]} if "data" in config else {}
    augment = augmentation(settings.augment)
    trainer = Trainer(
        model, train, val, test, task, settings, augment, notes, threads, progress, save_every, on_epoch,
        group=group, accumulate=accumulate,
    )  # fmt: skip
    if out is None:
        return trainer.run()
    config = {**model.build_config, **as_config(settings), "task": task.config(), **config}
    held = open_run(out, config, resume, free_on_resume(settings)) if group.leads else contextlib.nullcontext()
    with held as directory:  # by the rank that leads, others have none
        return trainer.run(directory)


fit.__doc__ = fit.__doc__.replace("{settings}", list_settings("\n    "))


def _dataset(data, like=None):
    """A set as it is, or made from a pair of arrays, with the classes, mean and std of another set."""
    if not isinstance(data, tuple):
        check_dataset(data)
        return data
    shared = {} if like is None else {"classes": like.classes, "mean": like.mean, "std": like.std}
    return from_pair(data, **shared)
