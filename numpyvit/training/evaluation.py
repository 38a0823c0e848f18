"""`evaluate`: how well a model does on a set, and whether the two belong together."""

import time
import warnings

import numpy as np

from .. import losses
from ..backend import array_module, to_host
from ..data.loader import Loader
from ..errors import ConfigError, InputError
from ..metrics import class_figures, label_ranks, top_k
from ..models import Model, class_names
from ..weights.adapt import Notice
from .class_names import match_classes
from .inference import infer


def evaluate(model, dataset, *, batch_size=256, threads=None, per_class=False):
    """Loss, top-1 and top-5 accuracy of a model on a set (see numpyvit.data).

    Where the model names its classes (in pretrained_cfg, as checkpoints do), the set's classes are found among them by
    name: it may hold some of them, in any order. Images of classes that the model does not have are left out, with a
    Notice. Where the model has no names, a label is the number of its output.

    Returns {"loss", "accuracy" and "top5_accuracy" in 0..1, "images", "left_out": names of classes, "seconds",
    "images_per_second"}; with per_class also "per_class", a list with a dict for each class of the set.
    Errors: ConfigError where the images have another shape, or no class of the set is one of the model's.
    """
    check_images(model, dataset)
    outputs, left_out = _outputs(model, dataset)
    dataset = _without(dataset, left_out)
    xp, dtype = home(model)
    start, loss, ranks, predicted = time.perf_counter(), 0.0, [], []
    for images, labels in Loader(dataset, batch_size, dtype=dtype).epoch():
        labels = outputs[labels]
        logits = to_host(infer(model, xp.asarray(images), threads))
        loss += float(losses.cross_entropy(logits, labels)[0]) * len(labels)
        ranks.append(label_ranks(logits, labels))
        predicted.append(logits.argmax(-1))
    seconds, count, ranks = time.perf_counter() - start, len(dataset), np.concatenate(ranks)
    scores = {
        "loss": loss / count,
        "accuracy": top_k(ranks, 1),
        "top5_accuracy": top_k(ranks, 5),
        "images": count,
        "left_out": [dataset.classes[label] for label in left_out],
        "seconds": seconds,
        "images_per_second": count / seconds,
    }
    if per_class:
        figures = class_figures(dataset.labels, ranks, np.concatenate(predicted))
        scores["per_class"] = _named(figures, dataset.classes, outputs, class_names(model))
    return scores


def _outputs(model, dataset):
    """-> the model's output for each class of the set (-1: none), and those labels in the set that have none."""
    if dataset.labels.max() >= len(dataset.classes):
        raise InputError(f"label {dataset.labels.max()} lies outside the {len(dataset.classes)} classes of the data")
    known = known_classes(model)
    if known is None:
        check_number_of_classes(model, dataset)
        return np.arange(len(dataset.classes)), []
    found = match_classes(known, dataset.classes)
    present = np.unique(dataset.labels)
    missing = [label for label in present if found[label] is None]
    if len(missing) == len(present):
        raise ConfigError(
            f"no class of the data ({_few(dataset.classes)}) is a class of the model ({_few(known)}); "
            "name the data's classes as the model does, or choose other data"
        )
    return np.array([-1 if output is None else output for output in found]), missing


def _without(dataset, left_out):
    """The set without the images that have one of these labels, with a Notice that says so."""
    if not left_out:
        return dataset
    kept = np.flatnonzero(~np.isin(dataset.labels, left_out))
    names = _few([dataset.classes[label] for label in left_out])
    warnings.warn(
        f"left out {len(dataset) - len(kept):,} of {len(dataset):,} images: the model has no class of the name {names}",
        Notice,
        stacklevel=3,
    )
    return dataset.take(kept)


def _named(figures, classes, outputs, names):
    """The figures of each label with its class's name in the data and in the model."""
    return [
        {
            "class": classes[label],
            "model_class": names[outputs[label]],
            **of_class,
            "mistaken_for": None if of_class["mistaken_for"] is None else names[of_class["mistaken_for"]],
        }
        for label, of_class in figures.items()
    ]


def _few(names):
    shown = ", ".join(map(str, names[:5]))
    return f"{shown}, … {len(names)} in all" if len(names) > 5 else shown


# ---- what a model and a set must have in common ---------------------------------------------------------------------


def known_classes(model):
    """The names of a model's classes where it has one for each output, else None."""
    names = getattr(model, "pretrained_cfg", {}).get("classes")
    return list(names) if names and len(names) == getattr(model, "num_classes", None) else None


def home(model):
    """The namespace and dtype of a model's parameters."""
    data = next(parameter.data for _, parameter in model.named_parameters())
    return array_module(data), data.dtype


def check_images(model, dataset):
    """Errors: ConfigError where the set is empty, or its images have another shape than the model takes."""
    if len(dataset) == 0:
        raise ConfigError("the data set is empty")
    if isinstance(model, Model) and not model.takes(dataset.image_shape):
        raise ConfigError(
            f"the data has images of shape {tuple(dataset.image_shape)}, the model takes {model.input_shape}; "
            f"create it with img_size={tuple(dataset.image_shape[1:])} and in_chans={dataset.image_shape[0]}"
        )


def check_number_of_classes(model, dataset):
    """Errors: ConfigError where the set has more classes than the model has outputs."""
    outputs = getattr(model, "num_classes", None)
    if outputs is not None and len(dataset.classes) > outputs:
        raise ConfigError(
            f"the data has {len(dataset.classes)} classes, the model {outputs} outputs; "
            f"create it with num_classes={len(dataset.classes)}"
        )
