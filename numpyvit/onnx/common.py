"""Single layers as ONNX: what stands in models of every family."""

from typing import Any

import numpy as np

from .. import layers
from ..core import Layer, Recompute
from .graph import Graph, Value


def identity(graph: Graph, layer: Layer, x: Value, *others: Any) -> Value:
    return x


def run_inner(graph: Graph, layer: Recompute, *inputs: Value) -> Value:
    return graph.run(layer.layer, *inputs)


def sequence(graph: Graph, layer: layers.Sequence, x: Value, *others: Any) -> Value:
    for part in layer.layers:
        x = graph.run(part, x, *others)
    return x


def linear(graph: Graph, layer: layers.Linear, x: Value) -> Value:
    return graph.linear(x, layer.weight, layer.bias)


def mlp(graph: Graph, layer: layers.Mlp, x: Value) -> Value:
    return graph.run(layer.fc2, graph.run(layer.act, graph.run(layer.fc1, x)))


def perceptron(graph: Graph, layer: layers.Perceptron, x: Value) -> Value:
    *hidden, last = layer.layers
    for part in hidden:
        x = graph.run(layer.relu, graph.run(part, x))
    return graph.run(last, x)


def layer_norm(graph: Graph, layer: layers.LayerNorm, x: Value) -> Value:
    return graph.op("LayerNormalization", x, layer.weight, layer.bias, axis=-1, epsilon=layer.eps)


def layer_scale(graph: Graph, layer: layers.LayerScale, x: Value) -> Value:
    return x * layer.gamma


def conv2d(graph: Graph, layer: layers.Conv2d, x: Value) -> Value:
    options = dict(strides=layer.stride, pads=2 * layer.padding, dilations=layer.dilation)
    return graph.op("Conv", x, *filter(None, (layer.weight, layer.bias)), **options)


def max_pool2d(graph: Graph, layer: layers.MaxPool2d, x: Value) -> Value:
    options = dict(kernel_shape=layer.kernel_size, strides=layer.stride, pads=2 * layer.padding)
    return graph.op("MaxPool", x, **options)


def batch_norm(graph: Graph, layer: layers.FrozenBatchNorm2d, x: Value) -> Value:
    statistics = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    return graph.op("BatchNormalization", x, *statistics, epsilon=layer.eps)


def group_norm(graph: Graph, layer: layers.GroupNorm, x: Value) -> Value:
    """A group as one long row, whose normalization ONNX calls that of an instance."""
    ones, zeros = np.ones(layer.num_groups), np.zeros(layer.num_groups)
    rows = x.reshape(0, layer.num_groups, -1)
    rows = graph.op("InstanceNormalization", rows, ones, zeros, epsilon=layer.eps)
    xhat = graph.op("Reshape", rows, graph.op("Shape", x))
    return xhat * graph.on_map(layer.weight) + graph.on_map(layer.bias)


RULES = {
    Recompute: run_inner,
    layers.Identity: identity,
    layers.Dropout: identity,
    layers.Sequence: sequence,
    layers.GELU: lambda graph, layer, x: graph.gelu(x),
    layers.GELUTanh: lambda graph, layer, x: graph.gelu_tanh(x),
    layers.Tanh: lambda graph, layer, x: graph.op("Tanh", x),
    layers.ReLU: lambda graph, layer, x: graph.op("Relu", x),
    layers.Softmax: lambda graph, layer, x: graph.op("Softmax", x, axis=layer.axis),
    layers.Linear: linear,
    layers.Mlp: mlp,
    layers.Perceptron: perceptron,
    layers.LayerNorm: layer_norm,
    layers.LayerScale: layer_scale,
    layers.GroupNorm: group_norm,
    layers.FrozenBatchNorm2d: batch_norm,
    layers.Conv2d: conv2d,
    layers.MaxPool2d: max_pool2d,
}
