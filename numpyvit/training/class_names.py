"""Which of a model's classes is meant by the name that a data set has for it."""

import importlib.resources
from collections import Counter
from collections.abc import Sequence

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
