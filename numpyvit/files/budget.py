"""How much memory reading one file may take.

A small file can describe a lot of data: by compression, by naming the same bytes many times, by structures that take
more in memory than on disk. Whoever reads one draws from a budget before making anything, and is refused in time.
"""

import math
import weakref

import numpy as np

SLACK = 48 << 20  # bytes that the smallest file may take; with what is not counted it stays below 64 MiB
ARRAY = 1 << 10  # bytes that an array takes beside its numbers: the object, its name, its place in a dict


class TooLarge(ValueError):
    """What a file describes takes more memory than its size justifies."""


class Budget:
    """The bytes that may be held at a time while a file is read; without a limit for one's own.

    What is drawn stays drawn. Arrays made by `empty` give back what they held as soon as nothing refers to them.
    """

    def __init__(self, limit: float = math.inf):
        self.limit = self.left = limit

    def draw(self, amount: int) -> None:
        """Errors: TooLarge where less than `amount` is left."""
        if amount > self.left:
            raise TooLarge(f"would take more than {self.limit:,} bytes of memory, which is too much for its size")
        self.left -= amount

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """np.empty, drawn from the budget."""
        amount = math.prod(shape) * np.dtype(dtype).itemsize + ARRAY
        self.draw(amount)
        array = np.empty(shape, dtype)
        weakref.finalize(array, self.draw, -amount).atexit = False
        return array
