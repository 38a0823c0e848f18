"""What a report says of a classifier: classes that are mixed up, calibration, mistakes, attention."""

import numpy as np

from ..backend import to_module
from ..core import Layer
from ..data import normalize
from ..data.loader import ImageSet
from ..metrics import confusion_matrix, precision_recall_f1, reliability
from ..training.evaluation import module_and_dtype
from ..viz import attention_overview
from .charts import Bar, Line, line_chart
from .thumbnails import SHARP, data_uri, image_name, thumbnail

TEMPLATE = "classification.html.j2"
SECTIONS = {"confusion": "Confusion", "classes": "Classes", "calibration": "Calibration"}
OF_IMAGES = {"mistakes": "Mistakes", "attention": "Attention"}
_SHOWN = 24  # images of a gallery
_CELLS = 30  # classes of the matrix
_PAIRS = 12  # of classes that are mixed up
_LOOKS = 6  # images whose attention is shown
_BINS = 15


def figures(said: dict, classes: list[str]) -> dict:
    """What follows from the predictions alone. said: see Classification.evaluate's per_image."""
    label, predicted, probability = said["label"], said["predicted"], said["probability"]
    confusion = confusion_matrix(label, predicted, len(classes))
    diagram = reliability(probability, label == predicted, _BINS)
    return {
        "confusion": _matrix(confusion, classes),
        "pairs": _pairs(confusion, classes),
        "calibration": {"error": diagram.error, "charts": _charts(diagram)},
        "per_class": _per_class(confusion, classes),
        "cards": [("Calibration error", f"{diagram.error:.2%}", "expected, of the best weights")],
    }


def images(said: dict, classes: list[str], dataset: ImageSet | None, model: Layer | None = None) -> dict:
    """What shows images. dataset: the test set. model: for attention; None leaves it out.

    Errors: ValueError where the set is not the one that the predictions are of.
    """
    if len(dataset) <= said["image"].max() or (dataset.targets(said["image"]) != said["label"]).any():
        raise ValueError("they are not those that the run was tested on")
    wrong, probability = said["label"] != said["predicted"], said["probability"]
    order = np.argsort(-probability, kind="stable")
    mistakes = order[wrong[order]][:_SHOWN]
    unsure = order[::-1][~np.isin(order[::-1], mistakes)][:_SHOWN]
    card = lambda i: _card(said, classes, dataset, i)  # noqa: E731
    shown = {"mistakes": [card(i) for i in mistakes], "unsure": [card(i) for i in unsure], "wrong": int(wrong.sum())}
    looked_at = []
    if getattr(model, "attention_layers", None):
        looked_at = np.concatenate([mistakes[: _LOOKS // 2], _sure(order[~wrong[order]], said["label"])])[:_LOOKS]
    return {**shown, "attention": [{**card(i), "maps": _maps(model, dataset, said["image"][i])} for i in looked_at]}


def _matrix(confusion, classes):
    """The table's rows, (name, images, [(count, percent of the row, right)]), of the classes most often mixed up."""
    mixed = confusion.sum(0) + confusion.sum(1) - 2 * np.diag(confusion)
    present = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    chosen = np.sort(present[np.argsort(-mixed[present], kind="stable")[:_CELLS]])
    totals = confusion.sum(1)
    rows = [
        (
            classes[i],
            int(totals[i]),
            [(int(confusion[i, j]), _percent(confusion[i, j], totals[i]), i == j) for j in chosen],
        )
        for i in chosen
    ]
    return {"names": [classes[i] for i in chosen], "rows": rows, "left_out": len(present) - len(chosen)}


def _percent(part, whole):
    return round(100 * float(part) / float(whole), 1) if whole else 0.0


def _pairs(confusion, classes):
    """[(class, what it was taken for, how often), …], the most frequent mistakes first."""
    off = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-off, axis=None, kind="stable")[:_PAIRS]
    places = [np.unravel_index(place, off.shape) for place in order]
    return [(classes[i], classes[j], int(off[i, j])) for i, j in places if off[i, j]]


def _per_class(confusion, classes):
    """A row for each class that occurs or is predicted, the lowest F1 first where there are many."""
    columns = zip(classes, *precision_recall_f1(confusion), confusion.sum(1), confusion.sum(0))
    rows = [row for row in columns if row[4] or row[5]]
    if len(rows) > _CELLS:
        rows.sort(key=lambda row: -1 if np.isnan(row[3]) else row[3])
    return [dict(zip(("name", "precision", "recall", "f1", "images"), map(_plain, row))) for row in rows]


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _charts(diagram):
    total = max(1, int(diagram.counts.sum()))
    bars, shares = [], []
    for low, high, count, accuracy, confidence in zip(
        diagram.edges, diagram.edges[1:], diagram.counts, diagram.accuracy, diagram.confidence
    ):
        if count:
            text = f"{count:,} images at {low:.0%} to {high:.0%}"
            bars.append(Bar(low, high, accuracy, f"{text}: {accuracy:.1%} right, {confidence:.1%} said"))
            shares.append(Bar(low, high, count / total, f"{text}, {count / total:.1%} of all"))
    ideal = Line("right as often as it says", [(0, 0), (1, 1)], color=1, dashed=True)
    shared = {"x_label": "probability of the answer", "share": True, "x_share": True, "x_range": (0, 1)}
    most = max((bar.top for bar in shares), default=1)
    return [
        line_chart("Right answers by probability", [ideal], y_range=(0, 1), bars=bars, **shared),
        line_chart("How sure the answers are", [], y_range=(0, most), bars=shares, **shared),
    ]


# ---- images ---------------------------------------------------------------------------------------------------------


def _card(said, classes, dataset, i):
    row = int(said["image"][i])
    return {
        "uri": thumbnail(dataset.batch(np.array([row]))[0]),
        "name": image_name(dataset, row),
        "true": classes[said["label"][i]],
        "predicted": classes[said["predicted"][i]],
        "right": bool(said["label"][i] == said["predicted"][i]),
        "small": max(dataset.image_shape[1:]) <= SHARP,
        "probability": float(said["probability"][i]),
        "true_probability": float(said["label_probability"][i]),
    }


def _sure(order, labels):
    """Of right answers, the surest first, one of each class and then the others."""
    _, first = np.unique(labels[order], return_index=True)
    first = np.sort(first)
    return np.concatenate([order[first], np.delete(order, first)])[:_LOOKS]


def _maps(model, dataset, row):
    pixels = dataset.batch(np.array([row]))[0]
    xp, dtype = module_and_dtype(model)
    image = to_module(normalize(pixels[None], dataset.mean, dataset.std, dtype), xp)
    return [(name, data_uri(drawn)) for name, drawn in attention_overview(model, image, pixels)]
