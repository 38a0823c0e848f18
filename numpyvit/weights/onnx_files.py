"""ONNX files: a message of protobuf, read field by field, without the onnx library, from the file itself.

Protobuf's form: https://protobuf.dev/programming-guides/encoding; the numbers of the fields are those of onnx.proto.
"""

import math
import os
import re
from typing import NamedTuple

import numpy as np

from ..errors import CheckpointError
from ..files.budget import Budget
from .reading import check_name, check_shape, read_numbers

_MOST_FIELDS = 1_000_000  # the largest published ViTs take 50,000
_FIELD = 256  # bytes that one takes in memory beside its content
_MOST_TEXT = 16 << 20  # bytes
_DTYPES = {1: "<f4", 10: "<f2", 11: "<f8", 16: "<u2"}  # float32, float16, float64, bfloat16: weights are never others
_BFLOAT16 = 16
_GENERATED = re.compile(r"/.*|.*::.*|(val_|_)?\d+")  # names that exporters make up


class Span(NamedTuple):
    """Where in the file a text, a message or numbers lie."""

    start: int
    stop: int


class Node(NamedTuple):
    """An operator, its own name, and the names of what it reads and gives."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]


def read_onnx(path: str | os.PathLike, budget: Budget) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """-> (weights by name, metadata). Weights that an exporter turned and renamed have their names and shapes again."""
    with open(path, "rb") as file:
        reader = _Reader(file, budget)
        model = reader.message(Span(0, file.seek(0, 2)))
        graph = reader.message(_one(model, 7, "graph"))
        arrays = dict(filter(None, (reader.tensor(span) for span in graph.get(5, []))))
        nodes = [reader.node(span) for span in graph.get(1, [])]
        metadata = {}
        for span in model.get(14, []):
            entry = reader.message(span)
            metadata[reader.text(_one(entry, 1, "metadata key"))] = reader.text(_one(entry, 2, "metadata value"))
    return _with_own_names(arrays, nodes, budget), metadata


class _Reader:
    """Messages of a file; all that it keeps is drawn from the budget."""

    def __init__(self, file, budget):
        self.file, self.budget, self.left = file, budget, _MOST_FIELDS

    def message(self, span):
        """{number of a field: its values}, each an int or a Span; numbers of fixed length are left out."""
        if not isinstance(span, Span):
            raise CheckpointError("is damaged (a number stands where a message should); fetch it again")
        found = {}
        self.file.seek(span.start)
        while (place := self.file.tell()) < span.stop:
            self._count(place)
            key = self._varint()
            number, form = key >> 3, key & 7
            if form == 0:
                found.setdefault(number, []).append(self._varint())
            elif form == 2:
                length = self._varint()
                inner = Span(self.file.tell(), self.file.tell() + length)
                if inner.stop > span.stop:
                    raise CheckpointError("is damaged (a field is longer than what holds it); fetch it again")
                found.setdefault(number, []).append(inner)
                self.file.seek(inner.stop)
            elif form in (1, 5):
                self.file.seek(8 if form == 1 else 4, 1)
            else:
                raise CheckpointError(f"is damaged or in no known format (a field of form {form}); fetch it again")
        if self.file.tell() != span.stop:
            raise CheckpointError("is damaged (a field is longer than what holds it); fetch it again")
        return found

    def text(self, span):
        if not isinstance(span, Span) or span.stop - span.start > _MOST_TEXT:
            raise CheckpointError("is damaged (a name or note is not a text of usual length); fetch it again")
        self.budget.draw(5 * (span.stop - span.start))
        self.file.seek(span.start)
        return self.file.read(span.stop - span.start).decode("utf-8")

    def node(self, span):
        fields = self.message(span)
        kind, name = (self.text(fields[number][-1]) if number in fields else "" for number in (4, 3))
        return Node(kind, name, *([self.text(span) for span in fields.get(number, [])] for number in (1, 2)))

    def tensor(self, span):
        """(name, array), or None where its numbers are no weights."""
        fields = self.message(span)
        name, kind = self.text(_one(fields, 8, "name of an array")), fields.get(2, [0])[-1]
        check_name(name)
        if fields.get(14, [0])[-1] or 13 in fields:
            raise CheckpointError(f"keeps {name} in another file, which is not read; save the model as one file")
        if kind not in _DTYPES:
            return None
        shape, dtype = self._integers(fields.get(1, [])), np.dtype(_DTYPES[kind])
        check_shape(name, shape)
        spans = [span for number in (4, 9, 10) for span in fields.get(number, [])] or [Span(0, 0)]
        count = math.prod(shape)
        if len(spans) > 1 or not isinstance(spans[0], Span) or spans[0].stop - spans[0].start != count * dtype.itemsize:
            raise CheckpointError(f"does not hold the numbers that the shape {shape} of {name} demands; fetch it again")
        self.file.seek(spans[0].start)
        return name, read_numbers(self.file, count, dtype, self.budget, kind == _BFLOAT16).reshape(shape)

    def _integers(self, values):
        """A list of integers, each a field of its own or packed in one."""
        found = []
        for value in values:
            if not isinstance(value, Span):
                found.append(value)
                continue
            self.file.seek(value.start)
            while (place := self.file.tell()) < value.stop:
                self._count(place)
                found.append(self._varint())
        return found

    def _count(self, place):
        self.left -= 1
        if self.left < 0:
            raise CheckpointError(f"has more than {_MOST_FIELDS:,} fields at byte {place:,}; it is refused")
        self.budget.draw(_FIELD)

    def _varint(self):
        """Seven bits a byte, the lowest first; the eighth says that more follow."""
        value = 0
        for i in range(10):
            byte = self.file.read(1)
            if not byte:
                raise CheckpointError("ends within a field; save or fetch it again")
            value |= (byte[0] & 127) << (7 * i)
            if byte[0] < 128:
                return value
        raise CheckpointError("is damaged or in no known format (an absurdly long integer); fetch it again")


def _one(fields, number, what):
    if number not in fields:
        raise CheckpointError(f"is damaged or in no known format (no {what}); save or fetch it again")
    return fields[number][-1]


def _with_own_names(arrays, nodes, budget):
    """Weights alone, under the names of the model that was exported.

    PyTorch's exporter turns the weight of a Linear and calls it onnx::MatMul_7; its bias, or its node, still has the
    layer's name. Of equal arrays it keeps one, and an Identity gives it the other's name.
    """
    adds = {x: node.inputs for node in nodes if node.kind == "Add" for x in node.inputs}
    found, used = {name: array for name, array in arrays.items() if not _GENERATED.fullmatch(name)}, set()
    for node in nodes:
        source = node.inputs[-1] if node.inputs else None
        if node.kind not in ("MatMul", "Identity") or source not in arrays or not node.outputs:
            continue
        name = node.outputs[0]
        if node.kind == "MatMul":
            if source in found:
                continue  # it has its name, and its shape
            biases = [x for x in adds.get(name, []) if x in found and x.endswith("bias")]
            name = biases[0].removesuffix("bias") + "weight" if biases else f"{_layer_of(node.name)}.weight"
        check_name(name)
        if not _GENERATED.fullmatch(name) and name not in found:
            if source in found or source in used:
                budget.draw(arrays[source].nbytes)  # one array under several names is written as several
            found[name] = arrays[source].T if node.kind == "MatMul" else arrays[source]
            used.add(source)
    return _without_wrapper(found)


def _without_wrapper(arrays):
    """Names without the first part where all share it: that of a module around the model, there for the export."""
    outer, inner = {name.partition(".")[0] for name in arrays}, [name.partition(".")[2] for name in arrays]
    wrapped = len(outer) == 1 and all(inner) and any("." in name for name in inner)  # not one Linear alone
    return dict(zip(inner, arrays.values())) if wrapped else arrays


def _layer_of(node):
    """'/blocks/blocks.0/attn/qkv/MatMul' -> 'blocks.0.attn.qkv'; a list's entry repeats the list's name."""
    path = []
    for part in node.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)
