"""One class for each image."""

import time
import warnings
from collections.abc import Sequence

import numpy as np

from .. import losses
from ..backend import Array, to_host, to_module
from ..data.loader import Loader
from ..errors import ConfigError, InputError
from ..functional import softmax
from ..metrics import accuracy, class_figures, label_ranks, top_k
from ..models import class_names
from ..weights.adapt import Notice
from .class_names import match_classes
from .evaluation import check_images, check_number_of_classes, known_classes, module_and_dtype, over_batches
from .inference import infer
from .predictor import prepared
from .task import Task


class Classification(Task):
    """Cross-entropy with labels (B,), or with soft targets (B, K) as an augmentation may make them.

    label_smoothing: the share of each label that is spread over all classes. class_weights: (K,), a factor for each.
    """

    best = ("accuracy", True)
    curves = {"loss": ("loss",), "accuracy": ("accuracy",)}
    shares = ("accuracy", "top5_accuracy")
    results, columns, top = "classes", ("class", "index", "probability"), 5
    shares_evaluation = True
    per_image = True

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | Array | None = None):
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    @classmethod
    def from_settings(cls, settings):
        return cls(settings.label_smoothing)

    def config(self):
        weights = None if self.class_weights is None else np.asarray(self.class_weights, float).tolist()
        return {**super().config(), "label_smoothing": self.label_smoothing, "class_weights": weights}

    def check(self, model, dataset):
        check_images(model, dataset)
        check_number_of_classes(model, dataset)

    def loss(self, outputs, targets):
        return losses.cross_entropy(outputs, targets, self.label_smoothing, self.class_weights)

    def score(self, outputs, targets):
        return {"right": accuracy(outputs, targets).astype("float64") * len(targets)}

    def summary(self, sums, count):
        return {"accuracy": float(sums["right"]) / count}

    def evaluate(
        self,
        model,
        dataset,
        *,
        threads=None,
        batch_size=256,
        per_class=False,
        per_image=False,
        class_map=None,
        progress=False,
        group=None,
    ):
        """Loss (without label smoothing or class weights), top-1 and top-5 accuracy; see numpyvit.evaluate."""
        check_images(model, dataset)
        outputs, left_out = _outputs(model, dataset, class_map or {})
        rows, dataset = _without(dataset, left_out)
        xp, dtype = module_and_dtype(model)
        run = prepared(model, threads)

        def look(images, labels):
            labels = outputs[labels]
            logits = to_host(run(to_module(images, xp)))
            loss = float(losses.cross_entropy(logits, labels)[0]) * len(labels)
            said = _probabilities(logits, labels) if per_image else {}
            return loss, label_ranks(logits, labels), logits.argmax(-1), said

        start = time.perf_counter()
        loader = Loader(dataset, batch_size, dtype=dtype)
        loss, ranks, predicted, said = zip(*over_batches(look, loader, group, progress))
        seconds, count, ranks = time.perf_counter() - start, len(dataset), np.concatenate(ranks)
        scores = {
            "loss": sum(loss) / count,
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
        if per_image:
            scores["per_image"] = {
                "image": rows,
                "label": outputs[dataset.labels],
                "predicted": np.concatenate(predicted),
                **{name: np.concatenate([part[name] for part in said]) for name in said[0]},
            }
        return scores

    def read(self, model, path):
        return model.preprocessing.read(path, model.input_shape)

    def predict(self, model, images, *, threads=None, top=None, run=None):
        x = to_module(model.preprocessing.normalize(np.stack(images)), module_and_dtype(model)[0])
        logits = infer(model, x, threads) if run is None else run(x)
        names, probabilities = class_names(model), softmax(to_host(logits))
        return [
            [{"class": names[k], "index": k, "probability": float(p[k])} for k in np.argsort(-p)[:top].tolist()]
            for p in probabilities
        ]

    def show_result(self, result):
        return f"{result['probability']:7.2%}  {result['class']}"

    def report(self, model, figures):
        top5 = f", top-5 {figures['top5_accuracy']:.2%}" if model.num_classes > 5 else ""
        line = f"accuracy {figures['accuracy']:.2%}{top5}, loss {figures['loss']:.4f}"
        line += f" on {figures['images']:,} images, {figures['images_per_second']:.0f} img/s"
        return line + _table(figures["per_class"]) if "per_class" in figures else line


def _outputs(model, dataset, class_map):
    """-> the model's output for each class of the set (-1: none), and those labels in the set that have none."""
    if dataset.labels.max() >= len(dataset.classes):
        raise InputError(f"label {dataset.labels.max()} lies outside the {len(dataset.classes)} classes of the data")
    known = known_classes(model)
    if known is None:
        if class_map:
            raise ConfigError("a class map gives names, but the weights do not name their classes; leave it out")
        check_number_of_classes(model, dataset)
        return np.arange(len(dataset.classes)), []
    found = match_classes(known, [class_map.get(name, name) for name in dataset.classes])
    unknown = [class_map[name] for name, output in zip(dataset.classes, found) if output is None and name in class_map]
    if unknown:
        raise ConfigError(f"the class map names {_few(unknown)}, no class of the model ({_few(known)}); correct it")
    present = np.unique(dataset.labels)
    missing = [label for label in present if found[label] is None]
    if len(missing) == len(present):
        raise ConfigError(
            f"no class of the data ({_few(dataset.classes)}) is a class of the model ({_few(known)}); "
            "name the data's classes as the model does, or choose other data"
        )
    return np.array([-1 if output is None else output for output in found]), missing


def _without(dataset, left_out):
    """-> the rows of the images that have none of these labels, and the set of them, with a Notice that says so."""
    if not left_out:
        return np.arange(len(dataset)), dataset
    kept = np.flatnonzero(~np.isin(dataset.labels, left_out))
    names = _few([dataset.classes[label] for label in left_out])
    warnings.warn(
        f"left out {len(dataset) - len(kept):,} of {len(dataset):,} images: the model has no class of the name {names}",
        Notice,
        stacklevel=5,  # the caller of numpyvit.evaluate
    )
    return kept, dataset.take(kept)


def _probabilities(logits, labels):
    """{name: (B,)}: the probabilities of the predicted class and of the label's."""
    p = softmax(logits)
    return {"probability": p.max(-1), "label_probability": p[np.arange(len(labels)), labels]}


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


def _table(rows):
    """The figures of each class, a line each."""
    names = [
        f"{row['class']}" + (f" ({row['model_class']})" if row["model_class"] != row["class"] else "") for row in rows
    ]
    width = max(len("class"), *map(len, names))
    lines = [f"\n\n{'class':{width}}  images    top-1    top-5  most often mistaken for"]
    for name, row in zip(names, rows):
        figures = f"{row['images']:6,}  {row['accuracy']:7.2%}  {row['top5_accuracy']:7.2%}"
        lines.append(f"{name:{width}}  {figures}  {row['mistaken_for'] or ''}".rstrip())
    return "\n".join(lines)
