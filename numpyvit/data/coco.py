"""Folders in COCO's form: annotations.json beside its images, or annotations/instances_*.json as COCO publishes them.

Source: https://cocodataset.org/#format-data. Parts are the folders train/, val/ and test/ with an annotations.json
each, or instances_train2017.json, … with the images in train2017/, …
"""

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ..errors import DataError
from .annotated import Annotated
from .paths import is_file, is_folder, listing, naming, open_file

_FILES = ("annotations.json", "_annotations.coco.json")  # the second is Roboflow's
_PARTS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_OFFICIAL = "instances_"


def is_coco(folder: str | Path) -> bool:
    return bool(_found(Path(folder)))


def coco_parts(folder: str | Path) -> dict[str, Callable]:
    """{"train": reader, …} for each part, or {"all": reader}; readers as of voc_parts."""
    return {part: functools.partial(_read, *files) for part, files in _found(Path(folder)).items()}


def _found(folder):
    """{part: (annotations, folder of the images)}."""
    inner = {part: files for name, part in _PARTS.items() if (files := _beside(folder / name))}
    whole = _beside(folder)
    return inner or ({"all": whole} if whole else _official(folder))


def _beside(folder):
    return next(((folder / name, folder) for name in _FILES if is_file(folder / name)), None)


def _official(folder):
    """Of annotations/instances_train2017.json, …: the images lie in train2017/, images/train2017/ or images/."""
    if not is_folder(folder / "annotations"):
        return {}
    parts = {}
    for entry in listing(folder / "annotations"):
        if entry.name.startswith(_OFFICIAL) and entry.name.endswith(".json"):
            name = entry.name.removeprefix(_OFFICIAL).removesuffix(".json")
            places = [folder / name, folder / "images" / name, folder / "images"]
            images = next((place for place in places if is_folder(place)), places[0])
            part = next((part for start, part in _PARTS.items() if name.startswith(start)), "all")
            parts[part] = (Path(entry.path), images)
    return parts


def _read(path, folder):
    content = _parse(path)
    names = {_id(path, row): " ".join(str(row.get("name", "")).split()) for row in _rows(path, content, "categories")}
    boxes = defaultdict(list)  # of each image
    for row in _rows(path, content, "annotations"):
        boxes[_id(path, row, "image_id")].append(row)
    sound, faults = [], []
    for row in _rows(path, content, "images"):
        image_id = _id(path, row)
        image = _inside(folder, row.get("file_name"))
        if image is None:
            faults.append(f"{path}: image {image_id!r} has the file name {row.get('file_name')!r}, expected one inside")
        else:
            sound.append(_annotated(path, image, image_id, row, boxes.pop(image_id, []), names))
    faults += [f"{path}: {len(rows)} boxes of image {image!r}, which is not listed" for image, rows in boxes.items()]
    return sound, faults


def _annotated(path, image, image_id, row, boxes, names):
    size = tuple(_number(row.get(side)) for side in ("height", "width"))
    return Annotated(
        image,
        f"{path}, image {image_id!r}",
        image_id,
        size if all(value >= 1 for value in size) else None,
        [names.get(_id(path, box, "category_id"), "") for box in boxes],
        np.array([_corners(box.get("bbox")) for box in boxes]).reshape(-1, 4),
        {
            "area": np.array([_number(box.get("area")) for box in boxes]),
            "iscrowd": np.array([_number(box.get("iscrowd")) == 1 for box in boxes], bool),
        },
    )


# ---- what JSON may hold ---------------------------------------------------------------------------------------------


def _parse(path):
    with open_file(path) as file, naming(path):
        data = file.read()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON that can be read ({error}); write it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected an object with images and annotations")
    return content


def _rows(path, content, key):
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: has no list of objects under {key!r}, which COCO's form has")
    return rows


def _id(path, row, key="id"):
    value = row.get(key)
    if not isinstance(value, (int, str)):
        raise DataError(f"{path}: has {value!r} as {key!r} of {str(row)[:100]}, expected a number")
    return value


def _inside(folder, name):
    """The path of an image, or None where the name leads out of the folder."""
    if not isinstance(name, str) or not name or not name.isprintable():
        return None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        return None
    return folder / path


def _corners(box):
    """Left, top, right, bottom of COCO's left, top, width, height; NaN for what is not four numbers."""
    left, top, width, height = map(_number, box if isinstance(box, list) and len(box) == 4 else [None] * 4)
    return left, top, left + width, top + height


def _number(value):
    """A finite float, or NaN."""
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return value if math.isfinite(value) else math.nan
