"""The score of a detector, from what it found and what is true."""

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import InputError, ShapeError
from ..functional import box_cxcywh_to_xyxy, softmax
from .coco import Boxes, coco_curves, coco_figures

_OF_EACH_BOX = ("scores", "labels", "boxes", "area", "iscrowd")  # keys of predictions and targets that the score reads


def score_detections(predictions: Sequence[Mapping], targets: Sequence[Mapping]) -> dict[str, float | None]:
    """COCO's twelve figures: AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_100, AR_small, …

    predictions: [{"scores": (n,), "labels": (n,), "boxes": (n, 4)}, …], one dict an image, boxes left, top, right,
    bottom in pixels of the original image. targets: as of a detection set: {"labels": (m,), "boxes": (m, 4) center x,
    center y, width, height in 0..1, "size": (height, width) in pixels, and where known "area": (m,) in square pixels of
    the original image and "iscrowd": (m,)}.
    A figure is between 0 and 1, or None where there is nothing to find. Small is below 32², large above 96² pixels.
    With the extra `[detection]` installed faster-coco-eval computes them, to the same values.
    Errors: ShapeError or InputError for predictions of another form, or with values that are not finite.
    """
    found, true = _checked(predictions, targets)
    if importlib.util.find_spec("faster_coco_eval"):
        from .faster import faster_figures

        return faster_figures(found, true)
    return coco_figures([_by_class(*pair) for pair in zip(found, true)])


def score_by_class(predictions: Sequence[Mapping], targets: Sequence[Mapping]) -> dict[int, dict]:
    """{label: {"boxes": how many are to be found, "AP": …, and the other figures of score_detections}}.

    Of each label that occurs in the targets; boxes in crowds are not to be found.
    """
    figures = {}
    for label in sorted({label for target in targets for label in np.asarray(target["labels"]).tolist()}):
        own = [_only(label, target) for target in targets]
        boxes = sum(int((~np.asarray(t.get("iscrowd", np.zeros(len(t["labels"]))), bool)).sum()) for t in own)
        found = [_only(label, prediction) for prediction in predictions]
        figures[label] = {"boxes": boxes, **score_detections(found, own)}
    return figures


def precision_curves(predictions: Sequence[Mapping], targets: Sequence[Mapping]) -> dict[int, np.ndarray]:
    """{label: (10, 101) the precision at the recalls 0, .01, …, 1, boxes being right from an IoU of .50, .55, …, .95}.

    The precision at a recall is the highest at that or a higher one, 0 at those that are never reached. The mean of all
    is the label's AP, that of the first row its AP50. Of each label that has boxes to be found. Arguments and errors:
    as of score_detections.
    """
    classes, precision, _ = coco_curves([_by_class(*pair) for pair in zip(*_checked(predictions, targets))])
    return {label: curve for label, curve in zip(classes, precision[:, 0]) if curve[0, 0] > -1}


def flatten_detections(predictions: Sequence[Mapping], targets: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """{name: array} of what was found and what is true in all images, as a file of arrays can hold it.

    "scores", "labels" and "boxes" of all predictions, one after another, with "image", the number of the image of each;
    the same of the targets under "true_…", with "true_area" and "true_iscrowd"; "sizes" (N, 2) of the images.
    """
    found = {name: [prediction[name] for prediction in predictions] for name in ("scores", "labels", "boxes")}
    checked = [_true(target)[1] for target in targets]
    true = {name: [target[name] for target in targets] for name in ("labels", "boxes")}
    true |= {"area": [boxes.areas for boxes in checked], "iscrowd": [boxes.crowd for boxes in checked]}
    return {
        "image": _numbers(found["labels"]),
        **{name: np.concatenate(parts) for name, parts in found.items()},
        "true_image": _numbers(true["labels"]),
        **{f"true_{name}": np.concatenate(parts) for name, parts in true.items()},
        "sizes": np.array([target["size"] for target in targets]),
    }


def unflatten_detections(arrays: Mapping[str, np.ndarray]) -> tuple[list[dict], list[dict]]:
    """-> the predictions and targets that flatten_detections was given."""
    sizes = arrays["sizes"]
    found, true = (
        _split(arrays, prefix, names, len(sizes))
        for prefix, names in (("", ("scores", "labels", "boxes")), ("true_", ("labels", "boxes", "area", "iscrowd")))
    )
    return found, [{**target, "size": tuple(size)} for target, size in zip(true, sizes.tolist())]


def _numbers(parts):
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _split(arrays, prefix, names, count):
    ends = np.searchsorted(arrays[f"{prefix}image"], np.arange(1, count))
    parts = {name: np.split(arrays[f"{prefix}{name}"], ends) for name in names}
    return [{name: parts[name][i] for name in names} for i in range(count)]


def _checked(predictions, targets):
    """-> [(labels, Boxes), …] of what was found and of what is true, an entry an image."""
    if len(predictions) != len(targets):
        raise ShapeError(f"{len(predictions)} predictions for {len(targets)} targets, expected one an image")
    found = [_found(prediction, image) for image, prediction in enumerate(predictions)]
    return found, [_true(target) for target in targets]


def _only(label, image):
    """A prediction or a target with the boxes of one label."""
    chosen = np.asarray(image["labels"]) == label
    return image | {key: np.asarray(image[key])[chosen] for key in _OF_EACH_BOX if key in image}


def best_classes(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., K+1) -> labels and scores (...): the class of highest probability, "no object" (K) aside, and this."""
    p = softmax(logits)[..., :-1]
    return p.argmax(-1), p.max(-1)


def to_pixels(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (n, 4) center x, center y, width, height in 0..1 -> left, top, right, bottom in pixels, float64.

    size: (height, width) of the image.
    """
    return box_cxcywh_to_xyxy(np.asarray(boxes, np.float64).reshape(-1, 4)) * np.tile(size[::-1], 2)


def _found(prediction, image):
    """-> labels (n,), Boxes."""
    scores, labels, boxes = (np.asarray(prediction[key]) for key in ("scores", "labels", "boxes"))
    if scores.ndim != 1 or labels.shape != scores.shape or boxes.shape != (len(scores), 4):
        raise ShapeError(
            f"prediction {image} has scores {scores.shape}, labels {labels.shape} and boxes {boxes.shape}, "
            "expected (n,), (n,) and (n, 4)"
        )
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise InputError(f"prediction {image} has scores or boxes that are not finite; look at the model's outputs")
    places = _left_top_width_height(boxes.astype(np.float64))
    return labels, Boxes(places, places[:, 2] * places[:, 3], scores=scores.astype(np.float64))


def _true(target):
    """-> labels (m,), Boxes."""
    labels = np.asarray(target["labels"])
    places = _left_top_width_height(to_pixels(target["boxes"], target["size"]))
    areas = np.asarray(target.get("area", places[:, 2] * places[:, 3]), np.float64)
    crowd = np.asarray(target.get("iscrowd", np.zeros(len(labels))), bool)
    return labels, Boxes(places, areas, crowd=crowd)


def _left_top_width_height(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _by_class(found, true):
    """{class: (found Boxes, true Boxes)} of one image."""
    (found_labels, found), (true_labels, true) = found, true
    split = {}
    for label in np.union1d(found_labels, true_labels).tolist():
        f, t = found_labels == label, true_labels == label
        split[label] = (
            Boxes(found.places[f], found.areas[f], scores=found.scores[f]),
            Boxes(true.places[t], true.areas[t], crowd=true.crowd[t]),
        )
    return split
