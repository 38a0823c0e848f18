"""Labeled image files as a CSV has them: a line `path,label` or `path,label,split` for each image."""

import csv
import functools
import io
import os
import pathlib
from collections.abc import Callable

import numpy as np

from ..errors import DataError
from .class_folders import Listed
from .paths import naming, open_file

_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def is_csv(name: str | os.PathLike) -> bool:
    return str(name).lower().endswith(".csv")


def csv_parts(path: str | os.PathLike) -> dict[str, Callable[[], Listed]]:
    """{"train": reader, …} for each split that occurs; of a file without the column {"all": reader}.

    The first line names the columns: path and label, maybe split (train, val or test); others are passed over. A path
    is taken from the folder of the CSV. Classes are the labels of all lines, sorted, as numbers where all are.
    What is wrong with a line is among the faults. Errors: DataError for a file that is not such a CSV.
    """
    path = pathlib.Path(path)
    lines, faults = [], []
    for number, row in read_csv(path, ("path", "label")):
        fault = _fault(row)
        if fault:
            faults.append(f"{path}, line {number}: {fault}")
        else:
            lines.append((number, path.parent / row["path"], row["label"], _part(row)))
    if not lines:
        raise DataError(f"{path}: names no images{': ' if faults else ''}{'; '.join(faults[:5])}")
    lines, again = _each_once(path, lines)
    classes = _sorted({label for _, _, label, _ in lines})
    found = dict.fromkeys([part for part in ("train", "val", "test", "all") if any(part == line[3] for line in lines)])
    return {part: functools.partial(_listed, path, lines, classes, part, (*faults, *again)) for part in found}


def read_csv(path: str | os.PathLike, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """[(number of its line, {column: text}), …]. Errors: DataError where the first line does not name the columns."""
    with open_file(path) as file, naming(path):
        content = file.read()
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip().lower() for name in next(rows, [])]
        if not set(columns) <= set(header):
            shown = ",".join(header)[:100]
            raise DataError(f"{path}: the first line is {shown!r}, expected the names of columns: {','.join(columns)}")
        return [(rows.line_num, dict(zip(header, map(str.strip, row)))) for row in rows if any(row)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a CSV in UTF-8 that can be read ({error}); save it again") from None


def _fault(row):
    """What is wrong with a line, or None."""
    for column in ("path", "label"):
        if not row.get(column):
            return f"has no {column}"
    if "\0" in row["path"]:
        return "has a path that no file can have"
    if "split" in row and _part(row) is None:
        return f"has the split {row['split'][:50]!r}, expected train, val or test"
    return None


def _part(row):
    return _PARTS.get(row["split"].lower()) if "split" in row else "all"


def _each_once(path, lines):
    """-> the first line of each image, and what is wrong with the others."""
    first, faults = {}, []
    for line in lines:
        number, file, *_ = line
        earlier = first.setdefault(os.path.normpath(file), line)
        if earlier is not line:
            how = "again" if line[2:] == earlier[2:] else "otherwise"
            faults.append(f"{path}, line {number}: names {file.name} {how}, after line {earlier[0]}")
    return list(first.values()), faults


def _sorted(labels):
    """As numbers where all are: 2 comes before 10."""
    numbers = all(label.isdecimal() for label in labels)
    return tuple(sorted(labels, key=(lambda label: (int(label), label)) if numbers else None))


def _listed(path, lines, classes, part, faults):
    """The lines of a part, class by class."""
    labels = {label: i for i, label in enumerate(classes)}
    own = sorted(((labels[label], file) for _, file, label, of in lines if of == part), key=lambda pair: pair[0])
    where = f"{path}" if part == "all" else f"{path} ({part})"
    return Listed(where, classes, [file for _, file in own], np.array([label for label, _ in own]), tuple(faults))
