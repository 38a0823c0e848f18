"""Folders in Pascal VOC's form: JPEGImages/*, Annotations/*.xml, and lists of names in ImageSets/Main/*.txt.

Source: M. Everingham et al., The Pascal Visual Object Classes Challenge, 2010; as LabelImg and others write it. Numbers
are taken as they stand, as torchvision does.
"""

import functools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import DataError
from .annotated import Annotated
from .images import ENDINGS
from .paths import is_file, is_folder, listing, naming, open_file

_PARTS = ("train", "val", "trainval", "test")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST = 1 << 21  # bytes of an annotation: thousands of boxes; parsed it takes a hundred times as much


def is_voc(folder: str | Path) -> bool:
    return is_folder(Path(folder) / "Annotations") and is_folder(Path(folder) / "JPEGImages")


def voc_parts(folder: str | Path) -> dict[str, Callable]:
    """{"train": reader, …} for each list in ImageSets/Main; without lists {"all": reader}.

    reader() -> [Annotated, …], what is wrong with other images [str, …].
    """
    folder = Path(folder)
    lists = {part: folder / "ImageSets" / "Main" / f"{part}.txt" for part in _PARTS}
    names = {part: _listed(path) for part, path in lists.items() if is_file(path)}
    if not names:
        entries = listing(folder / "Annotations")
        names = {"all": [entry.name[:-4] for entry in entries if entry.name.lower().endswith(".xml")]}
    return {part: functools.partial(_read, folder, names[part]) for part in names}


def _listed(path):
    """The names in a list. A second column, as the lists of single classes have, says nothing here."""
    with open_file(path) as file, naming(path):
        lines = file.read().decode("utf-8", "replace").split("\n")
    return [line.split()[0] for line in lines if line.strip()]


def _read(folder, names):
    images, annotations = _by_stem(folder / "JPEGImages", ENDINGS), _by_stem(folder / "Annotations", (".xml",))
    sound, faults = [], []
    for name in names:
        try:
            if name not in annotations:  # nor can one lie outside the folder
                raise DataError(f"{folder / 'Annotations' / name}.xml: there is no such file")
            if name not in images:
                raise DataError(f"{folder / 'JPEGImages' / name}: there is no such image")
            sound.append(_read_one(name, images[name], annotations[name]))
        except DataError as error:
            faults.append(str(error))
    return sound, faults


def _by_stem(folder, endings):
    """{name without its ending: path} of the files in a folder."""
    paths = [Path(entry.path) for entry in listing(folder)]
    return {path.stem: path for path in paths if path.suffix.lower() in endings}


def _read_one(name, image, path):
    root = _parse(path)
    objects = root.findall("object")
    size = tuple(_number(root, f"size/{side}") for side in ("height", "width"))
    return Annotated(
        image,
        str(path),
        name,
        size if all(value >= 1 for value in size) else None,  # some programs write 0
        [" ".join(one.findtext("name", "").split()) for one in objects],
        np.array([[_number(one, f"bndbox/{corner}") for corner in _CORNERS] for one in objects]).reshape(-1, 4),
        {"difficult": np.array([_number(one, "difficult") == 1 for one in objects], bool)},
    )


class _WithoutDoctype(ET.TreeBuilder):
    """A document type may define entities that unpack to gigabytes. No annotation has one."""

    def doctype(self, name, pubid, system):
        raise ValueError("it declares a document type, which annotations do not have")


def _parse(path):
    with open_file(path) as file, naming(path):
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise DataError(f"{path}: is larger than {_LARGEST >> 20} MiB, which is not an annotation of one image")
    try:
        root = ET.fromstring(content, ET.XMLParser(target=_WithoutDoctype()))
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: is not XML that can be read ({error})") from None
    if root.tag != "annotation":
        raise DataError(f"{path}: begins with <{root.tag}>, expected <annotation>")
    return root


def _number(element, place):
    try:
        return float(element.findtext(place, "nan"))
    except ValueError:
        return float("nan")
