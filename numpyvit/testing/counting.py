"""What a pass on the stand-in would cost on a GPU: kernel launches, synchronizations, transfers.

    with stand_in.counting() as seen:
        model.forward(x, tape)
    seen.launches, seen.synchronizations, seen.transfers; seen.by_name("launches")

The rule, from CuPy 14.2's source:

- An operation that computes or copies is one launch: a ufunc, a reduction, a product, a copy, a fill, a draw, an array
  taken by indices, an assignment. What only looks at the same memory (a slice, a transposed view, a reshape of an array
  that lies in one piece) or reserves memory (`empty`) is none.
- A product of more than two dimensions first copies each operand that is not contiguous, a launch each.
- `asarray` of what is on the host is a transfer. `get` and `asnumpy` are a transfer and a synchronization, and so is
  `concatenate` of more than eight arrays a transfer (of their addresses). An index by a mask is a synchronization: the
  host waits for the number of hits.
"""

import contextlib
import contextvars
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

LAUNCHES, SYNCHRONIZATIONS, TRANSFERS = "launches", "synchronizations", "transfers"
_MOST_JOINED = 8  # arrays whose addresses CuPy hands to concatenate's kernel as arguments
_current = contextvars.ContextVar("counts", default=None)


class Counts:
    """How often each kind of cost came up."""

    def __init__(self):
        self._found = {kind: Counter() for kind in (LAUNCHES, SYNCHRONIZATIONS, TRANSFERS)}

    def __repr__(self):
        return ", ".join(f"{counter.total()} {kind}" for kind, counter in self._found.items())

    def add(self, kind, name, times=1):
        if times:
            self._found[kind][name] += times

    def by_name(self, kind: str) -> dict[str, int]:
        """{what: how often} of "launches", "synchronizations" or "transfers"."""
        return dict(self._found[kind])

    @property
    def launches(self) -> int:
        return self._found[LAUNCHES].total()

    @property
    def synchronizations(self) -> int:
        return self._found[SYNCHRONIZATIONS].total()

    @property
    def transfers(self) -> int:
        return self._found[TRANSFERS].total()


@contextlib.contextmanager
def counting() -> Iterator[Counts]:
    """While open, what this thread and those that share its work do on the stand-in is counted."""
    counts = Counts()
    token = _current.set(counts)
    try:
        yield counts
    finally:
        _current.reset(token)


def count(kind: str, name: str, times: int = 1) -> None:
    counts = _current.get()
    if counts is not None:
        counts.add(kind, name, times)


def count_launches(name: str, inputs: Sequence, result: object) -> bool:
    """Count an operation on host arrays `inputs` that gave `result`, None where it wrote into what there was.

    -> whether it takes a transfer.
    """
    if name.startswith("empty") or is_view(result, inputs):
        return False
    count(LAUNCHES, name)
    if name == "matmul":
        copied = sum(array.ndim > 2 and not array.flags.c_contiguous for array in inputs)
        count(LAUNCHES, "copy for matmul", copied)
    transferred = name in ("concatenate", "stack") and len(inputs[0]) > _MOST_JOINED
    count(TRANSFERS, name, int(transferred))
    return transferred


def is_view(result: object, inputs: Sequence) -> bool:
    """Whether every array in a result lies in the memory of an input."""
    results = result if isinstance(result, (tuple, list)) else [result]
    arrays = [item for item in inputs if isinstance(item, np.ndarray)]
    return all(
        isinstance(item, np.ndarray) and any(np.may_share_memory(item, array) for array in arrays) for item in results
    )
