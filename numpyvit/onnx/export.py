"""Writing a model as an ONNX file."""

import os
from types import ModuleType

import numpy as np

from .. import __version__
from ..data.preprocessing import Preprocessing
from ..errors import ConfigError
from ..files.atomic import to_json, write_atomically
from ..models import DETR, Model, ResNet
from ..weights.checkpoint import recipe_of
from . import common, detr, resnet, swin, vit
from .graph import Graph, Value

OPSETS = range(17, 24)
RULES = {kind: rule for family in (common, vit, swin, resnet, detr) for kind, rule in family.RULES.items()}
_FLOAT = 1  # TensorProto.FLOAT
_MOST_BYTES = (1 << 31) - (1 << 20)  # an ONNX file is one message of protobuf, which ends at 2 GiB


def export_onnx(model: Model, path: str | os.PathLike, opset: int = 17, with_preprocessing: bool = False) -> None:
    """Write a model as an ONNX file in float32, for inference by other runtimes: whole or not at all.

    Input "images": (batch, C, H, W) float32, normalized, of any batch; H and W are the model's, or free where the model
    takes images of any size (ResNet, DETR). Outputs: "logits" (batch, K); of a model without a head "features"
    (batch, D); of DETR "pred_logits" (batch, Q, K+1) and "pred_boxes" (batch, Q, 4), for images without padding.

    opset:              the version of ONNX's operators, 17 to 23. A later one says more in one operator: Gelu at 20,
                        Attention at 23; runtimes of 2022 know 17.
    with_preprocessing: "images" are then (batch, H, W, C) uint8, resized and cropped as decoders give them, and are
                        normalized in the graph.

    How images are prepared, the names of classes and how to make the model again stand in the file's metadata. Its
    weights keep their names, so that load_checkpoint and create_model(pretrained=…) read it.
    Errors: ConfigError for a layer that cannot be written, a model of 2 GiB, or without the onnx library;
    RunError on a full or read-only disk.
    """
    onnx = import_onnx()
    if opset not in OPSETS:
        raise ConfigError(f"opset must be one of {OPSETS[0]} to {OPSETS[-1]}, got {opset!r}")
    if not isinstance(model, Model):
        raise ConfigError(f"export_onnx takes a model, such as create_model makes; got a {type(model).__name__}")
    size = 4 * model.num_parameters()
    if size > _MOST_BYTES:
        raise ConfigError(f"an ONNX file holds less than 2 GiB, but the model has {size:,} bytes of weights in float32")
    graph = Graph(model, RULES, opset)
    images = Value(graph, "images")
    found = graph.run(model, normalized(images, model.preprocessing) if with_preprocessing else images)
    outputs = output_shapes(model)
    for name, value in zip(outputs, found.values() if isinstance(found, dict) else [found]):
        graph.name(value, name)
    proto = to_proto(onnx, graph, input_shape(model, with_preprocessing), with_preprocessing, outputs)
    onnx.helper.set_model_props(proto, {"numpyvit": to_json(notes(model))})
    onnx.checker.check_model(proto, full_check=True)
    write_atomically(path, proto.SerializeToString(deterministic=True))


def import_onnx() -> ModuleType:
    try:
        import onnx
    except ImportError:
        raise ConfigError("ONNX files are written by the library onnx: pip install numpyvit[onnx]") from None
    return onnx


def normalized(images: Value, preprocessing: Preprocessing) -> Value:
    """(B, H, W, C) uint8 -> (x/255 − mean)/std, (B, C, H, W)."""
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    x = images.graph.op("Cast", images.transpose(0, 3, 1, 2), to=_FLOAT)
    return x * (1 / (255 * std)) - mean / std


def input_shape(model: Model, with_preprocessing: bool) -> tuple:
    """The shape of the images; names are lengths that are free."""
    channels, *size = model.input_shape
    height, width = ("height", "width") if isinstance(model, (ResNet, DETR)) else size
    return ("batch", height, width, channels) if with_preprocessing else ("batch", channels, height, width)


def output_shapes(model: Model) -> dict[str, tuple]:
    """{name: shape} of what the model gives, in its order."""
    if isinstance(model, DETR):
        queries = ("batch", model.num_queries)
        return {"pred_logits": (*queries, model.num_classes + 1), "pred_boxes": (*queries, 4)}
    name, width = ("logits", model.num_classes) if model.num_classes else ("features", model.num_features)
    return {name: ("batch", width)}


def notes(model: Model) -> dict:
    """What the file says of how images are prepared, of the classes, and of how to make the model again."""
    known = {"classes": getattr(model, "pretrained_cfg", {}).get("classes"), "input_size": model.input_shape}
    return {**recipe_of(model), **model.preprocessing.as_dict(), **known}


def to_proto(onnx: ModuleType, graph: Graph, image_shape: tuple, uint8: bool, outputs: dict[str, tuple]):
    """A graph as onnx has it, under the oldest version of the format that knows its operators."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8 if uint8 else float32, image_shape)]
    found = [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs.items()]
    nodes = [helper.make_node(kind, *names, **attributes) for kind, *names, attributes in graph.nodes]
    arrays = [onnx.numpy_helper.from_array(np.asarray(a, order="C"), name) for name, a in graph.arrays.items()]
    opsets = [helper.make_opsetid("", graph.opset)]
    return helper.make_model(
        helper.make_graph(nodes, "numpyvit", inputs, found, arrays),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # runtimes refuse a newer one than they know
        producer_name="numpyvit",
        producer_version=__version__,
    )
