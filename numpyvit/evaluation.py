"""`evaluate`: how well a model does on a set, and whether the two belong together."""

import time

from . import losses
from .backend import array_module, to_host
from .data.loader import Loader
from .errors import ConfigError
from .inference import infer


def evaluate(model, dataset, *, batch_size=256, threads=None):
    """{"loss", "accuracy" in 0..1, "images", "seconds", "images_per_second"} of a model on a set."""
    check_images(model, dataset)
    check_number_of_classes(model, dataset)
    xp, dtype = home(model)
    start, loss, right = time.perf_counter(), 0.0, 0.0
    for images, labels in Loader(dataset, batch_size, dtype=dtype).epoch():
        logits = to_host(infer(model, xp.asarray(images), threads))
        loss += float(losses.cross_entropy(logits, labels)[0]) * len(labels)
        right += float(losses.accuracy(logits, labels)) * len(labels)
    seconds, count = time.perf_counter() - start, len(dataset)
    return {
        "loss": loss / count,
        "accuracy": right / count,
        "images": count,
        "seconds": seconds,
        "images_per_second": count / seconds,
    }


def home(model):
    """The namespace and dtype of a model's parameters."""
    data = next(parameter.data for _, parameter in model.named_parameters())
    return array_module(data), data.dtype


def check_images(model, dataset):
    """Errors: ConfigError where the set is empty, or its images have another shape than the model takes."""
    if len(dataset) == 0:
        raise ConfigError("the data set is empty")
    embed = getattr(model, "patch_embed", None)
    if embed is not None:
        expected = (embed.proj.weight.data.shape[1], *embed.img_size)
        if tuple(dataset.image_shape) != expected:
            raise ConfigError(
                f"the data has pictures of shape {tuple(dataset.image_shape)}, the model takes {expected}; "
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
