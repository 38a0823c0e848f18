"""Running a pickle within bounds of steps, memory and depth."""

import pickletools
from collections.abc import Callable, Mapping

from ...errors import NumpyvitError
from ..budget import SLACK, Budget, TooLarge
from .machine import Machine, PickleError

_MOST_STEPS = 1_000_000  # the largest honest pickles, CIFAR-100's, take 250,000
_MOST_DEPTH = 100
_STEP = 256  # bytes that a step takes at most, beside its argument: an empty set and its place in the memo


def read(
    data: bytes,
    constructors: Mapping[str, Callable] | None = None,
    persistent: Callable | None = None,
    budget: Budget | None = None,
) -> object:
    """The value that the pickle `data` (bytes) describes.

    constructors: {"module.name": function} of what the pickle may name; functions are called with the budget and the
                  pickle's arguments. What they return may be a Stateful.
    persistent:   function for persistent ids, as PyTorch uses for its storages.
    budget:       what may be held in memory; by default eight times the pickle and 48 MiB.
    Python 2's strings come as str, decoded as Latin-1. Keys and items of sets are text, numbers or None.
    Errors: PickleError; NumpyvitErrors that the functions raise.
    """
    budget = budget or Budget(8 * len(data) + SLACK)
    machine = Machine(constructors or {}, persistent, budget)
    try:
        budget.draw(5 * len(data))  # strings: cut out of the data, then decoded to up to four bytes a character
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step == _MOST_STEPS:
                raise PickleError(f"the pickle takes more than {_MOST_STEPS:,} steps; plain data needs fewer")
            budget.draw(_STEP)
            if opcode.name == "STOP":
                return _checked_depth(machine.pop())
            machine.execute(opcode.name, argument)
    except TooLarge as error:
        raise PickleError(f"the pickle {error}; it is refused") from None
    except (PickleError, NumpyvitError):
        raise
    except Exception as error:  # damaged bytes fail anywhere: in genops, on the stack, in a constructor
        raise PickleError(f"damaged pickle ({type(error).__name__}: {error!s:.200})") from None
    raise PickleError("the pickle ends before its STOP")


def _checked_depth(value):
    """The value, which as a tree (what is shared counted each time) is neither deep nor large, so that callers may
    walk through it."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        below = []
        for item in level:
            if isinstance(item, (dict, list, tuple, set)):
                below += item.values() if isinstance(item, dict) else item
            if len(below) > _MOST_STEPS:
                raise PickleError(f"the pickle describes more than {_MOST_STEPS:,} values")
        if not below:
            return value
        level = below
    raise PickleError(f"the pickle nests values more than {_MOST_DEPTH} deep")
