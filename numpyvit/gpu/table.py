"""Which functions launch kernels, by the names of the formulas that they stand in for."""

import math
import types
from collections.abc import Callable

from ..backend import Array
from ..backend.philox import KERNELS as DRAWS
from ..kernels import SETS, kernel
from .program import PROGRAMS, Program

TOLERANCE = 1e-6  # of a result in float32, relative to the largest value

_FUNCTIONS: list[Callable] = []


def device_kernel(function: Callable) -> Callable:
    """Declare that a function stands in for the formula of its name; it returns NotImplemented where it cannot."""
    _FUNCTIONS.append(function)
    return function


def register(xp: types.ModuleType, program: Program) -> None:
    """Let `program` serve arrays of the namespace `xp`, in every set of kernels that is loaded."""
    from . import attention, elementwise, norm, philox, products, softmax, updates  # noqa: F401  (they declare theirs)

    PROGRAMS[xp], DRAWS[xp] = program, philox.uniform
    loaded = tuple(name for name, kernels in SETS.items() if name != "plain" and kernels)
    for function in _FUNCTIONS:  # no gain was measured on a GPU yet
        kernel(function.__name__, xp, "f", tolerance=TOLERANCE, gain=math.nan, sets=loaded)(function)


def served(*arrays: Array) -> bool:
    """Whether kernels can read these arrays number by number: float32, rows in order, not empty, counted in 32 bits."""
    return all(array.dtype.char == "f" and array.flags.c_contiguous and 0 < array.size < 2**31 for array in arrays)
