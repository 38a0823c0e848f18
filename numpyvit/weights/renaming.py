"""What the names of all libraries have in common: rules that rename, and queries, keys and values to be stacked."""

import re
from collections.abc import Callable, Mapping, Sequence

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


def without_counts(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays without the numbers of batches that PyTorch's batch norms have seen; no layer here counts them."""
    return {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}


def stacked(
    parts: dict[tuple[str, str], np.ndarray], budget: Budget, called: Callable[[str], str] = str
) -> dict[str, np.ndarray]:
    """{(name of the whole, "q", "k" or "v"): array} -> {name: the three as one}, emptying `parts` name by name.

    called: what a whole is called in errors, its name by default.
    Errors: CheckpointError for a whole that lacks one of the three, or where their shapes differ.
    """
    result = {}
    for name in dict.fromkeys(name for name, _ in parts):
        kind, held = name.rpartition(".")[2], [part for part in _LONG if (name, part) in parts]
        missing = [long for part, long in _LONG.items() if part not in held]
        if missing:
            only = f"there is only {', '.join(held)} of query, key and value"
            raise CheckpointError(f"{called(name)} lacks its {' and '.join(missing)} {kind}: {only}")
        three = [parts.pop((name, part)) for part in _LONG]
        shape, rank = three[0].shape, 2 if kind.endswith("weight") else 1
        if any(array.ndim != rank or array.shape != shape for array in three):
            shapes = ", ".join(str(array.shape) for array in three)
            raise CheckpointError(f"{called(name)}: query, key and value {kind} have shapes {shapes}, which differ")
        whole = budget.empty((3 * shape[0], *shape[1:]), np.result_type(*three))
        result[name] = np.concatenate(three, out=whole)
    return result
