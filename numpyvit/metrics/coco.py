"""COCO's average precision and recall of boxes, in NumPy alone.

Source: T.-Y. Lin et al., Microsoft COCO, 2014, arXiv:1405.0312, and pycocotools' cocoeval.py, which defines the details
that the paper leaves open. Every figure equals pycocotools'.

1. Match, image by image and class by class: detections from the highest score down each take the true box of highest
   IoU that is still free, at each of ten thresholds .50, .55, …, .95.
2. Sort the detections of all images by score: precision and recall after each one.
3. AP is the mean, over classes and thresholds, of the precision at 101 recalls 0, .01, …, 1; AR the mean of the highest
   recall. Both are taken over all true boxes, and again over small, medium and large ones.

A true box that is not counted (a crowd, or one outside the range of sizes) may still be matched: then the detection is
not counted either. A crowd may be matched many times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# square pixels of the original image; both ends belong to the range
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
COUNTS = (1, 10, 100)  # detections of an image and class, the best first, that are looked at


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image and one class: left, top, width, height (n, 4) in pixels, and what belongs to each (n,)."""

    places: np.ndarray
    areas: np.ndarray
    scores: np.ndarray | None = None  # of found boxes
    crowd: np.ndarray | None = None  # of true boxes


@dataclass(frozen=True)
class Matches:
    """What became of the found boxes of one image and class, the best first."""

    scores: np.ndarray  # (D,)
    right: np.ndarray  # (A, T, D): matched with a true box
    ignored: np.ndarray  # (A, T, D): neither right nor wrong
    counted: np.ndarray  # (A,): true boxes that are to be found


def coco_figures(images: Sequence[Mapping[int, tuple[Boxes, Boxes]]]) -> dict[str, float | None]:
    """{"AP", "AP50", …: value, or None where no true box is counted} of [{class: (found, true)}, …], one dict an image.

    found, true: Boxes.
    """
    _, precision, recall = coco_curves(images)
    return summarize(precision, recall)


def coco_curves(images: Sequence[Mapping[int, tuple[Boxes, Boxes]]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """-> the K classes that occur, precision (K, A, T, 101) at 100 detections, and highest recall (K, A, T, M).

    -1 where no true box is counted. images: as of coco_figures.
    """
    classes = sorted({label for image in images for label in image})
    curves = [_curves([match(*image[label]) for image in images if label in image]) for label in classes]
    precision = np.array([c[0] for c in curves]).reshape(-1, len(AREAS), len(THRESHOLDS), len(RECALLS))
    recall = np.array([c[1] for c in curves]).reshape(-1, len(AREAS), len(THRESHOLDS), len(COUNTS))
    return classes, precision, recall


def summarize(precision: np.ndarray, recall: np.ndarray) -> dict[str, float | None]:
    """COCO's twelve figures: means over what is not -1. precision (K, A, T, 101), recall (K, A, T, M)."""
    figures = {
        "AP": _mean(precision[:, 0]),
        "AP50": _mean(precision[:, 0, 0]),
        "AP75": _mean(precision[:, 0, 5]),
    }
    figures |= {f"AP_{name}": _mean(precision[:, a]) for a, name in enumerate(AREAS) if name != "all"}
    figures |= {f"AR_{count}": _mean(recall[:, 0, :, m]) for m, count in enumerate(COUNTS)}
    figures |= {f"AR_{name}": _mean(recall[:, a, :, -1]) for a, name in enumerate(AREAS) if name != "all"}
    return figures


def _mean(values):
    values = values[values > -1]
    return float(values.mean()) if values.size else None


# ---- 1. matching ----------------------------------------------------------------------------------------------------


def box_iou(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(D, G) intersection over union of boxes (left, top, width, height).   I/(F + T − I);   I/F for a crowd."""
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum((found[:, :2] + found[:, 2:])[:, None], (true[:, :2] + true[:, 2:])[None])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    own, other = found[:, 2] * found[:, 3], true[:, 2] * true[:, 3]
    union = np.where(crowd, own[:, None], own[:, None] + other - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match(found: Boxes, true: Boxes) -> Matches:
    """Matches of found boxes with the true boxes of one image and class."""
    order = np.argsort(-found.scores, kind="stable")[: COUNTS[-1]]
    low, high = np.array(list(AREAS.values())).T[..., None]  # A, 1
    ignorable = true.crowd | (true.areas < low) | (true.areas > high)  # A, G
    outside = (found.areas[order] < low) | (found.areas[order] > high)  # A, D
    iou = box_iou(found.places[order], true.places, true.crowd)  # D, G
    right = np.zeros((len(AREAS), len(THRESHOLDS), len(order)), bool)
    ignored = np.zeros_like(right)
    free = np.ones((len(AREAS), len(THRESHOLDS), len(true.crowd)), bool)
    for d in np.flatnonzero((iou >= THRESHOLDS[0]).any(1)):
        possible = (iou[d] >= THRESHOLDS[:, None]) & free  # A, T, G
        counted = possible & ~ignorable[:, None]
        matched, on_counted = possible.any(-1), counted.any(-1)  # A, T
        possible = np.where(on_counted[..., None], counted, possible)  # one that is counted goes before all others
        best = _last_argmax(np.where(possible, iou[d], -1))
        a, t = np.nonzero(matched)
        free[a, t, best[a, t]] = true.crowd[best[a, t]]
        right[..., d], ignored[..., d] = on_counted, matched & ~on_counted
    ignored |= ~right & ~ignored & outside[:, None]
    return Matches(found.scores[order], right, ignored, (~ignorable).sum(1))


def _last_argmax(values):
    """Along the last axis; of equal values the last, as pycocotools has it."""
    return values.shape[-1] - 1 - values[..., ::-1].argmax(-1)


# ---- 2. precision and recall ----------------------------------------------------------------------------------------


def _curves(matches):
    """-> precision (A, T, 101) and highest recall (A, T, M) of one class over all images."""
    counted = sum(m.counted for m in matches)
    precision = np.full((len(AREAS), len(THRESHOLDS), len(RECALLS)), -1.0)
    recall = np.full((len(AREAS), len(THRESHOLDS), len(COUNTS)), -1.0)
    for place, count in enumerate(COUNTS):
        order = np.argsort(-np.concatenate([m.scores[:count] for m in matches]), kind="stable")
        right = np.concatenate([m.right[..., :count] for m in matches], axis=-1)[..., order]
        ignored = np.concatenate([m.ignored[..., :count] for m in matches], axis=-1)[..., order]
        hits, misses = right.cumsum(-1), (~right & ~ignored).cumsum(-1)  # A, T, detections
        for a in np.flatnonzero(counted):
            recall[a, :, place] = hits[a, :, -1] / counted[a] if len(order) else 0
            if count == COUNTS[-1]:
                precision[a] = [_at_recalls(*curve, counted[a]) for curve in zip(hits[a], misses[a])]
    return precision, recall


def _at_recalls(hits, misses, counted):
    """The precision at each of 101 recalls: the highest at that recall or a higher one, 0 at those never reached."""
    precision = hits / np.maximum(hits + misses, 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / counted, RECALLS, side="left")
    return np.append(highest, 0)[places]
