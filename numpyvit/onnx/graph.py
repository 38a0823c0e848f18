"""Building an ONNX graph: values, which NumPy's operators combine, and the products that models are made of.

Shapes: B batch, N and M tokens, D width, H heads, d = D/H.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ..backend import to_host
from ..core import Buffer, Layer, Parameter
from ..errors import ConfigError


class Node(NamedTuple):
    """An operator, the names of what it reads and gives, its own name and its attributes."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict


class Value:
    """An input of a graph, one of its arrays, or what a node gives; operators on it add nodes."""

    def __init__(self, graph: "Graph", name: str):
        self.graph, self.name = graph, name

    def __add__(self, other):
        return self.graph.op("Add", self, other)

    def __sub__(self, other):
        return self.graph.op("Sub", self, other)

    def __mul__(self, other):
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other):
        return self.graph.op("Div", self, other)

    def __matmul__(self, other):
        return self.graph.op("MatMul", self, other)

    def __getitem__(self, places):
        """x[:, 2:], x[:, 0], x[:, ::2, 1::2]: slices, and numbers, which take their axis away."""
        x, axis = self, 0
        for place in places if isinstance(places, tuple) else (places,):
            if isinstance(place, slice):
                x, axis = x._sliced(place, axis), axis + 1
            else:
                x = self.graph.op("Gather", x, np.int64(place), axis=axis)
        return x

    def _sliced(self, place, axis):
        if place == slice(None):
            return self
        start, stop = place.start or 0, np.iinfo(np.int64).max if place.stop is None else place.stop
        return self.graph.op("Slice", self, *(np.array([n]) for n in (start, stop, axis, place.step or 1)))

    def reshape(self, *shape: int) -> "Value":
        """The same numbers in another shape: 0 keeps a side, -1 is the rest."""
        return self.graph.op("Reshape", self, np.array(shape))

    def transpose(self, *axes: int) -> "Value":
        return self.graph.op("Transpose", self, perm=axes)

    def mean(self, axes: int | tuple[int, ...]) -> "Value":
        axes = np.atleast_1d(axes)
        if self.graph.opset < 18:  # until then the axes were an attribute
            return self.graph.op("ReduceMean", self, axes=axes.tolist(), keepdims=0)
        return self.graph.op("ReduceMean", self, axes, keepdims=0)


class Graph:
    """Nodes in the order in which they run, each under its layer's dotted name, and the arrays that they read.

    opset: the version of ONNX's operators; rules: for each class of layers the function that adds its nodes, called
    as rule(graph, layer, *inputs). Parameters and saved buffers keep their dotted names and their shapes, so that a
    file's weights can be read again; other arrays have a name that begins with "/".
    """

    def __init__(self, model: Layer, rules: Mapping[type, Callable], opset: int):
        self.opset, self._rules, self._scope = opset, rules, ""
        self._layer_names = {layer: name for name, layer in model.named_layers()}
        self._array_names = {array: name for name, array in (*model.named_parameters(), *model.saved_buffers())}
        self.nodes, self.arrays, self._constants = [], {}, {}

    def run(self, layer: Layer, *inputs):
        """What a layer makes of its inputs. Errors: ConfigError for a layer without a rule."""
        outer, self._scope = self._scope, self._layer_names.get(layer, self._scope)
        result = self._rule_for(layer)(self, layer, *inputs)
        self._scope = outer
        return result

    def _rule_for(self, layer):
        """The rule of the layer's class, or of the base whose forward it has."""
        for kind in type(layer).__mro__:
            if kind in self._rules:
                return self._rules[kind]
            if "forward" in vars(kind):
                break
        raise ConfigError(
            f"{self._scope or 'the model'}: a {type(layer).__name__} cannot be written as ONNX; replace it by a layer "
            "of numpyvit.layers, or export what stands before it"
        )

    def name(self, value: Value, name: str) -> None:
        """Give a value another name, by which a graph's outputs are known."""
        self.nodes.append(Node("Identity", [value.name], [name], name, {}))

    def op(self, kind: str, *inputs, **attributes) -> Value:
        """A node with one output. Inputs that are not values are arrays."""
        return self._node(kind, inputs, 1, attributes)[0]

    def _node(self, kind, inputs, outputs, attributes):
        name = f"/{self._scope}/{kind}_{len(self.nodes)}"
        found = [f"{name}:{i}" for i in range(outputs)]
        names = [self.value(x).name for x in inputs]
        self.nodes.append(Node(kind, names, found, name, attributes))
        return [Value(self, output) for output in found]

    def value(self, x) -> Value:
        """A value as it is; a Parameter, a Buffer, an array or a number as an array of the graph, each once."""
        if isinstance(x, Value):
            return x
        array = np.asarray(to_host(x.data) if isinstance(x, (Parameter, Buffer)) else x)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        name = self._array_names.get(x) if isinstance(x, (Parameter, Buffer)) else None
        if name is None:  # equal ones once: scalars, shapes, the masks of windows
            key = array.dtype, array.shape, array.tobytes()
            name = self._constants.setdefault(key, f"/constants/{len(self._constants)}")
        self.arrays[name] = array
        return Value(self, name)

    # ---- what models are made of ------------------------------------------------------------------------------------

    def linear(self, x: Value, weight, bias=None) -> Value:
        """y = x Wᵀ + b.   x: (..., in), weight: (out, in), bias: (out,) or None."""
        y = x @ self.op("Transpose", weight, perm=(1, 0))  # runtimes do this once, when they load the file
        return y if bias is None else y + bias

    def split(self, x: Value, parts: int, width: int, axis: int) -> list[Value]:
        """Equal parts along an axis, each `width` long."""
        return self._node("Split", (x, np.full(parts, width)), parts, {"axis": axis})

    def concat(self, values: list, axis: int) -> Value:
        return self.op("Concat", *values, axis=axis) if len(values) > 1 else self.value(values[0])

    def size(self, x: Value, axis: int) -> Value:
        """The length of an axis, as an array of one integer."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def for_each(self, array, images: Value) -> Value:
        """An array (1, …) of three axes, once for each image of a batch."""
        return self.op("Expand", array, self.concat([self.size(images, 0), np.array([1, 1])], 0))

    def gelu(self, x: Value) -> Value:
        """y = x Φ(x)."""
        if self.opset >= 20:
            return self.op("Gelu", x)
        return x * (self.op("Erf", x * math.sqrt(0.5)) + 1.0) * 0.5

    def gelu_tanh(self, x: Value) -> Value:
        """y = x/2 (1 + tanh u),   u = √(2/π) (x + 0.044715 x³)."""
        if self.opset >= 20:
            return self.op("Gelu", x, approximate="tanh")
        u = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * (self.op("Tanh", u) + 1.0) * 0.5

    def on_map(self, channels) -> Value:
        """(C,) -> (C, 1, 1), one number for each channel of a map."""
        return self.value(channels).reshape(-1, 1, 1)

    def heads(self, x: Value, number: int) -> Value:
        """(B, N, D) -> (B, H, N, d)."""
        return x.reshape(0, 0, number, -1).transpose(0, 2, 1, 3)

    def join_heads(self, x: Value) -> Value:
        """(B, H, N, d) -> (B, N, D)."""
        return x.transpose(0, 2, 1, 3).reshape(0, 0, -1)

    def attention(self, q: Value, k: Value, v: Value, scale: float, bias=None) -> Value:
        """softmax(s q kᵀ + bias) v.   q: (B, H, N, d), k and v: (B, H, M, d), bias: (H, N, M) or None."""
        if self.opset >= 23:
            return self.op("Attention", q, k, v, *([] if bias is None else [bias]), scale=scale)
        scores = (q * scale) @ k.transpose(0, 1, 3, 2)
        return self.op("Softmax", scores if bias is None else scores + bias, axis=-1) @ v
