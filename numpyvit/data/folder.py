"""Folders of images, with one folder for each class."""

import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .dataset import LabeledImages
from .images import ENDINGS, find_broken
from .paths import is_folder, listing, naming
from .preprocessing import Preprocessing

_CACHE_BYTES = 1 << 29
_NAMED = 20  # broken files in a message


class FolderDataset(LabeledImages):
    """Images read from files when asked for, and kept while they fit into 512 MiB.

    preprocessing: how they are read and normalized; default whole images, by ½ and ½.
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
    ):
        self.paths, self.labels, self.classes = paths, np.asarray(labels, np.int64), classes
        self.image_shape = (in_chans, *img_size)
        self.preprocessing = (preprocessing or Preprocessing()).for_channels(in_chans)
        self._cache = {}

    @property
    def mean(self) -> tuple[float, ...]:
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.preprocessing.std

    def prepared(self, preprocessing: Preprocessing) -> "FolderDataset":
        """The same set, its images read and normalized in another way."""
        in_chans, *img_size = self.image_shape
        return FolderDataset(self.paths, self.labels, self.classes, img_size, in_chans, preprocessing)

    def take(self, indices: np.ndarray) -> "FolderDataset":
        """The same set with these images only."""
        in_chans, *img_size = self.image_shape
        paths = [self.paths[i] for i in indices]
        return FolderDataset(paths, self.labels[indices], self.classes, img_size, in_chans, self.preprocessing)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """(B, C, H, W) uint8."""
        return np.stack([self._image(int(i)) for i in indices])

    def _image(self, i):
        if i in self._cache:
            return self._cache[i]
        image = self.preprocessing.read(self.paths[i], self.image_shape)
        if (len(self._cache) + 1) * image.nbytes <= _CACHE_BYTES:
            self._cache[i] = image
        return image

    def find_broken(self) -> dict[int, str]:
        """{index: what is wrong} of the images that cannot be read, by a look at each file; see images.find_broken."""
        return find_broken(self.paths)


def load_folder(
    folder: str | os.PathLike, img_size: tuple[int, int], in_chans: int, *, skip_bad: bool = False
) -> tuple[FolderDataset, FolderDataset]:
    """-> (training set, test set) of `folder/train/<class>/*` and `folder/val/<class>/*` (or test/).

    Without val/ or test/, every fifth image of each class is held out; without train/, the classes are looked for
    in the folder itself. Each file is looked at before. Errors: DataError that lists all that cannot be read; with
    skip_bad they are left out with a warning that lists them.
    """
    folder = pathlib.Path(folder)
    root = folder / "train" if is_folder(folder / "train") else folder
    train, held_out = _read_classes(root, img_size, in_chans), _held_out(folder)
    if held_out is not None:
        test = _read_classes(held_out, img_size, in_chans)
        if test.classes != train.classes:
            different = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(f"{held_out} and {root} hold different classes: {', '.join(different[:5])}")
        return tuple(_sound([train, test], skip_bad))
    (whole,) = _sound([train], skip_bad)
    first = np.searchsorted(whole.labels, whole.labels)  # labels come sorted: where each one's class begins
    test = (np.arange(len(whole)) - first) % 5 == 4
    if not test.any():
        raise DataError(f"{root} holds fewer than five images a class and there is no val/ beside; add images")
    return whole.take(np.flatnonzero(~test)), whole.take(np.flatnonzero(test))


def load_test_folder(
    folder: str | os.PathLike, img_size: tuple[int, int], in_chans: int, *, skip_bad: bool = False
) -> FolderDataset:
    """A folder to evaluate on, as it is: the whole of its val/ (or test/), else of its own class folders.

    Where there is a train/ but no val/ or test/, what load_folder holds out of train/. Errors: as load_folder's.
    """
    folder = pathlib.Path(folder)
    held_out = _held_out(folder)
    if held_out is None and is_folder(folder / "train"):
        return load_folder(folder, img_size, in_chans, skip_bad=skip_bad)[1]
    (test,) = _sound([_read_classes(held_out or folder, img_size, in_chans)], skip_bad)
    return test


def find_classes(root: pathlib.Path) -> tuple[tuple[str, ...], list[pathlib.Path], np.ndarray]:
    """-> (class names, paths, labels) of `root/<class>/*`, sorted by class and path; hidden files are left out.

    Errors: DataError for a folder without images, or one that cannot be listed.
    """
    with naming(root):
        folders = [entry for entry in listing(root) if entry.is_dir()]
    found = {folder.name: image_files(folder.path) for folder in folders}
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        raise DataError(
            f"{root}: holds no images; expected {root}/<class>/*.png (or {', '.join(ENDINGS[1:4])}, …), "
            "one folder for each class"
        )
    labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found.values()])
    return tuple(found), [path for paths in found.values() for path in paths], labels


def image_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The image files in a folder and in the folders within, links to folders left out."""
    found, folders = [], [folder]
    while folders:
        for entry in listing(folders.pop()):
            path = pathlib.Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif path.suffix.lower() in ENDINGS:
                found.append(path)
    return sorted(found)


def _held_out(folder):
    return next((folder / part for part in ("val", "test") if is_folder(folder / part)), None)


def _read_classes(root, img_size, in_chans):
    classes, paths, labels = find_classes(root)
    return FolderDataset(paths, labels, classes, img_size, in_chans)


def _sound(parts, skip_bad):
    """The same sets without the files that cannot be read."""
    broken = [part.find_broken() for part in parts]
    faults = [fault for found in broken for fault in found.values()]
    if not faults:
        return parts
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    listed = f"{len(faults)} of {sum(map(len, parts))} images cannot be read: {'; '.join(faults[:_NAMED])}{more}"
    if not skip_bad:
        raise DataError(f"{listed}. Replace them, or leave them out with skip_bad=True (--skip-bad)")
    sound = [part.take([i for i in range(len(part)) if i not in found]) for part, found in zip(parts, broken)]
    if not all(map(len, sound)):
        raise DataError(f"{listed}, and no others are there")
    warnings.warn(f"left out: {listed}", stacklevel=4)
    return sound
