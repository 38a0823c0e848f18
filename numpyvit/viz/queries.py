"""What the queries of a detector look at: the figure of DETR   (Carion et al. 2020, arXiv:2005.12872, fig. 6).

Shapes: L decoder layers, H heads, Q queries, and the grid of the tokens with its rows and columns.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, to_host
from ..core import Layer, Tape
from ..errors import ConfigError
from ..metrics import best_classes
from .attention import finite, one_image, place
from .boxes import tag_text
from .sheet import Tile, color_tiles, draw_sheet, outlined

FOUND = 0.5  # the least score of a box that counts as found
_MOST = 8  # queries on a sheet
_FINER = 4  # cells for each token, in each direction


@dataclass(frozen=True)
class QueryAttention:
    """What each query looked at in an image, and what it found.

    maps:   (Q, rows, columns); each sums to 1.
    boxes:  (Q, 4), center x, center y, width and height in 0..1.
    labels: (Q,), the class of highest probability, "no object" aside; scores: (Q,), its probability.
    shown:  which maps these are: "decoder layer 6, mean of heads".
    """

    maps: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    shown: str

    def best(self, most: int = _MOST) -> list[int]:
        """The queries that found something, best first; where none did, the best of them."""
        order = np.argsort(-self.scores, kind="stable")[:most].tolist()
        return [query for query in order if self.scores[query] >= FOUND] or order[:1]


def query_attention_maps(model: Layer, image: Array) -> np.ndarray:
    """The cross-attention of every decoder layer and head: (L, H, Q, rows, columns); each map sums to 1.

    image: (C, H, W) or (1, C, H, W), prepared as for the model.
    Errors: ConfigError for a model without queries.
    """
    return _forward(model, image)[0]


def query_attention(model: Layer, image: Array, layer: int = -1, head: int | None = None) -> QueryAttention:
    """What each query of a detector looks at, in one decoder layer, and the box that it gives.

        map of query i = mean over heads of softmax(qᵢ kᵀ/√d)   over the tokens of the image.

    layer, head: counted from 0, negative ones from the end; default the last layer and the mean of the heads.
    Errors: ConfigError for a model without queries, or where it has no such layer or head.
    """
    layers = attention_of_heads(model, image)
    found, maps = layers[place("decoder layer", layer, len(layers))]
    if head is None:
        return found
    head = place("head", head, len(maps))
    return replace(found, maps=maps[head], shown=found.shown.replace("mean of heads", f"head {head + 1}"))


def attention_of_heads(model: Layer, image: Array) -> list[tuple[QueryAttention, np.ndarray]]:
    """Of each decoder layer what query_attention returns for the mean of the heads, and each head's maps.

    The maps are (H, Q, rows, columns).
    """
    layers, outputs = _forward(model, image)
    labels, scores = best_classes(outputs["pred_logits"])
    shown = "decoder layer {}, mean of heads"
    return [
        (QueryAttention(maps.mean(0), outputs["pred_boxes"], labels, scores, shown.format(number)), maps)
        for number, maps in enumerate(layers, 1)
    ]


def draw_query_attention(
    found: QueryAttention,
    pixels: np.ndarray,
    path: str | os.PathLike,
    classes: Sequence[str],
    title: str = "",
    query: int | None = None,
) -> None:
    """A sheet as PNG: the image, and for each box that was found, best first and at most 8, what its query looks at.

    The box is outlined on its map, its class and score stand below. All maps share one scale.

    found: of query_attention; pixels: the image, (C, H, W) uint8; classes: names, by label.
    query: this one alone, counted from 0, whatever it found; negative ones count from the end.
    Errors: ConfigError where there is no such query.
    """
    tiles = _tiles(found, classes, found.best() if query is None else [place("query", query, len(found.scores))])
    unit, tile_size = f"{found.shown}; 1 is an even share", 224 if query is None else 448
    draw_sheet(pixels, tiles, path, query_caption(found, title), unit, tile_size)


def query_overview(
    model: Layer, image: Array, pixels: np.ndarray, classes: Sequence[str], most: int = 7, tile_size: int = 160
) -> list[tuple]:
    """[(name, Pillow image), …]: the image with the boxes that were found, and what the query of each looks at.

    Best first, at most so many, in the last decoder layer; all maps share one scale. image: (C, H, W), prepared as for
    the model; pixels: the same, (C, H, W) uint8; classes: names, by label.
    Errors: ConfigError for a model without queries.
    """
    found = query_attention(model, image)
    tiles = _tiles(found, classes, found.best(most))
    drawn, _ = color_tiles(pixels, tiles, tile_size)
    return [(tile.name, outlined(image, tile.outlines)) for tile, image in zip(tiles, drawn)]


def query_caption(found: QueryAttention, title: str = "") -> str:
    """The title with how many boxes were found:   street.jpg: 3 boxes."""
    count = int((found.scores >= FOUND).sum())
    return f"{title}{': ' if title else ''}{count or 'no'} {'box' if count == 1 else 'boxes'}"


def _forward(model, image):
    """-> the maps (L, H, Q, rows, columns), and what the queries gave for this image."""
    if not model.cross_attention_layers:
        raise ConfigError(f"a {type(model).__name__} has no queries whose attention could be shown; choose a DETR")
    tape = Tape(model, record_all=True)
    outputs = model.forward(one_image(image), tape)
    maps = finite([to_host(maps)[0] for maps in model.query_attention_on_grid(tape)])
    return np.stack(maps), {name: to_host(outputs[name])[0] for name in ("pred_logits", "pred_boxes")}


def _tiles(found, classes, chosen):
    """The image with the boxes of these queries, and the map of each."""
    outlines = {i: _outline(found.boxes[i]) for i in chosen}
    tiles = [Tile("image", outlines=tuple(outlines.values()))]
    for i, outline in outlines.items():
        name, shares = tag_text(classes[found.labels[i]], found.scores[i]), found.maps[i] * found.maps[i].size
        tiles.append(Tile(f"query {i + 1}: {name}", _in_place(shares), outlines=(outline,)))
    return tiles


def _in_place(values):
    """A map (rows, columns) in finer cells, each token where it lies.

    Convolutions of stride s and odd kernels, padded on both sides, center token i on pixel s·i: at the upper left of
    its cell. Drawn in the cell's middle, every map would seem to look past its object, to the lower right.
    """
    return np.apply_along_axis(_finer, 1, np.apply_along_axis(_finer, 0, values))


def _finer(line):
    return np.interp((np.arange(_FINER * len(line)) + 0.5) / _FINER, np.arange(len(line)), line)


def _outline(box):
    """Center and size -> (top, left, bottom, right), within the image."""
    x, y, width, height = box
    return tuple(np.clip([y - height / 2, x - width / 2, y + height / 2, x + width / 2], 0, 1).tolist())
