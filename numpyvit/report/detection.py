"""What a report says of a detector: precision over recall, average precision by class, images with their boxes."""

import numpy as np

from ..backend import to_module
from ..core import Layer
from ..data.loader import ImageSet
from ..metrics import precision_curves, unflatten_detections
from ..metrics.coco import RECALLS
from ..training.evaluation import module_and_dtype
from ..viz import query_overview, with_boxes
from .charts import Line, line_chart
from .thumbnails import data_uri, image_name

TEMPLATE = "detection.html.j2"
SECTIONS = {"precision": "Precision and recall"}
OF_IMAGES = {"boxes": "Boxes", "attention": "Attention"}
_LINES = 10  # classes whose curve is drawn
_FIRST, _WORST = 6, 6  # images that are shown
_SEARCHED = 300  # images among which the worst are looked for
_LOOKS = 4  # images of which is shown what the queries look at
_LEAST = 0.5  # the least score of a box that is drawn
_TILE = 320


def figures(said: dict, classes: list[str]) -> dict:
    """What follows from the predictions alone. said: see metrics.flatten_detections."""
    found, true = unflatten_detections(said)
    curves = precision_curves(found, true)
    counts = np.bincount(said["true_labels"][~said["true_iscrowd"]], minlength=len(classes))
    most = sorted(curves, key=lambda label: -counts[label])[:_LINES]
    lines = [
        Line(classes[label], list(zip(RECALLS.tolist(), curves[label][0].tolist())), color)
        for color, label in enumerate(sorted(most))
    ]
    rows = [
        {"name": classes[label], "boxes": int(counts[label]), "AP": c.mean(), "AP50": c[0].mean(), "AP75": c[5].mean()}
        for label, c in curves.items()
    ]
    span = {"x_range": (0, 1), "y_range": (0, 1), "share": True, "x_share": True}
    return {
        "curves": line_chart("Precision over recall", lines, x_label="recall", **span),
        "left_out": len(curves) - len(lines),
        "per_class": rows,
        "cards": [],
    }


def images(said: dict, classes: list[str], dataset: ImageSet | None, model: Layer | None = None) -> dict:
    """What shows images. dataset: the test set. model: for what its queries look at; None leaves it out.

    Errors: ValueError where the set is not the one of the predictions.
    """
    found, true = unflatten_detections(said)
    if len(dataset) != len(true) or not _same(dataset.targets(np.arange(min(_SEARCHED, len(true)))), true):
        raise ValueError("they are not those that the run was tested on")
    first = list(range(min(_FIRST, len(true))))
    worst = [i for i in _by_precision(found, true) if i not in first][:_WORST]
    draw = lambda i: _card(classes, dataset, found[i], true[i], i)  # noqa: E731
    looked_at = []
    if getattr(model, "cross_attention_layers", None):
        looked_at = [*worst[: _LOOKS // 2], *first][:_LOOKS]
    return {
        "boxes": [draw(i) for i in first],
        "worst": [draw(i) for i in worst],
        "searched": min(_SEARCHED, len(true)),
        "attention": [{"name": image_name(dataset, i), "maps": _maps(model, dataset, classes, i)} for i in looked_at],
    }


def _same(targets, true):
    return all(np.array_equal(a["labels"], b["labels"]) for a, b in zip(targets, true))


def _by_precision(found, true):
    """Images by their own AP50, the lowest first; those without boxes have none."""
    scores = {}
    for i in range(min(_SEARCHED, len(true))):
        curves = precision_curves([found[i]], [true[i]])
        if curves:
            scores[i] = np.mean([curve[0].mean() for curve in curves.values()])
    return sorted(scores, key=scores.get)


def _card(classes, dataset, found, true, row):
    drawn = with_boxes(_batch(dataset, row)[0][0], classes, found, true, true["size"], _LEAST, _TILE)
    names = [
        f"{classes[label]} {score:.0%}" for label, score in zip(found["labels"], found["scores"]) if score >= _LEAST
    ]
    return {
        "uri": data_uri(drawn),
        "size": drawn.size,
        "name": image_name(dataset, row),
        "found": names,
        "true": [classes[label] for label in true["labels"]],
    }


def _maps(model, dataset, classes, row):
    """[(name, data URI), …]: the image, and what the query of each box that was found looks at."""
    batch = _batch(dataset, row)
    xp, dtype = module_and_dtype(model)
    image = to_module(dataset.prepare(batch, dtype)[0], xp)
    return [(name, data_uri(drawn)) for name, drawn in query_overview(model, image, batch[0][0], classes)]


def _batch(dataset, row):
    """One image and its mask as a batch, which has no padding."""
    return dataset.batch(np.array([row]))
