"""What all readers of weight files share: numbers from a stream into an array, JSON, names and shapes."""

import json
from typing import BinaryIO

import numpy as np

from ..errors import CheckpointError
from ..files.budget import Budget

_PIECE = 1 << 20  # how much is read at a time
_MOST_NAME = 500  # characters


def read_numbers(stream: BinaryIO, count: int, dtype: np.dtype, budget: Budget, bfloat16: bool = False) -> np.ndarray:
    """The next `count` numbers of a stream as a flat array drawn from the budget.

    They come a piece at a time, so that they are never in memory twice. bfloat16, which NumPy lacks, is the upper half
    of a float32's bits and is widened on the way.
    """
    if not bfloat16:
        array = budget.empty((count,), dtype)
        _fill(array, stream)
        return array
    wide = budget.empty((count,), np.uint32)
    for start in range(0, count, _PIECE):
        bits = np.empty(min(_PIECE, count - start), "<u2")
        _fill(bits, stream)
        np.left_shift(bits, 16, out=wide[start : start + len(bits)], dtype=np.uint32)
    return wide.view(np.float32)


def _fill(array, stream):
    raw = memoryview(array.view(np.uint8))
    for start in range(0, len(raw), _PIECE):
        piece = raw[start : start + _PIECE]
        if stream.readinto(piece) != len(piece):
            raise CheckpointError("ends within its numbers; save or fetch it again")


def parse_json(data: bytes, budget: Budget) -> object:
    """The value of JSON text (bytes). Errors: CheckpointError where it is not JSON, TooLarge."""
    marks = sum(data.count(mark) for mark in b"[{:,")  # one before each value, of which none takes 128 bytes a mark
    budget.draw(10 * len(data) + 128 * marks)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged (no JSON: {error!s:.80}); save or fetch it again") from None


def check_name(name: object) -> None:
    """Errors: CheckpointError where a tensor is not named by one short line of text."""
    if not isinstance(name, str) or len(name) > _MOST_NAME or not name.isprintable():
        what = f"{name[:40]!r}" if isinstance(name, str) else f"a {type(name).__name__}"
        raise CheckpointError(f"names an array {what}, expected a short line of text; save or fetch it again")


def check_shape(name: str, shape: object) -> None:
    """Errors: CheckpointError where a shape is not a sequence of natural numbers."""
    if not isinstance(shape, (tuple, list)) or not all(type(side) is int and side >= 0 for side in shape):
        raise CheckpointError(f"{name} has no shape of natural numbers; save or fetch it again")
