"""`evaluate`: how well a model does on a set, and whether the two belong together."""

from collections.abc import Callable
from types import ModuleType

import numpy as np

from ..backend import ALONE, Array, Group, array_module
from ..core import Layer
from ..data import Dataset
from ..data.loader import ImageSet, Loader
from ..data.progress import counted
from ..errors import ConfigError
from ..models import Model, class_names
from .task import Task, task_for


def evaluate(
    model: Layer,
    dataset: ImageSet | tuple[Array, Array],
    *,
    batch_size: int = 256,
    threads: int | None = None,
    task: Task | None = None,
    group: Group | None = None,
    **options,
) -> dict:
    """The figures of a model on a set (see numpyvit.data), as its task has them: always "loss".

    dataset: or a pair of arrays (images, labels), see Dataset.from_arrays; they are normalized as model.preprocessing
             says, and a label is the number of an output.
    task:    what the set is for; None: it follows from the set, as in `fit`.
    group:   the ranks that share the work, see backend.ranks; all call it alike, and each is given the figures.
    options: further ones of the task's evaluate; progress=True shows a bar on a terminal.

    Classification returns {"loss", "accuracy" and "top5_accuracy" in 0..1, "images", "left_out": names of classes,
    "seconds", "images_per_second"}; with per_class=True also "per_class", a list with a dict for each class of the set;
    with per_image=True also "per_image", arrays (N,): "image", the row in the set, "label" and "predicted" as outputs'
    numbers, "probability" of the predicted class, and "label_probability". Detection takes both too.
    Where the model names its classes (in pretrained_cfg, as checkpoints do), the set's classes are found among them by
    name: it may hold some of them, in any order; class_map={name in the set: name in the model} says which is meant
    where the names differ. Images of classes that the model does not have are left out, with a Notice. Where the model
    has no names, a label is the number of its output.
    Errors: ConfigError where the images have another shape, or no class of the set is one of the model's.
    """
    if isinstance(dataset, tuple):
        how = model.preprocessing
        dataset = from_pair(dataset, classes=class_names(model), mean=how.mean, std=how.std)
    check_dataset(dataset)
    task = task or task_for(dataset)
    return evaluate_task(task, model, dataset, group, threads=threads, batch_size=batch_size, **options)


def evaluate_task(task: Task, model: Layer, dataset: ImageSet, group: Group | None = None, **options) -> dict:
    """The task's figures. Where it cannot divide the work each rank does all of it."""
    if group is not None and group.size > 1:
        options["threads"] = group.threads(options.get("threads"))
        if task.shares_evaluation:
            options["group"] = group
    return task.evaluate(model, dataset, **options)


def over_batches(function: Callable, loader: Loader, group: Group | None = None, progress: bool = False) -> list:
    """[function(inputs, targets) of each batch], of which each rank works out some, on every rank.

    progress: with a bar on a terminal, of the leading rank's batches.
    """
    group = group or ALONE
    batches = loader.epoch(first=group.rank, every=group.size)
    own = len(range(group.rank, len(loader), group.size))
    batches = counted(batches, own, "evaluating batches", progress and group.leads)
    found = group.gather([function(*batch) for batch in batches])
    return [found[i % group.size][i // group.size] for i in range(len(loader))]


# ---- what a model and a set must have in common ---------------------------------------------------------------------


def check_dataset(dataset: ImageSet) -> None:
    """Errors: ConfigError for what is not a set of images."""
    if not callable(getattr(dataset, "batch", None)):
        raise ConfigError(
            f"expected a data set, such as numpyvit.data.load returns or numpyvit.data.Dataset.from_arrays makes from "
            f"arrays, got a {type(dataset).__name__}"
        )


def from_pair(data: tuple[Array, Array], **shared) -> Dataset:
    """A set from a pair of arrays (images, labels). shared: its classes, mean and std, where they are known."""
    if len(data) != 2:
        raise ConfigError(f"data is a set of numpyvit.data or a pair (images, labels), got {len(data)} arrays")
    return Dataset.from_arrays(*data, **shared)


def known_classes(model: Layer) -> list[str] | None:
    """The names of a model's classes where it has one for each output, else None."""
    names = getattr(model, "pretrained_cfg", {}).get("classes")
    return list(names) if names and len(names) == getattr(model, "num_classes", None) else None


def module_and_dtype(model: Layer) -> tuple[ModuleType, np.dtype]:
    """The namespace and dtype of a model's parameters."""
    data = next(parameter.data for _, parameter in model.named_parameters())
    return array_module(data), data.dtype


def check_images(model: Layer, dataset: ImageSet) -> None:
    """Errors: ConfigError where the set is empty, or its images have another shape than the model takes."""
    if len(dataset) == 0:
        raise ConfigError("the data set is empty")
    if isinstance(model, Model) and not model.takes(dataset.image_shape):
        raise ConfigError(
            f"the data has images of shape {tuple(dataset.image_shape)}, the model takes {model.input_shape}; "
            f"create it with img_size={tuple(dataset.image_shape[1:])} and in_chans={dataset.image_shape[0]}"
        )


def check_number_of_classes(model: Layer, dataset: ImageSet) -> None:
    """Errors: ConfigError where the set has more classes than the model has outputs."""
    outputs = getattr(model, "num_classes", None)
    if outputs is not None and len(dataset.classes) > outputs:
        raise ConfigError(
            f"the data has {len(dataset.classes)} classes, the model {outputs} outputs; "
            f"create it with num_classes={len(dataset.classes)}"
        )
