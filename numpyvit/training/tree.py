"""The one tree in which the gradients of a batch's shards are added, on any number of threads and ranks.

Neighbours are added first, then neighbouring pairs, and so on; of eight shards

    ((g₀ + g₁) + (g₂ + g₃)) + ((g₄ + g₅) + (g₆ + g₇)).

Floating-point sums depend on their order, and this one follows from the number of shards alone. A rank owns
neighbouring shards, so it adds up whole subtrees by itself; only their sums travel.
"""

import itertools
from collections.abc import Iterator

from ..backend import Array, Group


def share(count: int, group: Group, rank: int | None = None) -> range:
    """The shards, of `count`, that a rank owns; by default this one."""
    rank = group.rank if rank is None else rank
    return range(count * rank // group.size, count * (rank + 1) // group.size)


def pairs(count: int) -> Iterator[tuple[int, int, range]]:
    """(left, right, the shards of both) of each addition, in its order; a sum is known by its first shard."""
    width = 1
    while width < count:
        for left in range(0, count - width, 2 * width):
            yield left, left + width, range(left, min(left + 2 * width, count))
        width *= 2


def own_pairs(count: int, own: range) -> list[tuple[int, int]]:
    """The additions of which a rank owns all shards."""
    return [(left, right) for left, right, both in pairs(count) if own.start <= both.start and both.stop <= own.stop]


def own_roots(count: int, own: range) -> list[int]:
    """The sums that are left of a rank's shards after its own additions."""
    return sorted({*own} - {right for _, right in own_pairs(count, own)})


def sum_over_ranks(group: Group, count: int, sums: dict[int, Array], total: Array) -> None:
    """Add the ranks' sums, by their first shards, into `total` (n,), which may be one of them, on every rank.

    Each rank adds up a piece of n / ranks numbers, which all send it, and sends what came out to all. So a rank sends
    2 (ranks − 1)/ranks · n numbers where each owns one subtree, the least that a sum on all ranks takes.
    """
    edges = [len(total) * rank // group.size for rank in range(group.size + 1)]
    pieces = [slice(*edge) for edge in itertools.pairwise(edges)]
    mine, others = pieces[group.rank], [rank for rank in range(group.size) if rank != group.rank]
    found = {root: array[mine] for root, array in sums.items()}
    receives = []
    for rank in others:
        roots = own_roots(count, share(count, group, rank))
        found |= {root: group.empty_like(total[mine]) for root in roots}
        receives += [(rank, found[root]) for root in roots]
    group.swap([(rank, sums[root][pieces[rank]]) for rank in others for root in sorted(sums)], receives)
    for left, right, _ in pairs(count):
        if right in found:  # else a rank has added it before
            found[left] += found.pop(right)
    total[mine] = found[0]
    group.swap([(rank, total[mine]) for rank in others], [(rank, total[pieces[rank]]) for rank in others])
