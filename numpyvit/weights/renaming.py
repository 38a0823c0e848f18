"""What the names of all libraries have in common: rules that rename, and queries, keys and values to be stacked."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import CheckpointError
from ..files.budget import Budget

Rule = tuple[str, str | Callable[[re.Match], str]]  # a pattern, and what stands in its place
_LONG = {"q": "query", "k": "key", "v": "value"}


def renamed(name: str, rules: Sequence[Rule]) -> str:
    """A name after each rule in turn, wherever its pattern is found."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def stacked(parts: dict[tuple[str, str, str], np.ndarray], budget: Budget) -> dict[tuple[str, str], np.ndarray]:
    """{(layer, "weight" or "bias", "q", "k" or "v"): array} -> {(layer, kind): the three as one}, emptying `parts`.

    Errors: CheckpointError naming a layer that lacks one of the three, or where they do not fit together.
    """
    result = {}
    for layer, kind in dict.fromkeys((layer, kind) for layer, kind, _ in parts):
        for part, long in _LONG.items():
            if (layer, kind, part) not in parts:
                raise CheckpointError(f"{layer} lacks its {long} {kind}")
        three = [parts.pop((layer, kind, part)) for part in _LONG]
        rank = 2 if kind == "weight" else 1
        if any(array.ndim != rank or array.shape[1:] != three[0].shape[1:] for array in three):
            shapes = ", ".join(str(array.shape) for array in three)
            raise CheckpointError(f"{layer}: query, key and value {kind} have shapes {shapes}, which differ")
        shape = (sum(map(len, three)), *three[0].shape[1:])
        result[layer, kind] = np.concatenate(three, out=budget.empty(shape, np.result_type(*three)))
    return result
