"""What a model looks at: attention maps, rollout, gradient-weighted attention, position embedding, patch filters.

Shapes: L blocks, H heads, T class and distillation tokens, N patches on a grid of rows and columns, D width.
"""

import numpy as np

from ..backend import array_module, to_host
from ..core import Tape, observing
from ..errors import ConfigError, NonFiniteError, ShapeError
from ..functional import softmax
from ..layers import Attention
from ..models import class_names
from .sheet import Tile, draw_sheet


def attention_maps(model, image):
    """The attention probabilities of every block and head: (L, H, T+N, T+N); each row sums to 1.

    image: (C, H, W) or (1, C, H, W), prepared as for the model.
    """
    return np.stack(_attention_on_tape(model, image)[1])


def attention_rollout(maps):
    """How much of each input token reaches each output token   (Abnar & Zuidema 2020, arXiv:2005.00928).

    R = Π (A + I)/2 over the blocks, A the mean over heads; the identity is the residual branch.
    maps: (L, H, T+N, T+N) -> (T+N, T+N), rows sum to 1.
    """
    rollout = np.eye(maps.shape[-1])
    for heads in maps:
        rollout = (heads.mean(0) + np.eye(len(rollout))) / 2 @ rollout
    return rollout


def gradient_attention(model, image, class_index=None):
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
    logits = model.forward(_one_image(image), tape)
    maps = [to_host(layer.values_and_probabilities(kept)[1])[0] for layer, kept in _kept_by_attention(tape)]
    if not maps:
        raise ConfigError(f"a {type(model).__name__} has no attention over all tokens to show; choose a ViT or a DeiT")
    if not all(np.isfinite(p).all() for p in maps):
        raise NonFiniteError("the attention is not finite: the model's weights are too large, or hold NaN")
    return tape, maps, logits


def _kept_by_attention(tape):
    return [(layer, kept) for layer, kept in tape.residuals() if isinstance(layer, Attention)]


def _one_image(image):
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[0] != 1:
        raise ShapeError(f"expected one image (C, H, W) or (1, C, H, W), got shape {image.shape}")
    return batch


def on_grid(model, row):
    """A row of attention (T+N,) without the tokens, as (rows, columns) of patches."""
    return row[model.num_prefix_tokens :].reshape(model.patch_embed.grid_size)


def pos_embed_similarity(model):
    """Cosine of each patch's position embedding with every other's: (rows, columns, rows, columns)."""
    pos = to_host(model.pos_embed.data)[0, model.num_prefix_positions :]
    unit = pos / np.maximum(np.linalg.norm(pos, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T).reshape(*model.patch_embed.grid_size, *model.patch_embed.grid_size)


def patch_filters(model, count=28):
    """The first principal components of the patch weights, as images: (count, C, Ph, Pw) in 0..1."""
    weight = to_host(model.patch_embed.proj.weight.data)
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    components = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:count]
    low, high = components.min(1, keepdims=True), components.max(1, keepdims=True)
    return ((components - low) / np.maximum(high - low, 1e-12)).reshape(-1, *weight.shape[1:])


# ---- sheets ---------------------------------------------------------------------------------------------------------


def draw_attention(model, image, pixels, path, title="", class_index=None, tile_size=224):
    """A sheet as PNG: the image, rollout and gradient-weighted attention, each head of the last block, and the class
    token's attention block by block. Heads and blocks share one scale; the predicted class stands above.

    image: (C, H, W) prepared for the model; pixels: (C, H, W) uint8, the same before it was normalized.
    class_index: whose gradient; default the most probable class. tile_size: pixels of each map's longer side.
    """
    maps = attention_maps(model, image)
    rollout = on_grid(model, attention_rollout(maps)[0])
    tiles = [Tile("image"), Tile("rollout", rollout, own_scale=True)]
    if model.num_classes:
        values = on_grid(model, gradient_attention(model, image, class_index)[0])
        of = "" if class_index is None else f" of {class_names(model)[class_index]}"
        tiles.append(Tile(f"by gradient{of}", values, own_scale=True))
    tiles += [_map_tile(model, maps, len(maps) - 1, head) for head in range(maps.shape[1])]
    tiles += [_map_tile(model, maps, layer) for layer in range(len(maps))]
    draw_sheet(pixels, tiles, path, caption(model, image, title), _unit(maps), tile_size)


def draw_attention_map(model, image, pixels, path, layer=-1, head=None, title=""):
    """The class token's attention in one block as PNG, beside the image: the mean of the heads, or one of them.

    layer, head: counted from 0, negative ones from the end. Other arguments: see draw_attention.
    Errors: ConfigError where the model has no such block or head.
    """
    maps = attention_maps(model, image)
    layer = _place("block", layer, len(maps))
    head = None if head is None else _place("head", head, maps.shape[1])
    tiles = [Tile("image"), _map_tile(model, maps, layer, head)]
    draw_sheet(pixels, tiles, path, caption(model, image, title), _unit(maps), tile_size=448)


def caption(model, image, title=""):
    """The title with the most probable class and its probability:   cat.jpg: tabby, 53.1%."""
    if model.num_classes == 0:
        return title
    probabilities = softmax(to_host(model(_one_image(image))))[0]
    index = int(probabilities.argmax())
    return f"{title}{': ' if title else ''}{class_names(model)[index]}, {probabilities[index]:.1%}"


def _map_tile(model, maps, layer, head=None):
    """The class token's attention to the patches, as multiples of what each token would get if all got the same."""
    of = "mean of heads" if head is None else f"head {head + 1}"
    row = (maps[layer].mean(0) if head is None else maps[layer, head])[0]
    return Tile(f"block {layer + 1}, {of}", on_grid(model, row * len(row)))


def _unit(maps):
    return f"attention of the class token, in multiples of an even share (1/{maps.shape[-1]})"


def _place(kind, index, count):
    if not -count <= index < count:
        raise ConfigError(f"{kind} {index} lies outside the model's 0..{count - 1}")
    return index % count
