"""Images with boxes as somebody's files describe them, checked and brought into the form of a set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..functional import box_xyxy_to_cxcywh
from .images import is_turned, look_at

_REASONS = ("has no four finite numbers as its box", "has no area", "lies outside the image")  # why one is left out


@dataclass
class Annotated:
    """What a file says about one image."""

    path: Path  # of the image
    where: str  # the file that says it, and where in it
    image_id: int | str
    size: tuple | None  # (height, width) in pixels, where stated
    names: list  # of classes, (n,)
    boxes: np.ndarray  # (n, 4) left, top, right, bottom in pixels; NaN where the file has no number
    more: dict = field(default_factory=dict)  # arrays (n,) for the target: "iscrowd", "difficult", "area" or NaN


@dataclass
class Checked:
    """An image that can be read, and its target."""

    path: Path
    upright: bool  # whether the boxes refer to the image as EXIF turns it
    target: dict


def check(
    annotated: Sequence[Annotated], classes: Sequence[str], decode: bool = False
) -> tuple[list[Checked], list[str], list[str]]:
    """-> [Checked, …], what is wrong with other images [str, …], the boxes that are left out [str, …].

    Boxes are clipped to the image. Left out are those without area, outside the image, and of other classes.
    Boxes refer to the pixels as they are stored, unless the stated size is that of the image set upright.
    decode: see images.look_at.
    """
    labels = {name: label for label, name in enumerate(classes)}
    sound, faults, dropped = [], [], []
    for one, look in zip(annotated, look_at([one.path for one in annotated], decode)):
        size, fault = (None, look) if isinstance(look, str) else _size(one, look)
        if fault:
            faults.append(fault)
            continue
        target, reasons = _target(one, size, labels)
        sound.append(Checked(one.path, size != look, target))
        dropped += [f"{one.where}: {reason}" for reason in reasons]
    return sound, faults, dropped


def _size(one, stored):
    """-> the (height, width) that boxes refer to, or None and what is wrong."""
    stated = one.size or stored
    if stated == stored:
        return stored, None
    if stated == stored[::-1] and is_turned(one.path):
        return stored[::-1], None
    return None, f"{one.where}: states {_pixels(stated)} for {one.path.name}, which has {_pixels(stored)}"


def _pixels(size):
    return f"{size[1]:g}×{size[0]:g} pixels"


def _target(one, size, labels):
    """-> the target of an image, and why boxes are left out: "box 3 has no area (5, 5, 5, 9)"."""
    height, width = size
    edges = np.array([width, height, width, height], float)
    boxes = np.clip(one.boxes, 0, edges)
    finite = np.isfinite(one.boxes).all(1)
    flat = ~(one.boxes[:, 2:] > one.boxes[:, :2]).all(1)
    outside = ~(boxes[:, 2:] > boxes[:, :2]).all(1)
    unknown = np.array([name not in labels for name in one.names], bool)
    reasons = []
    for i in np.flatnonzero(~finite | flat | outside | unknown):
        if unknown[i] and finite[i] and not flat[i]:
            reasons.append(f"box {i + 1} is of the unknown class {one.names[i]!r}")
            continue
        reason = _REASONS[0 if not finite[i] else 1 if flat[i] else 2]
        reasons.append(f"box {i + 1} {reason} ({', '.join(f'{value:g}' for value in one.boxes[i])})")
    kept = finite & ~outside & ~unknown
    boxes = boxes[kept]
    target = {
        "labels": np.array([labels[name] for name, keep in zip(one.names, kept) if keep], np.int64),
        "boxes": (box_xyxy_to_cxcywh(boxes) / edges).astype(np.float32),
        "image_id": one.image_id,
        "size": size,
    }
    target |= {name: values[kept] for name, values in one.more.items()}
    if "area" in target:
        target["area"] = np.where(target["area"] > 0, target["area"], (boxes[:, 2:] - boxes[:, :2]).prod(1))
    return target, reasons
