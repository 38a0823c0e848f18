"""Which query is to find which box: the pairs of least cost   (Carion et al. 2020, arXiv:2005.12872, §3.1).

Shapes: B images, Q queries, K classes, n boxes in an image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import functional as F
from ..backend import Array, to_host
from ..errors import InputError, NonFiniteError, ShapeError

Outputs = Mapping[str, Any]  # {"pred_logits": …, "pred_boxes": …} of a layer, and what stands beside them
Target = Mapping[str, Array]  # {"labels": (n,), "boxes": (n, 4)} of an image
Pairs = list[tuple[np.ndarray, np.ndarray]]  # (query indices, target indices) of each image
WEIGHTS = (1.0, 5.0, 2.0)  # of class, L1 and GIoU, in the cost as in the loss


def match(outputs: Outputs, targets: Sequence[Target], cost: tuple[float, float, float] = WEIGHTS) -> Pairs:
    """The one-to-one pairs of queries and boxes of least total cost, image by image   (eq. 1).

        C[q, j] = c₀ (−p_q[label_j]) + c₁ Σ |b_q − b_j| + c₂ (−GIoU(b_q, b_j)),   p = softmax(logits)

    outputs: {"pred_logits": (B, Q, K+1), "pred_boxes": (B, Q, 4)}, centers and sizes in 0..1.
    targets: one {"labels": (n,), "boxes": (n, 4)} an image; n may be 0, or above Q, where the costliest stay alone.
    Returns [(query indices, target indices), ...], queries in rising order.
    Errors: InputError and ShapeError for targets that do not fit; NonFiniteError for outputs that are not finite.
    """
    check_outputs(outputs)
    return match_checked(outputs, check_targets(outputs, targets), cost)


def match_layers(layers: Sequence[Outputs], targets: Sequence[Target], cost: tuple[float, float, float]) -> list[Pairs]:
    """The pairs of each of some layers, for targets that check_targets returned; costs are worked out at once."""
    outputs = {
        name: np.concatenate([to_host(layer[name]) for layer in layers]) for name in ("pred_logits", "pred_boxes")
    }
    pairs, count = match_checked(outputs, targets * len(layers), cost), len(targets)
    return [pairs[start : start + count] for start in range(0, len(pairs), count)]


def match_checked(outputs: Outputs, targets: Sequence[Target], cost: tuple[float, float, float]) -> Pairs:
    """match, for targets that check_targets returned. All costs are worked out at once, short lists padded."""
    from scipy.optimize import linear_sum_assignment

    counts = [len(target["labels"]) for target in targets]
    p, boxes = F.softmax(to_host(outputs["pred_logits"])), to_host(outputs["pred_boxes"])
    labels = np.zeros((len(targets), 1, max(counts)), np.intp)
    wanted = np.zeros((len(targets), 1, max(counts), 4), boxes.dtype)
    for i, (target, n) in enumerate(zip(targets, counts)):
        labels[i, 0, :n], wanted[i, 0, :n] = target["labels"], target["boxes"]
    found = boxes[:, :, None]
    costs = -cost[0] * np.take_along_axis(p, labels, axis=2)
    costs += cost[1] * np.abs(found - wanted).sum(-1)
    costs -= cost[2] * F.generalized_iou(F.box_cxcywh_to_xyxy(found), F.box_cxcywh_to_xyxy(wanted))
    return [linear_sum_assignment(costs[i, :, :n]) for i, n in enumerate(counts)]


def check_outputs(outputs: Outputs) -> None:
    """Errors: ShapeError where logits and boxes do not fit each other, NonFiniteError where they are not finite."""
    logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise ShapeError(
            f"pred_logits of shape {logits.shape} and pred_boxes of shape {boxes.shape} do not fit each other; "
            "expected (batch, queries, classes + 1) and (batch, queries, 4)"
        )
    for name, array in (("pred_logits", to_host(logits)), ("pred_boxes", to_host(boxes))):
        wrong = np.flatnonzero(~np.isfinite(array).all((1, 2)))
        if len(wrong):
            raise NonFiniteError(
                f"{name} of image {wrong[0]} of the batch hold NaN or infinity, so boxes cannot be matched; "
                "lower lr or clip the gradients"
            )


def check_targets(outputs: Outputs, targets: Sequence[Target]) -> list[dict[str, np.ndarray]]:
    """Targets as NumPy arrays. Errors: InputError or ShapeError naming the image whose labels or boxes do not fit."""
    images, _, classes = outputs["pred_logits"].shape
    if len(targets) != images:
        raise InputError(f"got {len(targets)} targets for a batch of {images} images; give one dict an image")
    return [_check_target(i, target, classes - 1) for i, target in enumerate(targets)]


def _check_target(i, target, classes):
    labels, boxes = np.asarray(to_host(target["labels"])), np.asarray(to_host(target["boxes"]))
    if not boxes.size:
        boxes = boxes.reshape(-1, 4)
    if labels.ndim != 1 or boxes.shape != (len(labels), 4):
        raise ShapeError(
            f"target {i}: labels of shape {labels.shape} and boxes of shape {boxes.shape} do not fit each other; "
            "expected (n,) and (n, 4)"
        )
    if len(labels) and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes):
        raise InputError(f"target {i}: labels must be integers in 0..{classes - 1}, got {labels.tolist()}")
    if not np.isfinite(boxes).all():
        raise InputError(f"target {i}: its boxes hold NaN or infinity; check how they were read and scaled")
    return {"labels": labels.astype(np.intp), "boxes": boxes}
