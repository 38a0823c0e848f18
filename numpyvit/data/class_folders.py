"""Labeled image files as folders have them: a folder for each class."""

import functools
import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .images import ENDINGS
from .paths import is_folder, listing

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Listed:
    """Labeled image files of one part of a set; faults: what is wrong with others, beside what the files hold."""

    where: str
    classes: tuple[str, ...]
    paths: list[pathlib.Path]
    labels: np.ndarray
    faults: tuple[str, ...] = ()


def folder_parts(folder: str | os.PathLike) -> dict[str, Callable[[], Listed]]:
    """{"train": reader, …} of `folder/train/<class>/*`, val/ and test/; of a folder without these {"all": reader}."""
    folder = pathlib.Path(folder)
    found = {part: folder / part for part in PARTS if is_folder(folder / part)} or {"all": folder}
    return {part: functools.partial(read_classes, root) for part, root in found.items()}


def read_classes(root: pathlib.Path) -> Listed:
    """The images of `root/<class>/*`, sorted by class and path; hidden files are left out.

    A class may be a link to a folder elsewhere, but not to one that root lies in.
    Errors: DataError for a folder without images, or one that cannot be listed.
    """
    folders = [entry for entry in listing(root) if is_folder(entry.path) and not _is_around(entry, root)]
    found = {folder.name: image_files(folder.path) for folder in folders}
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        raise DataError(
            f"{root}: holds no images; expected {root}/<class>/*.png (or {', '.join(ENDINGS[1:4])}, …), "
            "one folder for each class"
        )
    labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found.values()])
    return Listed(str(root), tuple(found), [path for paths in found.values() for path in paths], labels)


def image_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The files in a folder and in the folders within that have an image's ending, sorted; see all_files."""
    return [path for path in all_files(folder) if path.suffix.lower() in ENDINGS]


def all_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The files in a folder and in the folders within, sorted. Hidden ones and links to folders are left out."""
    found, folders = [], [folder]
    while folders:
        for entry in listing(folders.pop()):
            (folders if entry.is_dir(follow_symlinks=False) else found).append(pathlib.Path(entry.path))
    return sorted(found)


def _is_around(entry, root):
    """Whether a link leads to a folder that it lies in itself."""
    return entry.is_symlink() and pathlib.Path(root).resolve().is_relative_to(pathlib.Path(entry.path).resolve())
