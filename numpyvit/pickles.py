"""Read the data in a pickle without executing anything.

A pickle is a program for a small stack machine. `read` runs the part of it that builds plain values (numbers, strings,
lists, dicts, tuples); where the program names a class or a function, only the constructors that the caller lists are
known, and they are ours. Anything else is refused by name. CIFAR's batches and PyTorch's files are read so.
"""

import pickletools
from dataclasses import dataclass

import numpy as np


class PickleError(ValueError):
    """The pickle is damaged, or names something that is not plain data."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names, 'module.name'; never looked up."""

    name: str


_MARK = object()
_MAX_NUMBER = 64  # bytes of an integer; no size or label needs more

_PUSH = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSH_NEW = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "MARK": lambda: _MARK}
_PUSH_ARGUMENT = set(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
_IGNORE = {"PROTO", "FRAME"}


def read(data, constructors=None, persistent=None):
    """The value that the pickle `data` (bytes) describes.

    constructors: {"module.name": function} of what the pickle may name; functions are called with its arguments.
                  An object that is then given a state must have a method `build(state)`.
    persistent:   function for persistent ids, as PyTorch uses for its storages.
    Python 2's strings come as str, decoded as Latin-1. Errors: PickleError.
    """
    machine = _Machine(constructors or {}, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.pop()
            machine.execute(opcode.name, argument)
    except PickleError:
        raise
    except Exception as error:  # damaged bytes fail anywhere: in genops, on the stack, in a constructor
        raise PickleError(f"damaged pickle ({type(error).__name__}: {error})") from None
    raise PickleError("the pickle ends before its STOP")


class _Machine:
    def __init__(self, constructors, persistent):
        self.constructors, self.persistent = constructors, persistent
        self.stack, self.memo = [], {}

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

    def execute(self, name, argument):
        if name in _IGNORE:
            return
        if name in _PUSH:
            self.stack.append(_PUSH[name])
        elif name in _PUSH_NEW:
            self.stack.append(_PUSH_NEW[name]())
        elif name in _PUSH_ARGUMENT:
            if isinstance(argument, int) and argument.bit_length() > 8 * _MAX_NUMBER:
                raise PickleError("damaged pickle: an absurdly long integer")
            self.stack.append(argument)
        elif hasattr(self, "do_" + name.lower()):
            getattr(self, "do_" + name.lower())(argument)
        else:
            raise PickleError(f"the pickle uses {name}, which plain data does not need; it is refused")

    # -- containers

    def do_tuple(self, _):
        self.stack.append(tuple(self.pop_mark()))

    def do_tuple1(self, _):
        self.stack.append((self.pop(),))

    def do_tuple2(self, _):
        b, a = self.pop(), self.pop()
        self.stack.append((a, b))

    def do_tuple3(self, _):
        c, b, a = self.pop(), self.pop(), self.pop()
        self.stack.append((a, b, c))

    def do_list(self, _):
        self.stack.append(self.pop_mark())

    def do_dict(self, _):
        self._set_items({}, self.pop_mark(), push=True)

    def do_append(self, _):
        value = self.pop()
        self._top(list).append(value)

    def do_appends(self, _):
        values = self.pop_mark()
        self._top(list).extend(values)

    def do_additems(self, _):
        values = self.pop_mark()
        self._top(set).update(values)

    def do_setitem(self, _):
        value, key = self.pop(), self.pop()
        self._top(dict)[key] = value

    def do_setitems(self, _):
        values = self.pop_mark()
        self._set_items(self._top(dict), values)

    def _set_items(self, mapping, values, push=False):
        mapping.update(zip(values[::2], values[1::2], strict=True))
        if push:
            self.stack.append(mapping)

    def _top(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise PickleError(f"damaged pickle: expected a {kind.__name__} on the stack")
        return self.stack[-1]

    def do_pop(self, _):
        self.stack.pop()

    def do_pop_mark(self, _):
        self.pop_mark()

    def do_dup(self, _):
        self.stack.append(self.stack[-1])

    # -- the memo, by which values are shared

    def do_put(self, key):
        self.memo[key] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, key):
        self.stack.append(self.memo[key])

    do_binget = do_long_binget = do_get

    # -- names: recorded, and resolved among the caller's constructors only

    def do_global(self, argument):
        self.stack.append(Name(argument.replace(" ", ".")))

    def do_stack_global(self, _):
        name, module = self.pop(), self.pop()
        self.stack.append(Name(f"{module}.{name}"))

    def do_reduce(self, _):
        arguments, function = self.pop(), self.pop()
        name = function.name if isinstance(function, Name) else repr(function)[:60]
        if name not in self.constructors:
            raise PickleError(f"the pickle calls {name}; calls are refused, only plain data is read")
        if not isinstance(arguments, tuple):
            raise PickleError(f"damaged pickle: {name} is called with no tuple of arguments")
        self.stack.append(self.constructors[name](*arguments))

    do_newobj = do_reduce

    def do_build(self, _):
        state = self.pop()
        if not hasattr(self.stack[-1], "build"):
            raise PickleError(f"the pickle sets the state of a {type(self.stack[-1]).__name__}; that is refused")
        self.stack[-1].build(state)

    def do_binpersid(self, _):
        if self.persistent is None:
            raise PickleError("the pickle refers to data outside itself; that is refused")
        self.stack.append(self.persistent(self.pop()))


# ---- NumPy arrays ---------------------------------------------------------------------------------------------------

_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "b1"}


class _Dtype:
    def __init__(self, code, *_):
        if not isinstance(code, str) or code.lstrip("<>|=") not in _DTYPES:
            raise PickleError(f"an array of type {code!r} is refused; only numbers are read")
        self.dtype = np.dtype(code)

    def build(self, state):
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order) if order in ("<", ">", "=", "|") else self.dtype


class _Array:
    """An array whose shape and bytes arrive with its state."""

    array = None

    def __init__(self, *_):
        pass

    def build(self, state):
        _, shape, dtype, fortran, data = state
        self.array = _frombuffer(data, dtype, shape, "F" if fortran else "C").array


def _frombuffer(data, dtype, shape, order="C"):
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise PickleError("damaged pickle: an array without bytes or type")
    result = _Array()
    result.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return result


def _encode(text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise PickleError(f"the pickle encodes text as {encoding!r}; only latin1 is read")
    return text.encode("latin-1")


NUMPY_CONSTRUCTORS = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}


def as_array(value):
    """What `read` returned for a NumPy array, as the array."""
    if not isinstance(value, _Array) or value.array is None:
        raise PickleError(f"expected an array, found {type(value).__name__}")
    return value.array
