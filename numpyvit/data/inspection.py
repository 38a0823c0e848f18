"""What a set of images holds, before anything is learned from it: classes, sizes, duplicates, broken files."""

import functools
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..backend import available_threads
from ..errors import DataError
from .annotated import check
from .class_folders import all_files
from .csv_files import is_csv
from .datasets import has_boxes, has_classes, load
from .detection_folder import readers
from .folder import labeled_parts
from .images import ADVICE, ENDINGS, Examined, examine, read_image
from .paths import shown
from .progress import counted
from .shapes import load_shapes


@dataclass(frozen=True)
class Seen:
    """An image that could be decoded.

    classes: its class, or those of its boxes. look: at its pixels. read(side): (C, H, W) uint8, no side longer than
    that. target: its boxes, see DetectionDataset.
    """

    part: str
    name: str
    classes: tuple[str, ...]
    look: Examined
    read: Callable[[int], np.ndarray]
    target: dict | None = None


@dataclass(frozen=True)
class Inspection:
    """classes: names, by label. broken: the images that cannot be used, each with what is wrong. left_out: boxes.

    others: how many files of each ending lie in the folder that are not taken for images.
    """

    classes: tuple[str, ...]
    images: list[Seen]
    broken: list[str]
    left_out: list[str] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict:
        """For JSON. "classes" holds how many images, or boxes where there are boxes; sizes are in pixels."""
        counts = {name: Counter() for name in self.classes}
        for image in self.images:
            for name in image.classes:
                counts[name][image.part] += 1
        sizes = np.array([image.look.size for image in self.images]).reshape(-1, 2)
        return {
            "images": len(self.images),
            "parts": dict(Counter(image.part for image in self.images)),
            "counted": "images" if all(image.target is None for image in self.images) else "boxes",
            "classes": {name: dict(of_class) for name, of_class in counts.items()},
            "height": _spread(sizes[:, 0]),
            "width": _spread(sizes[:, 1]),
            "formats": dict(Counter(image.look.format for image in self.images).most_common()),
            "modes": dict(Counter(image.look.mode for image in self.images).most_common()),
            "duplicates": self.duplicates(),
            "broken": self.broken,
            "left_out": self.left_out,
            "other_files": self.others,
        }

    def duplicates(self) -> list[dict]:
        """Groups of images with equal pixels, those first that lie in several parts or have several classes."""
        groups = defaultdict(list)
        for image in self.images:
            groups[image.look.digest].append(image)
        found = [
            {
                "images": [image.name for image in group],
                "parts": list(dict.fromkeys(image.part for image in group)),
                "classes": list(dict.fromkeys(name for image in group for name in image.classes)),
            }
            for group in groups.values()
            if len(group) > 1
        ]
        return sorted(found, key=lambda group: (-len(group["parts"]), -len(group["classes"])))

    def sample(self, most: int) -> list[Seen]:
        """Images from all over the set, class by class, as many of each as there is room for."""
        by_class = defaultdict(list)
        for image in self.images:
            by_class[image.classes[:1]].append(image)
        groups = _spaced([by_class[key] for key in sorted(by_class)], most)
        return [image for group in groups for image in _spaced(group, max(1, most // len(groups)))]


def inspect(name: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> Inspection:
    """Decode every image of a set that `load` knows, a folder or a CSV among them. Nothing is raised for broken files.

    Errors: DataError where there is no such set, or not a single image that is named in it.
    """
    if name == "shapes":
        return _inspect_arrays(load_shapes())
    if has_boxes(name):
        return _inspect_boxes(name)
    if has_classes(name):
        return _inspect_files(name)
    return _inspect_arrays(dict(zip(("train", "test"), load(name, data_dir))))


# ---- where images come from -----------------------------------------------------------------------------------------


def _inspect_files(name):
    parts = {part: reader() for part, reader in labeled_parts(name).items()}
    classes = tuple(dict.fromkeys(name for listed in parts.values() for name in listed.classes))
    files = [
        (part, path, (listed.classes[label],), True, None)
        for part, listed in parts.items()
        for path, label in zip(listed.paths, listed.labels)
    ]
    faults = dict.fromkeys(fault for listed in parts.values() for fault in listed.faults)
    others = {} if is_csv(name) else _other_files(name)
    return Inspection(classes, *_examined(files, faults), others=others)


def _other_files(folder):
    endings = Counter(path.suffix.lower() or "no ending" for path in all_files(folder) if path.is_file())
    return {ending: count for ending, count in endings.most_common() if ending not in ENDINGS}


def _inspect_boxes(name):
    found = readers(name)
    if "train" in found:
        found.pop("trainval", None)
    parts = {part: reader() for part, reader in found.items()}
    named = (name for annotated, _ in parts.values() for one in annotated for name in one.names)
    if not any(annotated or unreadable for annotated, unreadable in parts.values()):
        raise DataError(f"{name}: holds no annotations of boxes; choose another folder")
    classes, files, faults, left_out = tuple(sorted(set(filter(None, named)))), [], [], []
    for part, (annotated, unreadable) in parts.items():
        sound, unsound, dropped = check(annotated, classes)
        faults, left_out = [*faults, *unreadable, *unsound], [*left_out, *dropped]
        for one in sound:
            labels = tuple(classes[label] for label in one.target["labels"])
            files.append((part, one.path, labels, one.upright, one.target))
    return Inspection(classes, *_examined(files, faults), left_out)


def _examined(files, faults):
    """[Seen, …] of (part, path, classes, upright, target), and what is wrong with the other images."""
    seen, broken = [], list(faults)
    with ThreadPoolExecutor(available_threads()) as pool:
        looks = pool.map(_look, [path for _, path, *_ in files])
        for (part, path, classes, upright, target), look in zip(files, counted(looks, len(files), "decoding images")):
            if isinstance(look, str):
                broken.append(look)
            else:
                read = functools.partial(_read, path, target["size"] if target else look.size, upright)
                seen.append(Seen(part, shown(path), classes, look, read, target))
    return seen, broken


def _look(path):
    try:
        return examine(path)
    except DataError as error:
        return str(error).removesuffix(ADVICE)


def _read(path, size, upright, side):
    height, width = size
    frame = tuple(max(1, round(length * side / max(size))) for length in (height, width))
    return read_image(path, frame, 3, interpolation="squash", upright=upright)


def _inspect_arrays(sets):
    seen = []
    for part, dataset in sets.items():
        for i in counted(range(len(dataset)), len(dataset), f"{part} images"):
            pixels, classes, target = _array(dataset, i)
            look = Examined("array", "L" if len(pixels) == 1 else "RGB", pixels.shape[1:], _digest(pixels))
            seen.append(Seen(part, f"{part} {i}", classes, look, functools.partial(_as_it_is, pixels), target))
    return Inspection(tuple(map(str, dataset.classes)), seen, [])


def _array(dataset, i):
    """-> the pixels of an image in memory, its classes, its boxes."""
    (target,) = dataset.targets(np.array([i]))
    if dataset.kind == "detection":
        return dataset.batch(np.array([i]))[0][0], tuple(dataset.classes[label] for label in target["labels"]), target
    return dataset.batch(np.array([i]))[0], (str(dataset.classes[target]),), None


def _digest(pixels):
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def _as_it_is(pixels, side):
    return pixels


# ---- numbers --------------------------------------------------------------------------------------------------------


def _spread(values):
    if not len(values):
        return None
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _spaced(items: Sequence, most: int) -> list:
    """At most so many of the items, at equal distances."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
