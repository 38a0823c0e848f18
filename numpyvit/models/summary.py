"""A model layer by layer: output shapes, parameters and multiply-adds."""

from dataclasses import dataclass

from ..backend import array_module
from ..core import Forget, Layer, observing_calls
from ..errors import ConfigError


@dataclass(frozen=True)
class Row:
    """A layer with all that is inside it. level: how many layers stand around it, the model left out."""

    name: str
    kind: str
    level: int
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """A table that prints itself.

    rows:          each listed layer that holds parameters or computes products, in the order in which the data passes.
    parameters, trainable: numbers in the whole model, and those of them that are not frozen.
    multiply_adds: of the whole model, for one image.
    """

    model: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    multiply_adds: int

    def __str__(self):
        head = ("layer", "", "output shape", "parameters", "multiply-adds")
        total = (self.model, "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}")
        lines = [head, *map(_cells, self.rows), total]
        widths = [max(map(len, column)) for column in zip(*lines)]
        head, *lines, total = ["  ".join(map(_aligned, cells, widths, "<<<>>")).rstrip() for cells in lines]
        frozen = f", {self.parameters - self.trainable:,} of them frozen" if self.trainable < self.parameters else ""
        end = (
            f"image of {_shown(self.input_shape)}: {rounded(self.multiply_adds)} multiply-adds; "
            f"{rounded(self.parameters)} parameters{frozen}"
        )
        line = "-" * len(head)
        return "\n".join([head, line, *lines, line, total, "", end])


def summary(model: Layer, input_shape: tuple[int, ...] | None = None, depth: int = 2) -> Summary:
    """A table of a model's layers, from one image sent through it.

        print(nv.summary(model))

    input_shape: (C, H, W) of the image; default model.input_shape. depth: how many levels of layers to list.
    A row counts all that is inside its layer. Counted are the products of matrices, attention's scores and weighted
    values among them, as timm and fvcore do: a multiplication with its addition is one. Norms, activations and sums
    are not. All tokens are computed to the end, also where the model itself needs only the class token's.
    """
    own, shapes = {}, {}

    def look(name, layer, inputs, output):
        counted = layer.own_multiply_adds(output, *(value for value in inputs if hasattr(value, "shape")))
        own[layer] = own.get(layer, 0) + counted
        shapes[layer] = _shape(output)

    shape = input_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise ConfigError(f"a {type(model).__name__} has no input_shape of its own; give one, without the batch")
    image = _blank(model, shape)
    with observing_calls(model, look):
        model.forward(image, _AllTokens())
    rows = [row for row in _rows(model, "", 0, own, shapes, depth) if row.parameters or row.multiply_adds]
    sizes = [(p.data.size, p.trainable) for _, p in model.named_parameters()]
    total, trainable = sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
    return Summary(type(model).__name__, image.shape[1:], tuple(rows), total, trainable, sum(own.values()))


class _AllTokens(Forget):
    """The tape of inference that has every token computed."""

    record_all = True


def _blank(model, shape):
    """An image of zeros where the model is, in its type."""
    data = next(parameter.data for _, parameter in model.named_parameters())
    return array_module(data).zeros((1, *shape), data.dtype)


def _rows(layer, prefix, level, own, shapes, depth):
    for name, child in layer.children():
        if not isinstance(child, Layer) or level == depth:
            continue
        inner = {id(part): part for _, part in child.named_layers()}.values()  # each once
        multiply_adds = sum(own.get(part, 0) for part in inner)
        path = prefix + name
        kind = type(child).__name__
        yield Row(path, kind, level, shapes.get(child), child.num_parameters(), multiply_adds)
        yield from _rows(child, prefix if child.transparent else f"{path}.", level + 1, own, shapes, depth)


def _shape(output):
    """The shape of an array, or of the first in a tuple, list or dict."""
    while not hasattr(output, "shape"):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return tuple(output.shape)


def _cells(row):
    name = "  " * row.level + row.name
    return name, row.kind, _shown(row.output_shape), f"{row.parameters:,}", f"{row.multiply_adds:,}"


def _aligned(text, width, side):
    return f"{text:{side}{width}}"


def _shown(shape):
    return "" if shape is None else "×".join(map(str, shape))


def rounded(number: int) -> str:
    """1,254,000,000 as "1.254 G"."""
    power = min((len(str(number)) - 1) // 3, 4)
    return f"{number / 1000**power:.4g} {' kMGT'[power]}".rstrip()
