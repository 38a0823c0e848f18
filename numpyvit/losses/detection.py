"""The set loss of DETR   (Carion et al. 2020, arXiv:2005.12872, §3.1): match queries with boxes, then compare.

Shapes: B images, Q queries, K classes, n boxes in an image.
"""

from collections.abc import Sequence

import numpy as np

from .. import functional as F
from ..backend import array_module, to_host, to_module
from .classification import cross_entropy
from .matching import WEIGHTS, Outputs, Pairs, Target, check_outputs, check_targets, match_layers


def detection(
    outputs: Outputs,
    targets: Sequence[Target],
    return_parts: bool = False,
    pairs: Pairs | None = None,
    *,
    weights: tuple[float, float, float] = WEIGHTS,
    cost: tuple[float, float, float] = WEIGHTS,
    no_object: float = 0.1,
) -> tuple:
    """L = Σ over decoder layers of   w₀ ce + w₁ bbox + w₂ giou, each layer with pairs of its own   (see layer_loss).

    outputs: {"pred_logits": (B, Q, K+1), "pred_boxes": (B, Q, 4)}, with "aux_outputs", a list of the same for each
             earlier layer. "groups", more queries of that kind, are matched by themselves, and the mean over groups is
             taken. "denoising" queries know which box is theirs (see denoising_queries).
    targets: one {"labels": (n,), "boxes": (n, 4)} an image; boxes are centers and sizes in 0..1.
    pairs:   as match returns them, to be used for every layer instead of the best ones.
    weights: w, of ce, bbox and giou; cost: of the same in the matching; no_object: weight of "no object" in ce.
    Returns the loss and its gradient, a dict as outputs; with return_parts also {"ce", "bbox", "giou", "ce_0", ...}:
    the terms before weighting of the last layer, of layer 0, …; of denoising queries "ce_dn", "ce_dn_0", ….
    Errors: InputError and ShapeError for targets that do not fit, NonFiniteError for outputs that are not finite.
    """
    targets = check_targets(outputs, targets)
    boxes = max(sum(len(target["labels"]) for target in targets), 1)
    groups = [outputs, *outputs.get("groups", ())]

    def matched(group):
        layers = _layers(group)
        for layer in layers:
            check_outputs(layer)
        chosen = match_layers(layers, targets, cost) if pairs is None else [pairs] * len(layers)
        share = 1 / len(groups)
        return _summed(layer_loss(*each, targets, boxes, weights, no_object, share) for each in zip(layers, chosen))

    (parts, gradient), *others = map(matched, groups)
    if others:
        parts = {name: sum((terms[name] for terms, _ in others), value) for name, value in parts.items()}
        gradient["groups"] = [dgroup for _, dgroup in others]
    if "denoising" in outputs:
        known = [(np.flatnonzero(index >= 0), index[index >= 0]) for index in to_host(outputs["denoising"]["targets"])]
        copies = max(sum(len(queries) for queries, _ in known), 1)
        denoised = (layer_loss(layer, known, targets, copies, weights, 0.0) for layer in _layers(outputs["denoising"]))
        terms, gradient["denoising"] = _summed(denoised, "_dn")
        parts |= terms
    weight = dict(zip(("ce", "bbox", "giou"), weights))
    loss = sum(weight[name.partition("_")[0]] * value for name, value in parts.items())
    return (loss, gradient, parts) if return_parts else (loss, gradient)


def layer_loss(
    layer: Outputs,
    pairs: Pairs,
    targets: Sequence[Target],
    boxes: int,
    weights: tuple[float, float, float] = WEIGHTS,
    no_object: float = 0.1,
    share: float = 1.0,
) -> tuple[dict, dict]:
    """The terms of one decoder layer, times `share`, and the weighted gradient by its logits and boxes.

        ce   = Σ_q v[c_q] (−log p_q[c_q]) / Σ_q v[c_q],   c_q the class of the query's box, or K for none,
               v[K] = no_object and v = 1 else
        bbox = Σ over pairs of |b − t| / boxes,             db = sign(b − t) / boxes
        giou = Σ over pairs of (1 − GIoU(b, t)) / boxes,    db = −dGIoU / boxes   (functional/boxes.py)

    pairs: [(query indices, target indices), ...] image by image; boxes: what their number counts as.
    """
    logits, all_boxes = layer["pred_logits"], layer["pred_boxes"]
    xp, (B, Q, classes) = array_module(logits), logits.shape
    image, query, label, t = _paired(pairs, targets, xp, all_boxes.dtype)

    of_query = xp.full((B, Q), classes - 1)
    of_query[image, query] = label
    v = np.ones(classes)
    v[-1] = no_object
    ce, dlogits = cross_entropy(logits.reshape(B * Q, classes), of_query.reshape(-1), weight=v)

    b = all_boxes[image, query]
    corners, wanted = F.box_cxcywh_to_xyxy(b), F.box_cxcywh_to_xyxy(t)
    bbox = xp.abs(b - t).sum() / boxes
    giou = (1 - F.generalized_iou(corners, wanted)).sum() / boxes
    dcorners = F.generalized_iou_backward(xp.full(len(b), -1 / boxes, dtype=b.dtype), corners, wanted)
    db = weights[1] / boxes * xp.sign(b - t) + weights[2] * F.box_cxcywh_to_xyxy_backward(dcorners)

    dboxes = xp.zeros_like(all_boxes)
    dboxes[image, query] = share * db
    terms = {"ce": share * ce, "bbox": share * bbox, "giou": share * giou}
    return terms, {"pred_logits": (share * weights[0]) * dlogits.reshape(B, Q, classes), "pred_boxes": dboxes}


def _paired(pairs, targets, xp, dtype):
    """The pairs of all images in four arrays: the image, the query, the target's label and its box."""
    images = np.repeat(np.arange(len(pairs)), [len(query) for query, _ in pairs])
    queries = np.concatenate([np.asarray(query, np.intp) for query, _ in pairs])
    labels = np.concatenate([target["labels"][index] for target, (_, index) in zip(targets, pairs)])
    boxes = np.concatenate([target["boxes"][index] for target, (_, index) in zip(targets, pairs)]).astype(dtype)
    return [to_module(array, xp) for array in (images, queries, labels, boxes)]


def _layers(outputs):
    """The outputs of the last layer, which the others come with, then those of layer 0, 1, …"""
    return [outputs, *outputs.get("aux_outputs", ())]


def _summed(losses, name=""):
    """What layer_loss gave of the last layer, of layer 0, 1, … -> {term with name and layer: value}, gradient."""
    (terms, gradient), *others = losses
    parts = {term + name: value for term, value in terms.items()}
    for i, (terms, _) in enumerate(others):
        parts |= {f"{term}{name}_{i}": value for term, value in terms.items()}
    return parts, gradient | ({"aux_outputs": [dlayer for _, dlayer in others]} if others else {})
