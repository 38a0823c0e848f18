"""Processes that work on one thing together: ranks of a group."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from .arrays import Array, array_module
from .threads import available_threads


class Group:
    """The group of one process. Others have more ranks and the same methods, which all ranks call in the same order.

    rank, size: this process's number, from 0, and how many there are.
    neighbours: how many of them share this one's processors, itself included.
    local: this process's number, from 0, among those of its machine.
    """

    rank, size, neighbours, local = 0, 1, 1, 0

    def __repr__(self):
        return f"{type(self).__name__}(rank {self.rank} of {self.size})"

    def gather(self, value: Any) -> list:
        """[the value of each rank], on every rank.

        value: nested tuples, lists and dicts of arrays, numbers, texts and None; see messages.pack.
        """
        return [value]

    def swap(self, sends: Iterable[tuple[int, Array]], receives: Iterable[tuple[int, Array]]) -> None:
        """Send arrays, (rank, contiguous array), and fill others with what ranks send to this one, in their order."""

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.gather(None)

    def abort(self, code: int) -> None:
        """End all ranks at once; this process too, where it is not alone."""

    def failed_together(self) -> bool:
        """Called by a rank after an error: whether all others call it too, since all have met the same one.

        It can be asked once; further calls give the same answer.
        """
        return True

    @property
    def processors(self) -> int:
        """This rank's share of the processors."""
        return max(1, available_threads() // self.neighbours)

    def threads(self, threads: int | None = None) -> int:
        """How many threads this rank works on, where no number is given: one for each of its processors."""
        return threads or self.processors

    def leader_first(self, function: Callable) -> Any:
        """function() on each rank, on rank 0 before all others, who find what it has downloaded."""
        value = function() if self.leads else None
        self.barrier()
        return value if self.leads else function()

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes files and talks."""
        return self.rank == 0

    def from_first(self, value: Any = None) -> Any:
        """The value of rank 0, on every rank."""
        return self.gather(value if self.leads else None)[0]

    @staticmethod
    def empty_like(array: Array) -> Array:
        """An array of the same shape, dtype and device, to be filled by `swap`."""
        return array_module(array).empty_like(array)


ALONE = Group()


def check_alike(group: Group, found: Mapping[str, Any], advice: str) -> None:
    """Called by all ranks, each with what it has found by name, such as {"numpy": "2.4.1"}.

    Errors: ConfigError on all ranks, which says what of the first name that differs which ranks have, and the advice.
    """
    of_ranks = group.gather(dict(found))
    for name in dict.fromkeys(name for of_rank in of_ranks for name in of_rank):
        values = [of_rank.get(name) for of_rank in of_ranks]
        kinds = [value for i, value in enumerate(values) if value not in values[:i]]
        if len(kinds) > 1:
            said = [_on_ranks(kind, [rank for rank, value in enumerate(values) if value == kind]) for kind in kinds]
            raise ConfigError(f"{name} is {', '.join(said)}; {advice}")


def _on_ranks(value, ranks):
    """'fast' on ranks 0, 2 and 5"""
    *most, last = map(str, ranks)
    if len(most) > 3:
        most, last = most[:3], f"{len(ranks) - 3} more"
    named = f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"
    return f"{'missing' if value is None else repr(value)} on {named}"
