"""Sets of labeled image files, from folders with one for each class or from a CSV."""

import os
import pathlib
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import DataError
from .cache import CACHE_MB, ImageCache
from .class_folders import Listed, folder_parts
from .csv_files import csv_parts, is_csv
from .dataset import LabeledImages
from .images import find_broken
from .preprocessing import Preprocessing

_NAMED = 20  # broken files in a message


class FolderDataset(LabeledImages):
    """Images read from files when asked for, and kept while they fit into a cache.

    preprocessing: how they are read and normalized; default whole images, by ½ and ½. cache: default one of 512 MiB.
    Parts of the set, and the same set prepared otherwise, share it.
    """

    name = "folder"  # by which training chooses its settings

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        labels: np.ndarray,
        classes: Sequence[str],
        img_size: tuple[int, int],
        in_chans: int,
        preprocessing: Preprocessing | None = None,
        cache: ImageCache | None = None,
    ):
        self.paths, self.labels, self.classes = paths, np.asarray(labels, np.int64), classes
        self.image_shape = (in_chans, *img_size)
        self.preprocessing = (preprocessing or Preprocessing()).for_channels(in_chans)
        self.cache = cache or ImageCache()

    @property
    def mean(self) -> tuple[float, ...]:
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.preprocessing.std

    def prepared(self, preprocessing: Preprocessing) -> "FolderDataset":
        """The same set, its images read and normalized in another way."""
        in_chans, *img_size = self.image_shape
        return FolderDataset(self.paths, self.labels, self.classes, img_size, in_chans, preprocessing, self.cache)

    def take(self, indices: np.ndarray) -> "FolderDataset":
        """The same set with these images only."""
        in_chans, *img_size = self.image_shape
        paths = [self.paths[i] for i in indices]
        return FolderDataset(
            paths, self.labels[indices], self.classes, img_size, in_chans, self.preprocessing, self.cache
        )

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """(B, C, H, W) uint8."""
        keys = [(self.paths[i], self.image_shape, self.preprocessing) for i in indices]
        return np.stack(self.cache.get(keys, lambda key: self.preprocessing.read(key[0], self.image_shape)))

    def find_broken(self, decode: bool = False) -> dict[int, str]:
        """{index: what is wrong} of the images that cannot be read; decode: see images.look_at."""
        return find_broken(self.paths, decode)


def load_folder_parts(
    source: str | os.PathLike,
    img_size: tuple[int, int] = (224, 224),
    in_chans: int = 3,
    *,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> dict[str, FolderDataset | None]:
    """{"train": set, "val": set or None, "test": set} of a folder, see folder_parts, or of a CSV, see csv_parts.

    Where there is no test part the validation part is for the test, and without one every fifth image of each class.
    Each file is looked at before. cache_mb: images of all parts are kept once they are decoded, while they fit into so
    many MiB. Errors: DataError that lists all files that cannot be read; with skip_bad they are left out with a warning
    that lists them, after each was decoded once.
    """
    found = labeled_parts(source)
    train = found.get("train") or found.get("all")
    if train is None:
        raise DataError(f"{source}: holds no part to train on, only {', '.join(found)}; add train")
    parts = {"train": train(), **{part: found[part]() for part in ("val", "test") if part in found}}
    _check_classes(parts)
    sets = _sound(parts, img_size, in_chans, skip_bad, cache_mb)
    if len(sets) == 1:
        sets["train"], sets["test"] = _every_fifth(parts["train"].where, sets["train"])
    elif "test" not in sets:
        sets["test"] = sets.pop("val")
    return {"val": None} | sets


def load_folder(
    source: str | os.PathLike, img_size: tuple[int, int], in_chans: int, **options
) -> tuple[FolderDataset, FolderDataset]:
    """-> (training set, validation set if there is one, else test set). Options and errors: see load_folder_parts."""
    parts = load_folder_parts(source, img_size, in_chans, **options)
    return parts["train"], parts["val"] or parts["test"]


def load_test_folder(
    source: str | os.PathLike,
    img_size: tuple[int, int],
    in_chans: int,
    *,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> FolderDataset:
    """A folder or CSV to evaluate on, as it is: the whole of its validation part, else of its test part, else of it.

    Where there is a training part only, what load_folder_parts holds out of it. Options and errors: as its.
    """
    found = labeled_parts(source)
    part = next((part for part in ("val", "test", "all") if part in found), None)
    if part is None:
        return load_folder_parts(source, img_size, in_chans, skip_bad=skip_bad, cache_mb=cache_mb)["test"]
    return _sound({part: found[part]()}, img_size, in_chans, skip_bad, cache_mb)[part]


def labeled_parts(source: str | os.PathLike) -> dict[str, Callable[[], Listed]]:
    """{part: reader} of a folder, see folder_parts, or of a CSV, see csv_parts."""
    return csv_parts(source) if is_csv(source) else folder_parts(source)


def _check_classes(parts):
    """Errors: DataError where the part to validate on has other classes than that to train on."""
    train, other = parts["train"], parts.get("val", parts.get("test", parts["train"]))
    known = {train.classes[label] for label in np.unique(train.labels)}
    different = sorted(known ^ set(other.classes))
    if different:
        raise DataError(f"{other.where} and {train.where} hold different classes: {', '.join(different[:5])}")


def _every_fifth(where, whole):
    first = np.searchsorted(whole.labels, whole.labels)  # labels come sorted: where each one's class begins
    test = (np.arange(len(whole)) - first) % 5 == 4
    if not test.any():
        raise DataError(f"{where} holds fewer than five images a class and there is no val/ beside; add images")
    return whole.take(np.flatnonzero(~test)), whole.take(np.flatnonzero(test))


def _sound(parts, img_size, in_chans, skip_bad, cache_mb):
    """{part: FolderDataset} of the files that can be read."""
    cache = ImageCache(cache_mb)
    sets = {
        name: FolderDataset(part.paths, part.labels, part.classes, img_size, in_chans, cache=cache)
        for name, part in parts.items()
    }
    broken = {name: part.find_broken(decode=skip_bad) for name, part in sets.items()}
    lines = dict.fromkeys(fault for part in parts.values() for fault in part.faults)
    faults = [*lines, *(fault for found in broken.values() for fault in found.values())]
    if not faults:
        return sets
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    total = len(lines) + sum(map(len, sets.values()))
    listed = f"{len(faults)} of {total} images cannot be {'used' if lines else 'read'}: "
    listed += f"{'; '.join(faults[:_NAMED])}{more}"
    if not skip_bad:
        raise DataError(f"{listed}. Replace them, or leave them out with skip_bad=True (--skip-bad)")
    sound = {name: part.take([i for i in range(len(part)) if i not in broken[name]]) for name, part in sets.items()}
    if not all(map(len, sound.values())):
        raise DataError(f"{listed}, and no others are there")
    warnings.warn(f"left out: {listed}", stacklevel=4)
    return sound
