"""The stack machine, with the opcodes that build plain values and call the constructors that are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..budget import Budget

_MOST_NAME = 200  # characters
_MOST_NUMBER = 64  # bytes of an integer; no size or label needs more
_PLAIN = (str, bytes, float, bool, type(None))


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


def plain_key(value: object) -> object:
    """The value where it may be a key or an item of a set: text, a number or None.

    Tuples may not, since hashing recurses into them, nor may huge integers, which can be chosen to collide.
    """
    if type(value) in _PLAIN or (type(value) is int and value.bit_length() <= 64):
        return value
    raise PickleError(f"the pickle has a key of type {type(value).__name__}; only text and small numbers are read")


_MARK = object()


class Machine:
    """The stack, and the memo by which values are shared. An opcode is a method that takes its argument."""

    def __init__(self, constructors: Mapping[str, Callable], persistent: Callable | None, budget: Budget):
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
    **dict.fromkeys(("PROTO", "FRAME"), Machine.ignore),
    **dict.fromkeys(_NUMBERS + _STRINGS + _BYTES, Machine.push),
    "TUPLE": Machine.make_tuple,
    "TUPLE1": Machine.make_tuple1,
    "TUPLE2": Machine.make_tuple2,
    "TUPLE3": Machine.make_tuple3,
    "LIST": Machine.make_list,
    "DICT": Machine.make_dict,
    "APPEND": Machine.append,
    "APPENDS": Machine.extend,
    "ADDITEMS": Machine.add_items,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "POP": Machine.drop,
    "POP_MARK": Machine.drop_mark,
    "DUP": Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put),
    "MEMOIZE": Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get),
    "GLOBAL": Machine.name,
    "STACK_GLOBAL": Machine.name_from_stack,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.call),
    "BUILD": Machine.build,
    "BINPERSID": Machine.persist,
}
