"""Folders of images with boxes, in the form of Pascal VOC or COCO."""

import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ConfigError, DataError
from .annotated import check
from .cache import CACHE_MB, ImageCache
from .coco import coco_parts, is_coco
from .detection import DetectionDataset
from .images import read_image
from .voc import is_voc, voc_parts

_NAMED = 20  # faults in a message
_LONGER = 5 / 3  # the longest that the longer side becomes, in shorter sides: DETR's 1333 for 800


def is_detection_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder has the form of Pascal VOC's or COCO's."""
    return is_voc(folder) or is_coco(folder)


def load_detection_folder(
    folder: str | os.PathLike,
    img_size: int | tuple[int, int] = 800,
    in_chans: int = 3,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> dict[str, DetectionDataset | None]:
    """{"train": set, "val": set or None, "test": set} of a folder in Pascal VOC's or COCO's form; see voc.py, coco.py.

    img_size: (height, width) that all images are resized to; or the length of the shorter side, where the longer one
    becomes at most 5/3 of it, as DETR resizes to 800 and 1333. classes: names, whose places are the labels; default the
    names in the training part, sorted. skip_bad: leave out with a warning what cannot be read. cache_mb: images of all
    parts are kept once they are decoded, while they fit into so many MiB.
    Where there is no test part the validation part is for the test, and without one every fifth image.
    Boxes are clipped to their image; those without area, outside it or of other classes are left out with a warning.
    Errors: DataError that lists all images that are missing, damaged or not as described.
    """
    found = readers(folder)
    train = found.get("train") or found.get("trainval") or found.get("all")
    if train is None:
        raise DataError(f"{folder}: holds no part to train on, but {', '.join(found)}; add train")
    val = found.get("val") if "train" in found else None
    test, val = (found["test"], val) if "test" in found else (val, None)
    parts = {name: reader() for name, reader in (("train", train), ("val", val), ("test", test)) if reader}
    if test is None:
        parts["train"], parts["test"] = _every_fifth(folder, parts["train"])
    classes = classes or _names(folder, parts["train"])
    return {"val": None} | _sets(folder, parts, classes, (img_size, in_chans), skip_bad, ImageCache(cache_mb))


def load_test_detection_folder(
    folder: str | os.PathLike,
    img_size: int | tuple[int, int] = 800,
    in_chans: int = 3,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> DetectionDataset:
    """A folder to evaluate on: its test part, else its validation part, else what load_detection_folder holds out of
    the training part; where there are no parts, the whole. Options and errors: as load_detection_folder's.
    """
    found = readers(folder)
    reader = found.get("test") or found.get("val") or found.get("all")
    if reader is None:
        options = {"classes": classes, "skip_bad": skip_bad, "cache_mb": cache_mb}
        return load_detection_folder(folder, img_size, in_chans, **options)["test"]
    training = found.get("train") or found.get("trainval") or reader
    part = reader()
    classes = classes or _names(folder, part if training is reader else training())
    return _sets(folder, {"test": part}, classes, (img_size, in_chans), skip_bad, ImageCache(cache_mb))["test"]


def readers(folder: str | os.PathLike) -> dict[str, Callable]:
    """{part: reader}, see voc_parts."""
    return voc_parts(folder) if is_voc(folder) else coco_parts(folder)


def _every_fifth(folder, part):
    annotated, faults = part
    if len(annotated) < 5:
        raise DataError(f"{folder}: holds fewer than five images and no part for the test; add images")
    test = annotated[4::5]
    return ([one for i, one in enumerate(annotated) if i % 5 != 4], faults), (test, [])


def _names(folder, part):
    names = sorted({name for one in part[0] for name in one.names if name})
    if not names:
        raise DataError(f"{folder}: holds no boxes to learn from{_listed(part[1])}")
    return names


def _sets(folder, parts, classes, reading, skip_bad, cache):
    """{part: DetectionDataset} from {part: ([Annotated, …], faults)}."""
    if isinstance(classes, str) or len(set(classes)) != len(classes):
        raise ConfigError(f"classes must be different names, got {classes!r}")
    checked = {part: check(annotated, classes, decode=skip_bad) for part, (annotated, _) in parts.items()}
    faults = [fault for part in parts for fault in parts[part][1] + checked[part][1]]
    sound = {part: found[0] for part, found in checked.items()}
    if faults and not skip_bad:
        raise DataError(
            f"{folder}: {len(faults)} images or annotations cannot be used{_listed(faults)}. "
            "Correct them, or leave them out with skip_bad=True (--skip-bad)"
        )
    for part, images in sound.items():
        if not images:
            raise DataError(f"{folder}: holds no images for {part}{_listed(faults)}")
    if faults:
        warnings.warn(f"left out {len(faults)} images or annotations{_listed(faults)}", stacklevel=4)
    dropped = [reason for _, _, reasons in checked.values() for reason in reasons]
    if dropped:
        total = sum(len(one.target["labels"]) for images in sound.values() for one in images) + len(dropped)
        warnings.warn(f"left out {len(dropped):,} of {total:,} boxes{_listed(dropped)}", stacklevel=4)
    half = (0.5,) * reading[1]
    sources = {part: _Files(images, *reading) for part, images in sound.items()}
    return {part: DetectionDataset(source, classes, half, half, cache=cache) for part, source in sources.items()}


def _listed(reasons):
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return f": {'; '.join(reasons[:_NAMED])}{more}" if reasons else ""


# ---- reading --------------------------------------------------------------------------------------------------------


class _Files:
    """Images that are read from files when they are asked for."""

    def __init__(self, checked, img_size, in_chans):
        self._checked, self._in_chans, self.img_size = checked, in_chans, img_size
        self.paths = [one.path for one in checked]
        self._sizes = [fitted_size(one.target["size"], img_size) for one in checked]
        self.image_shape = (in_chans, *map(max, zip(*self._sizes)))

    def __len__(self):
        return len(self._checked)

    def target(self, i):
        return self._checked[i].target

    def image(self, i):
        one = self._checked[i]
        return read_image(one.path, self._sizes[i], self._in_chans, interpolation="squash", upright=one.upright)


def fitted_size(size: tuple[int, int], img_size: int | tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that an image of (height, width) is resized to; see load_detection_folder."""
    if np.shape(img_size) not in ((), (2,)) or np.asarray(img_size).dtype.kind not in "iu" or np.min(img_size) < 1:
        raise ConfigError(f"img_size must be the shorter side or (height, width) in pixels, got {img_size!r}")
    if np.ndim(img_size):
        return tuple(img_size)
    shorter, longer, most = min(size), max(size), int(_LONGER * img_size)
    side = min(img_size, max(1, round(most * shorter / longer)))
    other = min(max(side, int(side * longer / shorter)), most)
    return (side, other) if size[0] <= size[1] else (other, side)
