"""Read the data in a pickle without executing anything.

A pickle is a program for a small stack machine. `read` runs the part of it that builds plain values (numbers, strings,
lists, dicts, tuples); where the program names a class or a function, only the constructors that the caller lists are
known, and they are ours. Anything else is refused by name. CIFAR's batches and PyTorch's files are read so.

The program is not trusted to be short or its values to be small. The number of its steps and the memory it takes are
bounded, and nothing is done to a value that would walk through all of it (hashing, comparing, printing): tuples within
tuples, each twice in the next, have 2ⁿ leaves after n steps.
"""

from .arrays import NUMPY_CONSTRUCTORS, as_array
from .machine import Name, PickleError, Stateful, plain_key
from .reading import read

__all__ = ["NUMPY_CONSTRUCTORS", "Name", "PickleError", "Stateful", "as_array", "plain_key", "read"]
