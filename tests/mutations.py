"""The wrong lines that tests/mutate.py tries: one expression or statement of a source file changed at a time.

- + and −, * and /, ** and * swapped; a term or factor dropped; the sign of a result or a term turned
- a statement dropped (an in-place update, a call for its effect), a condition negated or dropped
- a constant 1% off or doubled, True for False, an index or axis one off
- neighboring arguments or results swapped, another array of the same function in an array's place
- .T, swapaxes, keepdims dropped; < for <=, == for !=, and for or, min for max

Left out are validation that only raises, texts, __repr__, annotations, imports, and where an array lives.
"""

import ast
import itertools
from dataclasses import dataclass

_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_EXTREMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "fmax": "fmin", "fmin": "fmax"}
_SYMMETRIC = {*_EXTREMES, "multiply", "isinstance", "array_equal"}  # swapped arguments change nothing, or crash
_LOOKS = {"array_module", "on_host"}  # where one array of a call lives is where all of them live
_AXES = {"sum", "mean", "max", "min", "argmax", "swapaxes", "transpose", "concatenate", "stack", "split", "softmax"}
_WAYS = {"optimize", "copy"}  # keywords that say how the work is done, not what comes out
_NO_ARRAYS = {"self", "tape", "xp", "np", "rng", "seed", "dtype", "name", "cls", "model"}


@dataclass(frozen=True)
class Mutant:
    """One changed place: source[start:stop], in bytes, becomes `text`. before and after are the whole lines."""

    line: int
    start: int
    stop: int
    text: str
    before: str
    after: str

    def apply(self, source):
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def is_another_program(self, source):
        """Whether the change is one, and leaves the file one that Python can read."""
        try:
            return ast.dump(ast.parse(self.apply(source))) != ast.dump(ast.parse(source))
        except SyntaxError:  # such as x[(a, :b)]
            return False


def mutants(source):
    """Every mutant of a source file (bytes), in the order of its lines; a few may not be programs."""
    starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
    seen = set()
    for node, text in _changes(ast.parse(source), _Place()):
        first, last = starts[node.lineno - 1], starts[node.end_lineno]
        start, stop = first + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        if (start, stop, text) not in seen:
            seen.add((start, stop, text))
            lines = source[first:last], source[first:start] + text.encode() + source[stop:last]
            yield Mutant(node.lineno, start, stop, text, *(" ".join(line.decode().split()) for line in lines))


@dataclass(frozen=True)
class _Place:
    """Where a node stands: the arrays of its function, and whether a number there is an index or an axis."""

    arrays: tuple = ()
    index: bool = False


def _changes(node, place):
    """(node, the source that takes its place) for everything below a node."""
    if _left_out(node):
        return
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        place = _Place(_arrays(node))
    for change in _KINDS.get(type(node), ()):
        for replaced, new in change(node, place):
            yield replaced, new if isinstance(new, str) else _source(new)
    if not _is_negative_int(node):
        for child, inside in _children(node, place):
            yield from _changes(child, inside)


def _left_out(node):
    if isinstance(node, ast.If):  # validation
        return not node.orelse and isinstance(node.body[-1], ast.Raise)
    if isinstance(node, ast.Call):
        return _name(node.func) in _LOOKS
    return (
        isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.FunctionDef) and node.name == "__repr__")
        or (isinstance(node, ast.keyword) and node.arg in _WAYS)
        or (isinstance(node, ast.ExceptHandler) and isinstance(node.body[-1], ast.Raise))
    )


def _children(node, place):
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "format_spec"):
            continue
        inside = place
        if isinstance(node, ast.Subscript) and field == "slice":
            inside = _Place(place.arrays, index=True)
        elif isinstance(node, ast.Call) and field == "args":
            inside = _Place(place.arrays, index=_name(node.func) in _AXES)
        elif isinstance(node, ast.keyword) and field == "value":
            inside = _Place(place.arrays, index=node.arg == "axis")
        elif isinstance(node, (ast.BinOp, ast.Call)):
            inside = _Place(place.arrays)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, inside


def _source(node):
    text = ast.unparse(node)
    return f"({text})" if isinstance(node, (ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp)) else text


def _name(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _arrays(function):
    """Names in a function that may stand for an array: parameters, and what arithmetic is done with."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    for node in ast.walk(function):
        parts = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
        parts += (node.target,) if isinstance(node, ast.AugAssign) else ()
        names += [part.id for part in parts if isinstance(part, ast.Name)]
    return tuple(name for name in dict.fromkeys(names) if name not in _NO_ARRAYS and not name.isupper())


def _negated(test):
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def _swaps(parts, rebuild):
    """Each two neighbors of a list swapped."""
    for i in range(len(parts) - 1):
        if not any(isinstance(part, ast.Starred) for part in parts[i : i + 2]):
            yield rebuild([*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]])


def _other_array(node, place):
    if isinstance(node, ast.Name) and node.id in place.arrays and len(place.arrays) > 1:
        yield node, place.arrays[(place.arrays.index(node.id) + 1) % len(place.arrays)]


# ---- what may go wrong with each kind of node -----------------------------------------------------------------------


def _binary(node, place):
    if type(node.op) in _OPERATORS:
        yield node, ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    yield node, node.left
    yield node, node.right
    for part in (node.left, node.right):
        yield from _other_array(part, place)


def _in_place(node, place):
    yield node, "pass"
    if type(node.op) in _OPERATORS:
        yield node, ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
    yield from _other_array(node.target, place)
    yield from _other_array(node.value, place)


def _statement(node, place):
    if isinstance(node.value, ast.Call):
        yield node, "pass"


def _condition(node, place):
    yield node.test, _negated(node.test)
    if isinstance(node, ast.If):
        yield node.test, "True"


def _filter(node, place):
    for test in node.ifs:
        yield test, _negated(test)


def _comparison(node, place):
    bounds = [part for part in (node.left, *node.comparators) if getattr(part, "id", "").isupper()]
    for i, operator in enumerate(node.ops):
        if not (bounds and isinstance(operator, _ORDER)):  # at a bound of speed itself nothing changes
            others = [*node.ops[:i], _COMPARISONS[type(operator)](), *node.ops[i + 1 :]]
            yield node, ast.Compare(node.left, others, node.comparators)


def _and_or(node, place):
    yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for value in node.values:
        yield value, _negated(value)


def _is_negative_int(node):
    """An axis or a length to be found, such as −1: one number in two nodes."""
    return isinstance(node, ast.UnaryOp) and isinstance(getattr(node.operand, "value", None), int)


def _sign(node, place):
    if place.index and _is_negative_int(node):
        yield node, ast.Constant(-node.operand.value - 1)
    elif not isinstance(node.op, ast.Invert):
        yield node, node.operand


def _result(node, place):
    if isinstance(node.value, ast.BinOp):
        yield node.value, ast.UnaryOp(ast.USub(), node.value)
    if isinstance(node.value, ast.Tuple):
        yield from ((node.value, new) for new in _swaps(node.value.elts, lambda elts: ast.Tuple(elts, ast.Load())))
    if node.value is not None:
        yield from _other_array(node.value, place)


def _assignment(node, place):
    if isinstance(node.targets[0], ast.Tuple):
        yield from ((node.targets[0], new) for new in _swaps(node.targets[0].elts, lambda elts: ast.Tuple(elts)))


def _constant(node, place):
    value = node.value
    if isinstance(value, bool):
        yield node, ast.Constant(not value)
    elif isinstance(value, int) and place.index:
        yield node, ast.Constant(value + 1)
    elif isinstance(value, (int, float)):
        yield node, ast.Constant(value * 2 if value else 1)
        if isinstance(value, float) or 0 < value <= 50:  # a larger int is a size or a bound, which 1% hardly moves
            yield node, ast.Constant(value * 1.01)


def _call(node, place):
    name, arguments = _name(node.func), node.args
    if name in _EXTREMES:
        other = _EXTREMES[name]
        function = ast.Attribute(node.func.value, other, ast.Load()) if isinstance(node.func, ast.Attribute) else None
        yield node.func, function or other
    if name not in _SYMMETRIC:
        yield from ((node, new) for new in _swaps(arguments, lambda args: ast.Call(node.func, args, node.keywords)))
    if name in ("swapaxes", "transpose", "_t"):
        yield node, node.func.value if isinstance(node.func, ast.Attribute) else arguments[0]
    kept = [keyword for keyword in node.keywords if keyword.arg != "keepdims"]
    if len(kept) < len(node.keywords):
        yield node, ast.Call(node.func, arguments, kept)
    for argument in arguments:
        yield from _other_array(argument, place)


def _attribute(node, place):
    if node.attr == "T":
        yield node, node.value


_KINDS = {
    ast.BinOp: (_binary,),
    ast.AugAssign: (_in_place,),
    ast.Expr: (_statement,),
    ast.If: (_condition,),
    ast.IfExp: (_condition,),
    ast.While: (_condition,),
    ast.comprehension: (_filter,),
    ast.Compare: (_comparison,),
    ast.BoolOp: (_and_or,),
    ast.UnaryOp: (_sign,),
    ast.Return: (_result,),
    ast.Assign: (_assignment,),
    ast.Constant: (_constant,),
    ast.Call: (_call,),
    ast.Attribute: (_attribute,),
}
