"""Boxes and how far they overlap.

A box is (..., 4): its corners x₀, y₀, x₁, y₁, or its center and size cx, cy, w, h. Two arrays of boxes are compared
element by element with broadcasting, so iou(a[:, None], b) compares all pairs.
"""

from ..backend import Array, array_module

_LEAST_AREA = 1e-7  # what a smaller area counts as in a denominator: boxes without area give finite values


def box_cxcywh_to_xyxy(box: Array) -> Array:
    """(cx, cy, w, h) -> (cx − w/2, cy − h/2, cx + w/2, cy + h/2)."""
    center, half = box[..., :2], box[..., 2:] * 0.5
    return array_module(box).concatenate([center - half, center + half], axis=-1)


def box_cxcywh_to_xyxy_backward(dbox: Array) -> Array:
    """dc = d₀ + d₁,   dsize = (d₁ − d₀)/2, with d₀ and d₁ the gradients of the two corners."""
    low, high = dbox[..., :2], dbox[..., 2:]
    return array_module(dbox).concatenate([low + high, (high - low) * 0.5], axis=-1)


def box_xyxy_to_cxcywh(box: Array) -> Array:
    """(x₀, y₀, x₁, y₁) -> ((x₀ + x₁)/2, (y₀ + y₁)/2, x₁ − x₀, y₁ − y₀)."""
    low, high = box[..., :2], box[..., 2:]
    return array_module(box).concatenate([(low + high) * 0.5, high - low], axis=-1)


def iou(a: Array, b: Array) -> Array:
    """I / U, the area that two boxes share over the area that they cover; corners (..., 4) -> (...)."""
    intersection, union, _ = _areas(a, b)
    return intersection / array_module(a).maximum(union, _LEAST_AREA)


def generalized_iou(a: Array, b: Array) -> Array:
    """I/U − (C − U)/C, C the area of the smallest box around both   (Rezatofighi et al. 2019, arXiv:1902.09630).

    In −1..1: 1 for equal boxes, below 0 for boxes far apart, where IoU is 0 and has no gradient.
    a, b: corners (..., 4) -> (...). Areas below 1e-7 count as that in a denominator.
    """
    xp, (intersection, union, enclosing) = array_module(a), _areas(a, b)
    outside = (enclosing - union) / xp.maximum(enclosing, _LEAST_AREA)
    return intersection / xp.maximum(union, _LEAST_AREA) - outside


def generalized_iou_backward(dy: Array, a: Array, b: Array) -> Array:
    """da of generalized_iou, for a and b of one shape; symmetric, so db is generalized_iou_backward(dy, b, a).

        dI = dy/U,   dU = dy (1/C − I/U²),   dC = −dy U/C²,   and from U = A + B − I:   dI −= dU,   dA = dU.

    Each area is a product of two sides, side = max(high − low, 0), so   dhigh = darea · other side = −dlow.
    The corners of I are max(a₀, b₀) and min(a₁, b₁), those of C min(a₀, b₀) and max(a₁, b₁): the gradient goes to
    whichever was chosen, half to each of two equal ones. docs/giou.md derives it.
    """
    xp, (I, U, C) = array_module(a), _areas(a, b)
    U_, C_, dy = xp.maximum(U, _LEAST_AREA), xp.maximum(C, _LEAST_AREA), dy[..., None]
    U, C, I, U_, C_ = (area[..., None] for area in (U, C, I, U_, C_))
    dU = dy / C_ - dy * I / (U_ * U_) * (U >= _LEAST_AREA)
    dI = dy / U_ - dU
    dC = dy * (C - U) / (C_ * C_) * (C >= _LEAST_AREA) - dy / C_
    (a0, a1), (b0, b1) = _corners(a), _corners(b)
    dA, dI, dC = (
        darea * _sides(low, high)[..., ::-1] * (high >= low)
        for darea, low, high in (
            (dU, a0, a1),
            (dI, xp.maximum(a0, b0), xp.minimum(a1, b1)),
            (dC, xp.minimum(a0, b0), xp.maximum(a1, b1)),
        )
    )
    da0 = -dA - dI * _chosen(a0, b0) - dC * _chosen(b0, a0)
    da1 = dA + dI * _chosen(b1, a1) + dC * _chosen(a1, b1)
    return xp.concatenate([da0, da1], axis=-1)


def _areas(a, b):
    """-> I, U and C: what two boxes share, what they cover, and the smallest box around both."""
    xp, (a0, a1), (b0, b1) = array_module(a), _corners(a), _corners(b)
    intersection = _area(xp.maximum(a0, b0), xp.minimum(a1, b1))
    union = _area(a0, a1) + _area(b0, b1) - intersection
    return intersection, union, _area(xp.minimum(a0, b0), xp.maximum(a1, b1))


def _area(low, high):
    sides = _sides(low, high)
    return sides[..., 0] * sides[..., 1]


def _sides(low, high):
    return array_module(low).maximum(high - low, 0)


def _corners(box):
    return box[..., :2], box[..., 2:]


def _chosen(x, y):
    """The share of max(x, y) that is x: 1, 0, or a half of two equal numbers."""
    return ((x > y) + 0.5 * (x == y)).astype(x.dtype)
