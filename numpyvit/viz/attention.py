"""What a model looks at: attention maps, rollout, gradient-weighted attention, position embedding, patch filters.

Shapes: L blocks, H heads, T class and distillation tokens, N patches on a grid of rows and columns, D width.
"""

import os

import numpy as np

from ..backend import Array, array_module, to_host
from ..core import Layer, Tape, observing
from ..errors import ConfigError, NonFiniteError, ShapeError
from ..functional import softmax
from ..layers import Attention
from ..models import class_names
from .sheet import Tile, color_tiles, draw_sheet


def attention_maps(model: Layer, image: Array) -> np.ndarray:
    """The attention probabilities of every block and head: (L, H, T+N, T+N); each row sums to 1.

    image: (C, H, W) or (1, C, H, W), prepared as for the model.
    """
    return np.stack(_attention_on_tape(model, image)[1])


def attention_grids(model: Layer, image: Array, patch: tuple[int, int] | None = None) -> list[np.ndarray]:
    """What each block looks at, on the grid of its tokens: a list of (H, rows, columns), 1 an even share.

    The class token's attention to each patch; of a model without one the attention that each token receives, in a Swin
    from the tokens of its window, stitched together, with grids that get coarser from stage to stage.

    patch: (row, column) on the grid of patches, counted from 0: the attention of that patch to the others instead; in
           a Swin 0 outside its window, and in later stages that of the token which it was merged into.
    Errors: ConfigError for a patch outside the grid, or a model without attention.
    """
    check_shows_attention(model)
    batch, tape = one_image(image), Tape(model, record_all=True)
    model.forward(batch, tape)
    grids = model.attention_on_grid(tape, batch.shape[2:], patch)
    return finite([to_host(maps)[0] for maps in grids])


def check_shows_attention(model: Layer) -> None:
    """Errors: ConfigError for a model without attention."""
    if not model.attention_layers:
        raise ConfigError(f"a {type(model).__name__} has no attention to show; choose a ViT, a DeiT or a Swin")


def attends_to_all(model: Layer) -> bool:
    """Whether each token looks at all others, so that attention_maps, rollout and gradient_attention are defined."""
    return any(isinstance(layer, Attention) for layer in model.attention_layers)


def attention_rollout(maps: np.ndarray) -> np.ndarray:
    """How much of each input token reaches each output token   (Abnar & Zuidema 2020, arXiv:2005.00928).

    R = Π (A + I)/2 over the blocks, A the mean over heads; the identity is the residual branch.
    maps: (L, H, T+N, T+N) -> (T+N, T+N), rows sum to 1.
    """
    rollout = np.eye(maps.shape[-1])
    for heads in maps:
        rollout = (heads.mean(0) + np.eye(len(rollout))) / 2 @ rollout
    return rollout


def gradient_attention(model: Layer, image: Array, class_index: int | None = None) -> np.ndarray:
    """Attention weighted by its gradient for one class   (Chefer et al. 2021, arXiv:2103.15679, §3.2).

    R = I, then block by block   R = R + mean_h max(∂logit/∂A · A, 0) R.   The gradient comes from the model's own
    backward. class_index: default the most probable class. -> (T+N, T+N); the class token's row tells where the
    evidence is.
    """
    tape, maps, logits = _attention_on_tape(model, image)
    heads = logits if isinstance(logits, tuple) else (logits,)
    class_index = int(sum(map(to_host, heads)).argmax()) if class_index is None else class_index
    if not 0 <= class_index < heads[0].shape[-1]:
        raise ConfigError(f"class {class_index} lies outside the model's 0..{heads[0].shape[-1] - 1}")
    gradients = []
    for head in heads:
        gradient = array_module(head).zeros(head.shape, dtype=head.dtype)
        gradient[:, class_index] = 1 / len(heads)
        gradients.append(gradient)
    values = {id(layer): layer.values_and_probabilities(kept)[0] for layer, kept in _kept_by_attention(tape)}
    projections = {f"{name}.proj": layer for name, layer in model.named_layers() if isinstance(layer, Attention)}
    found = []

    def look(name, layer, dout):  # dA = dout vᵀ, head by head
        if name in projections:
            attention = projections[name]
            _, N, D = dout.shape
            dout = dout.reshape(N, attention.num_heads, D // attention.num_heads).transpose(1, 0, 2)
            found.append(to_host(dout @ values[id(attention)][0].swapaxes(-1, -2)))

    with observing(model, look, "backward"):
        model.backward(tuple(gradients) if len(heads) > 1 else gradients[0], tape)
    relevance = np.eye(maps[0].shape[-1])
    for p, dp in zip(maps, reversed(found)):
        relevance = relevance + np.maximum(p * dp, 0).mean(0) @ relevance
    return relevance


def _attention_on_tape(model, image):
    """-> the tape of a pass, the probabilities (H, T+N, T+N) of each block, and the logits."""
    tape = Tape(model, record_all=True)
    logits = model.forward(one_image(image), tape)
    maps = [to_host(layer.values_and_probabilities(kept)[1])[0] for layer, kept in _kept_by_attention(tape)]
    if not maps:
        raise ConfigError(f"a {type(model).__name__} has no attention over all tokens to show; choose a ViT or a DeiT")
    return tape, finite(maps), logits


def finite(maps: list[np.ndarray]) -> list[np.ndarray]:
    """The maps. Errors: NonFiniteError where one is not finite."""
    if not all(np.isfinite(values).all() for values in maps):
        raise NonFiniteError("the attention is not finite: the model's weights are too large, or hold NaN")
    return maps


def _kept_by_attention(tape):
    return [(layer, kept) for layer, kept in tape.residuals() if isinstance(layer, Attention)]


def one_image(image: Array) -> Array:
    """(C, H, W) or (1, C, H, W) -> (1, C, H, W)."""
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[0] != 1:
        raise ShapeError(f"expected one image (C, H, W) or (1, C, H, W), got shape {image.shape}")
    return batch


def on_grid(model: Layer, row: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """A row of attention (T+N,) to an image of (height, width) without the tokens, as (rows, columns) of patches."""
    return row[model.num_prefix_tokens :].reshape(model.grid_for(image_size))


def pos_embed_similarity(model: Layer) -> np.ndarray:
    """Cosine of each patch's position embedding with every other's: (rows, columns, rows, columns).

    Errors: ConfigError for a model without one, such as a Swin.
    """
    if not hasattr(model, "pos_embed"):
        raise ConfigError(f"a {type(model).__name__} has no position embedding to compare; choose a ViT or a DeiT")
    pos = to_host(model.pos_embed.data)[0, model.num_prefix_positions :]
    unit = pos / np.maximum(np.linalg.norm(pos, axis=1, keepdims=True), 1e-12)
    grid = model.grid_for(model.input_shape[1:])
    return (unit @ unit.T).reshape(*grid, *grid)


def patch_filters(model: Layer, count: int = 28) -> np.ndarray:
    """The first principal components of the weights that meet the images, as images: (count, C, Ph, Pw) in 0..1."""
    weight = to_host(dict(model.named_parameters())[model.image_weight].data)
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    components = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:count]
    low, high = components.min(1, keepdims=True), components.max(1, keepdims=True)
    return ((components - low) / np.maximum(high - low, 1e-12)).reshape(-1, *weight.shape[1:])


# ---- sheets ---------------------------------------------------------------------------------------------------------


def draw_attention(
    model: Layer,
    image: Array,
    pixels: np.ndarray,
    path: str | os.PathLike,
    title: str = "",
    class_index: int | None = None,
    tile_size: int = 224,
    patch: tuple[int, int] | None = None,
) -> None:
    """A sheet as PNG: the image, rollout and gradient-weighted attention, each head of the last block, and the mean of
    the heads block by block. Heads and blocks share one scale; the predicted class stands above.

    Rollout and gradient are the class token's: the sheet of a model without one, or of a patch, leaves them out.

    image: (C, H, W) prepared for the model; pixels: (C, H, W) uint8, the same before it was normalized.
    class_index: whose gradient; default the most probable class. tile_size: pixels of each map's longer side.
    patch: (row, column), whose attention is shown and which is outlined; default as in attention_grids.
    """
    grids, last = attention_grids(model, image, patch), len(model.attention_layers) - 1
    tiles = [Tile("image")]
    if _has_class_token(model) and patch is None:
        tiles += _class_token_tiles(model, image, class_index)
    elif class_index is not None:
        raise ConfigError("the gradient of a class is shown for the class token of a ViT alone; leave out the class")
    tiles += [_map_tile(grids, last, head) for head in range(len(grids[last]))]
    tiles += [_map_tile(grids, layer) for layer in range(len(grids))]
    words = (caption(model, image, title), _unit(model, patch))
    draw_sheet(pixels, tiles, path, *words, tile_size, _outline(model, pixels, patch))


def draw_attention_map(
    model: Layer,
    image: Array,
    pixels: np.ndarray,
    path: str | os.PathLike,
    layer: int = -1,
    head: int | None = None,
    title: str = "",
    patch: tuple[int, int] | None = None,
) -> None:
    """One block's attention as PNG, beside the image: the mean of the heads, or one of them.

    layer, head: counted from 0, negative ones from the end. Other arguments: see draw_attention.
    Errors: ConfigError where the model has no such block or head.
    """
    grids = attention_grids(model, image, patch)
    layer = place("block", layer, len(grids))
    head = None if head is None else place("head", head, len(grids[layer]))
    tiles = [Tile("image"), _map_tile(grids, layer, head)]
    words = (caption(model, image, title), _unit(model, patch))
    draw_sheet(pixels, tiles, path, *words, 448, _outline(model, pixels, patch))


def attention_overview(model: Layer, image: Array, pixels: np.ndarray, tile_size: int = 160) -> list[tuple]:
    """[(name, Pillow image), …]: the image, the mean of the last block's heads, of a class token rollout and gradient.

    Each map has its own scale. Arguments: see draw_attention.
    Errors: ConfigError for a model without attention.
    """
    grids = attention_grids(model, image)
    tiles = [Tile("image"), Tile("last block", grids[-1].mean(0), own_scale=True)]
    if _has_class_token(model):
        tiles += _class_token_tiles(model, image, None)
    drawn, _ = color_tiles(pixels, tiles, tile_size)
    return [(tile.name, image) for tile, image in zip(tiles, drawn)]


def caption(model: Layer, image: Array, title: str = "") -> str:
    """The title with the most probable class and its probability:   cat.jpg: tabby, 53.1%."""
    if model.num_classes == 0:
        return title
    probabilities = softmax(to_host(model(one_image(image))))[0]
    index = int(probabilities.argmax())
    return f"{title}{': ' if title else ''}{class_names(model)[index]}, {probabilities[index]:.1%}"


def _has_class_token(model):
    return attends_to_all(model) and model.has_class_token


def _class_token_tiles(model, image, class_index):
    size = image.shape[-2:]
    tiles = [Tile("rollout", on_grid(model, attention_rollout(attention_maps(model, image))[0], size), own_scale=True)]
    if model.num_classes:
        values = on_grid(model, gradient_attention(model, image, class_index)[0], size)
        of = "" if class_index is None else f" of {class_names(model)[class_index]}"
        tiles.append(Tile(f"by gradient{of}", values, own_scale=True))
    return tiles


def _map_tile(grids, layer, head=None):
    of = "mean of heads" if head is None else f"head {head + 1}"
    return Tile(f"block {layer + 1}, {of}", grids[layer].mean(0) if head is None else grids[layer][head])


def _unit(model, patch):
    if patch is not None:
        shown = f"attention of the patch in row {patch[0] + 1}, column {patch[1] + 1}"
    elif _has_class_token(model):
        shown = "attention of the class token"
    else:
        shown = "attention that each token receives" + ("" if attends_to_all(model) else " in its window")
    return f"{shown}, in multiples of an even share"


def _outline(model, pixels, patch):
    """The patch's (top, left, bottom, right) as shares of the image."""
    if patch is None:
        return None
    rows, columns = model.grid_for(pixels.shape[1:])
    row, column = patch
    return row / rows, column / columns, (row + 1) / rows, (column + 1) / columns


def place(kind: str, index: int, count: int) -> int:
    """An index from 0, or from the end where it is negative -> from 0. Errors: ConfigError where it lies outside."""
    if not -count <= index < count:
        raise ConfigError(f"{kind} {index} lies outside the model's 0..{count - 1}")
    return index % count
