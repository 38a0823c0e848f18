"""Read the data in a pickle without executing anything.

A pickle is a program for a small stack machine. `read` runs the part of it that builds plain values (numbers, strings,
lists, dicts, tuples); where the program names a class or a function, only the constructors that the caller lists are
known, and they are ours. Anything else is refused by name. CIFAR's batches and PyTorch's files are read so.

The program is not trusted to be short or its values to be small. The number of its steps and the memory it takes are
bounded, and nothing is done to a value that would walk through all of it (hashing, comparing, printing): tuples within
tuples, each twice in the next, have 2ⁿ leaves after n steps.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import NumpyvitError
from .budget import SLACK, Budget, TooLarge


class PickleError(ValueError):
    """The pickle is damaged, or names something that is not plain data."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names, 'module.name'; never looked up."""

    name: str


class Stateful:
    """An object that a pickle may give a state."""

    def build(self, budget: Budget, state: object) -> None:
        """Take the state; by default it is not needed."""


_MOST_STEPS = 1_000_000  # the largest honest pickles, CIFAR-100's, take 250,000
_MOST_DEPTH = 100
_STEP = 256  # bytes that a step takes at most, beside its argument: an empty set and its place in the memo
_MOST_NAME = 200  # characters
_MOST_NUMBER = 64  # bytes of an integer; no size or label needs more
_PLAIN = (str, bytes, float, bool, type(None))


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
    machine = _Machine(constructors or {}, persistent, budget)
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


def plain_key(value: object) -> object:
    """The value where it may be a key or an item of a set: text, a number or None.

    Tuples may not, since hashing recurses into them, nor may huge integers, which can be chosen to collide.
    """
    if type(value) in _PLAIN or (type(value) is int and value.bit_length() <= 64):
        return value
    raise PickleError(f"the pickle has a key of type {type(value).__name__}; only text and small numbers are read")


# ---- the machine ----------------------------------------------------------------------------------------------------

_MARK = object()


class _Machine:
    """The stack, and the memo by which values are shared. An opcode is a method that takes its argument."""

    def __init__(self, constructors, persistent, budget):
        self.constructors, self.persistent, self.budget = constructors, persistent, budget
        self.stack, self.memo = [], {}

    def execute(self, name, argument):
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _METHODS:
            _METHODS[name](self, argument)
        else:
            raise PickleError(f"the pickle uses {name}, which plain data does not need; it is refused")

    def pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("damaged pickle: a mark where a value should be")
        return value

    def pop_mark(self):
        """All values above the last mark."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                values = self.stack[i + 1 :]
                del self.stack[i:]
                return values
        raise PickleError("damaged pickle: no mark on the stack")

    def top(self, kind):
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise PickleError(f"damaged pickle: expected a {kind.__name__} on the stack, not a {type(value).__name__}")
        return value

    def ignore(self, _):
        pass

    def push(self, argument):
        if isinstance(argument, int) and argument.bit_length() > 8 * _MOST_NUMBER:
            raise PickleError("damaged pickle: an absurdly long integer")
        self.stack.append(argument)

    # -- containers

    def make_tuple(self, _):
        self.stack.append(tuple(self.pop_mark()))

    def make_tuple1(self, _):
        self.stack.append((self.pop(),))

    def make_tuple2(self, _):
        b, a = self.pop(), self.pop()
        self.stack.append((a, b))

    def make_tuple3(self, _):
        c, b, a = self.pop(), self.pop(), self.pop()
        self.stack.append((a, b, c))

    def make_list(self, _):
        self.stack.append(self.pop_mark())

    def make_dict(self, _):
        values = self.pop_mark()
        self.stack.append({})
        self._fill_dict(values)

    def append(self, _):
        value = self.pop()
        self.top(list).append(value)

    def extend(self, _):
        values = self.pop_mark()
        self.top(list).extend(values)

    def add_items(self, _):
        values = self.pop_mark()
        self.top(set).update(map(plain_key, values))

    def set_item(self, _):
        value, key = self.pop(), self.pop()
        self.top(dict)[plain_key(key)] = value

    def set_items(self, _):
        self._fill_dict(self.pop_mark())

    def _fill_dict(self, values):
        self.top(dict).update(zip(map(plain_key, values[::2]), values[1::2], strict=True))

    def drop(self, _):
        self.stack.pop()

    def drop_mark(self, _):
        self.pop_mark()

    def duplicate(self, _):
        self.stack.append(self.stack[-1])

    # -- the memo

    def put(self, key):
        self.memo[plain_key(key)] = self.stack[-1]

    def memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, key):
        self.stack.append(self.memo[key])

    # -- names: recorded, and resolved among the caller's constructors only

    def name(self, argument):
        self._push_name(*argument.split(" ", 1))

    def name_from_stack(self, _):
        name, module = self.pop(), self.pop()
        self._push_name(module, name)

    def _push_name(self, module, name):
        if not all(type(part) is str and len(part) <= _MOST_NAME for part in (module, name)):
            raise PickleError("the pickle names a class or function by something that is not a name; it is refused")
        self.stack.append(Name(f"{module}.{name}"))

    def call(self, _):
        arguments, function = self.pop(), self.pop()
        name = function.name if isinstance(function, Name) else f"a {type(function).__name__}"
        if name not in self.constructors:
            raise PickleError(f"the pickle calls {name}; calls are refused, only plain data is read")
        if not isinstance(arguments, tuple):
            raise PickleError(f"damaged pickle: {name} is called with no tuple of arguments")
        self.stack.append(self.constructors[name](self.budget, *arguments))

    def build(self, _):
        state = self.pop()
        if not isinstance(self.stack[-1], Stateful):
            raise PickleError(f"the pickle sets the state of a {type(self.stack[-1]).__name__}; that is refused")
        self.stack[-1].build(self.budget, state)

    def persist(self, _):
        if self.persistent is None:
            raise PickleError("the pickle refers to data outside itself; that is refused")
        self.stack.append(self.persistent(self.pop()))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_NEW = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_STRINGS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_METHODS = {
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.ignore),
    **dict.fromkeys(_NUMBERS + _STRINGS + _BYTES, _Machine.push),
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": _Machine.make_tuple1,
    "TUPLE2": _Machine.make_tuple2,
    "TUPLE3": _Machine.make_tuple3,
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persist,
}


# ---- NumPy arrays ---------------------------------------------------------------------------------------------------

_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "b1"}


class _Dtype(Stateful):
    def __init__(self, budget, code, *_):
        if not isinstance(code, str) or code.lstrip("<>|=") not in _DTYPES:
            raise PickleError("an array that holds no plain numbers is refused")
        self.dtype = np.dtype(code)

    def build(self, budget, state):
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order) if order in ("<", ">", "=", "|") else self.dtype


class _Array(Stateful):
    """An array whose shape and bytes arrive with its state."""

    array = None

    def __init__(self, budget, *_):
        pass

    def build(self, budget, state):
        _, shape, dtype, fortran, data = state
        self.array = _frombuffer(budget, data, dtype, shape, "F" if fortran else "C").array


def _frombuffer(budget, data, dtype, shape, order="C"):
    data = _encode(budget, data, "latin1") if isinstance(data, str) else data
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise PickleError("damaged pickle: an array without bytes or type")
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise PickleError("damaged pickle: an array without a shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise PickleError(f"damaged pickle: an array's {len(data):,} bytes do not fill its shape")
    result = _Array(budget)
    result.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return result


def _encode(budget, text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise PickleError("the pickle encodes text otherwise than as latin1; it is refused")
    budget.draw(len(text))
    return text.encode("latin-1")


NUMPY_CONSTRUCTORS = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}


def as_array(value: object) -> np.ndarray:
    """What `read` returned for a NumPy array, as the array."""
    if not isinstance(value, _Array) or value.array is None:
        raise PickleError(f"expected an array, found a {type(value).__name__}")
    return value.array
