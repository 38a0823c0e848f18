"""What the options and arguments of models may be."""

from collections.abc import Iterable

from ..errors import ConfigError
from ..layers.checks import check_counts


def check_sizes(num_classes: int, *, hidden: float, **sizes: int) -> None:
    """Errors: ConfigError where a size is not an int of at least 1, or num_classes is negative."""
    check_counts(**sizes)
    check_counts(0, num_classes=num_classes)
    if not hidden >= 1:
        raise ConfigError(f"mlp_ratio must leave at least one hidden unit, got {hidden} of them")


def check_patch(patch: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Errors: ConfigError where (row, column), counted from 0, lies outside the grid of patches."""
    if len(patch) != 2 or not all(0 <= place < side for place, side in zip(patch, grid)):
        rows, columns = grid
        raise ConfigError(f"patch {tuple(patch)} lies outside the grid of {rows} rows and {columns} columns")
    return tuple(patch)


def places(indices: Iterable[int] | None, count: int, what: str) -> list[int]:
    """Indices into `count` blocks or stages as 0..count − 1, negative ones from the end; None for all of them.

    Errors: ConfigError for one that lies outside.
    """
    indices = range(count) if indices is None else list(indices)
    wanted = [i + count if i < 0 else i for i in indices]
    if not all(0 <= i < count for i in wanted):
        raise ConfigError(f"indices must name {what} 0..{count - 1}, got {list(indices)}")
    return wanted
