"""Which of a model's classes is meant by the name that a data set has for it."""

import importlib.resources
import json
import os
from collections import Counter
from collections.abc import Sequence

from ..data.csv_files import is_csv, read_csv
from ..data.paths import naming, open_file
from ..errors import DataError
from ..weights.adapt import imagenet_classes


def match_classes(known: Sequence[str], given: Sequence[str]) -> list[int | None]:
    """For each of the names `given` its index in `known`, or None where no name, or more than one, fits.

    A name is looked for as it is, then without case and with blanks for underscores ("golden_retriever"), then by its
    WordNet id: one of ImageNet's classes may go by its name on one side and by its id ("n02099601") on the other.
    """
    known, given = list(map(str, known)), list(map(str, given))
    if known == given:
        return list(range(len(known)))
    found = [None] * len(given)
    for spell in (list, _loosely, _wordnet_ids):
        places = _index_once(spell(known))
        found = [places.get(name) if index is None else index for index, name in zip(found, spell(given))]
    return found


def read_class_map(path: str | os.PathLike) -> dict[str, str]:
    """{a class of the data: a class of the model}, from a JSON object or from a CSV with the columns folder and class.

    Errors: DataError for a file of another form, or one that names a class of the data twice.
    """
    if is_csv(path):
        pairs = [(row["folder"], row.get("class", "")) for _, row in read_csv(path, ("folder", "class"))]
    else:
        pairs = _pairs_of_json(path)
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"{path}: says twice what {', '.join(twice[:5])} is; say it once")
    return dict(pairs)


def _pairs_of_json(path):
    with open_file(path) as file, naming(path):
        content = file.read()
    try:
        pairs = json.loads(content, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON that can be read ({error}); write it again") from None
    if not isinstance(pairs, tuple) or not all(isinstance(name, str) for _, name in pairs):
        raise DataError(f'{path}: is no JSON object of names such as {{"tabbies": "tabby"}}')
    return pairs


def imagenet_wnids() -> list[str]:
    """The WordNet ids of ImageNet-1k's classes in their usual order, by which its folders are named."""
    return importlib.resources.files("numpyvit.data").joinpath("imagenet_wnids.txt").read_text().split()


def _loosely(names):
    return [name.replace("_", " ").casefold() for name in names]


def _wordnet_ids(names):
    """Ids instead of ImageNet's names. "crane" is a bird and a machine: only its place in the full list tells which."""
    classes, ids = imagenet_classes(), imagenet_wnids()
    if names == classes:
        return ids
    index = _index_once(_loosely(classes))
    return [ids[index[name]] if name in index else name for name in _loosely(names)]


def _index_once(names):
    """{name: index} of the names that occur once."""
    counts = Counter(names)
    return {name: index for index, name in enumerate(names) if counts[name] == 1}
