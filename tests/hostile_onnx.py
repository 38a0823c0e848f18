"""ONNX files made by hand, field by field."""

import numpy as np

FLOAT, INT64 = 1, 7
NUMBERS = np.arange(6, dtype=np.float32).tobytes()


def varint(value):
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])


def field(number, value):
    """An integer, or bytes or text behind their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name="head.weight", shape=(2, 3), data=None, kind=FLOAT, more=b""):
    data = NUMBERS if data is None else data
    sides = b"".join(field(1, side) for side in shape)
    return field(5, sides + field(2, kind) + field(8, name) + field(9, data) + more)


def node(kind, inputs, outputs, name=""):
    names = b"".join([field(1, x) for x in inputs] + [field(2, y) for y in outputs])
    return field(1, names + field(3, name) + field(4, kind))


def model(*parts, notes=b""):
    return field(1, 8) + field(2, "by hand") + field(7, b"".join(parts)) + notes


def note(key, value):
    return field(14, field(1, key) + field(2, value))


def onnx_files():
    good = tensor()
    large = tensor("a.weight", (1 << 20,), bytes(4 << 20))
    packed = field(5, field(1, varint(2) + varint(3)) + field(2, FLOAT) + field(8, "a.weight") + field(4, NUMBERS))
    return {
        "nothing but a version": field(1, 8) + field(2, "pytorch"),
        "no array": model(),
        "an array": model(good),
        "an array with packed sides and numbers": model(packed),
        "an array of integers": model(tensor(kind=INT64, shape=(3,))),
        "an array of an unknown type": model(tensor(kind=99)),
        "too few numbers": model(tensor(shape=(2, 4))),
        "too many numbers": model(tensor(shape=(2, 2))),
        "no numbers": model(tensor(data=b"")),
        "a huge array": model(tensor(shape=(1 << 40, 1 << 40))),
        "a negative side": model(tensor(shape=((1 << 64) - 1, 6))),
        "an empty array": model(tensor(shape=(0, 1 << 60), data=b"")),
        "a hundred axes": model(tensor(shape=(1,) * 94 + (2, 3))),
        "numbers twice": model(tensor(more=field(9, bytes(24)))),
        "numbers elsewhere": model(tensor(more=field(14, 1))),
        "numbers in /etc/passwd": model(tensor(more=field(13, field(1, "location") + field(2, "/etc/passwd")))),
        "no name": model(field(5, field(1, 1) + field(2, FLOAT) + field(9, bytes(4)))),
        "a long name": model(tensor(name="a" * 10_000)),
        "a name of two lines": model(tensor(name="a\nb")),
        "a name that is no text": model(tensor(name=b"\xff\xfe")),
        "a name that is a number": model(field(5, field(8, 7))),
        "an array that is a number": model(field(5, 7)),
        "a graph that is a number": field(1, 8) + field(2, "by hand") + field(7, 7),
        "two graphs": model(good) + field(7, good),
        "a field longer than its message": model(field(5, varint(9 << 3 | 2) + varint(1 << 40))),
        "a field longer than the file": field(1, 8) + varint(7 << 3 | 2) + varint(1 << 62),
        "an endless integer": model(b"\x08" + b"\xff" * 20),
        "a group": model(b"\x0b\x0c"),
        "a cut number": model(b"\x0d\x00"),
        "cut anywhere": model(good, node("MatMul", ["x", "head.weight"], ["y"]))[:-5],
        "a million fields": model(field(3, 0) * 1_100_000),
        "a million nodes": model(field(1, b"") * 1_100_000),
        "a million sides": model(field(5, field(1, bytes(1_100_000)) + field(8, "a.weight"))),
        "an array under a thousand names": model(
            large, *(node("Identity", ["a.weight"], [f"{i}.b"]) for i in range(1000))
        ),
        "a circle of names": model(good, *(node("Identity", [a], [b]) for a, b in ("ab", "ba"))),
        "a product of a vector": model(tensor("/m", (6,)), node("MatMul", ["x", "/m"], ["y"], "/head/MatMul")),
        "a product without a name": model(tensor("/m"), node("MatMul", ["x", "/m"], ["y"])),
        "a product of nothing": model(good, node("MatMul", [], [])),
        "notes": model(good, notes=note("numpyvit", '{"classes": ["a"]}')),
        "notes that are no JSON": model(good, notes=note("numpyvit", "{")),
        "notes that are a list": model(good, notes=note("numpyvit", "[]")),
        "deep notes": model(good, notes=note("numpyvit", "[" * 100_000)),
        "long notes": model(good, notes=note("other", "a" * (20 << 20))),
        "a note without a value": model(good, notes=field(14, field(1, "numpyvit"))),
        "a wrong checksum": model(good, notes=note("sha256", "0")),
    }
