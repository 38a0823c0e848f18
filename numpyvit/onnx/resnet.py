"""ResNets as ONNX, for images of any size. Runtimes make each convolution and its frozen norm one product."""

from .. import layers
from ..models import ResNet
from .common import sequence
from .graph import Graph, Value


def resnet(graph: Graph, model: ResNet, x: Value) -> Value:
    return graph.run(model.fc, features(graph, model, x).mean((2, 3)))


def features(graph: Graph, model: ResNet, x: Value) -> Value:
    """(B, C, H, W) -> the map after the last stage."""
    x = graph.run(model.stem, x)
    for stage in model.stages:
        x = graph.run(stage, x)
    return x


def stem(graph: Graph, layer: layers.Stem, x: Value) -> Value:
    x = graph.run(layer.relu, graph.run(layer.bn1, graph.run(layer.conv1, x)))
    return graph.run(layer.maxpool, x)


def basic_block(graph: Graph, block: layers.BasicBlock, x: Value) -> Value:
    y = graph.run(block.relu1, graph.run(block.bn1, graph.run(block.conv1, x)))
    y = graph.run(block.bn2, graph.run(block.conv2, y))
    return graph.run(block.relu2, y + graph.run(block.downsample, x))


def bottleneck(graph: Graph, block: layers.Bottleneck, x: Value) -> Value:
    y = graph.run(block.relu1, graph.run(block.bn1, graph.run(block.conv1, x)))
    y = graph.run(block.relu2, graph.run(block.bn2, graph.run(block.conv2, y)))
    y = graph.run(block.bn3, graph.run(block.conv3, y))
    return graph.run(block.relu3, y + graph.run(block.downsample, x))


RULES = {
    ResNet: resnet,
    layers.Stem: stem,
    layers.ConvNorm: sequence,
    layers.BasicBlock: basic_block,
    layers.Bottleneck: bottleneck,
}
