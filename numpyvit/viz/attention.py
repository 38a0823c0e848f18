"""What a model looks at: attention maps, rollout, gradient-weighted attention, position embedding, patch filters.

Shapes: L blocks, H heads, T class and distillation tokens, N patches on a grid of rows and columns, D width.
"""

import io
import math

import numpy as np

from ..backend import array_module, to_host
from ..core import Tape, observing
from ..errors import ConfigError, ShapeError
from ..files import write_atomically
from ..layers import Attention


def attention_maps(model, image):
    """The attention probabilities of every block and head: (L, H, T+N, T+N); each row sums to 1.

    image: (C, H, W) or (1, C, H, W), prepared as for the model.
    """
    return np.stack([p for _, p in _attention_on_tape(model, image)[1]])


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
    backward. class_index: default the likeliest class. -> (T+N, T+N); the class token's row tells where the evidence
    is.
    """
    tape, maps, logits = _attention_on_tape(model, image, with_logits=True)
    heads = logits if isinstance(logits, tuple) else (logits,)
    class_index = int(sum(map(to_host, heads)).argmax()) if class_index is None else class_index
    if not 0 <= class_index < heads[0].shape[-1]:
        raise ConfigError(f"class {class_index} lies outside the model's 0..{heads[0].shape[-1] - 1}")
    gradients = []
    for head in heads:
        gradient = array_module(head).zeros(head.shape, dtype=head.dtype)
        gradient[:, class_index] = 1 / len(heads)
        gradients.append(gradient)
    values = {id(layer): residuals[2] for layer, residuals in tape.residuals() if isinstance(layer, Attention)}
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
    relevance = np.eye(maps[0][1].shape[-1])
    for (_, p), dp in zip(maps, reversed(found)):
        relevance = relevance + np.maximum(p * dp, 0).mean(0) @ relevance
    return relevance


def _attention_on_tape(model, image, with_logits=False):
    image = image[None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[0] != 1:
        raise ShapeError(f"expected one image (C, H, W) or (1, C, H, W), got shape {image.shape}")
    tape = Tape(model, record_all=True)
    logits = model.forward(image, tape)
    maps = [(layer, to_host(r[3])[0]) for layer, r in tape.residuals() if isinstance(layer, Attention)]
    return (tape, maps, logits) if with_logits else (tape, maps)


def on_grid(model, row):
    """A row of attention (T+N,) without the tokens, as (rows, columns) of patches."""
    return row[model.num_prefix_tokens :].reshape(model.patch_embed.grid_size)


def pos_embed_similarity(model):
    """Cosine of each patch's position embedding with every other's: (rows, columns, rows, columns)."""
    pos = to_host(model.pos_embed.data)[0, model.num_prefix_positions :]
    unit = pos / np.maximum(np.linalg.norm(pos, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T).reshape(*model.patch_embed.grid_size, *model.patch_embed.grid_size)


def patch_filters(model, count=28):
    """The first principal components of the patch weights, as pictures: (count, C, Ph, Pw) in 0..1."""
    weight = to_host(model.patch_embed.proj.weight.data)
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    components = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:count]
    low, high = components.min(1, keepdims=True), components.max(1, keepdims=True)
    return ((components - low) / np.maximum(high - low, 1e-12)).reshape(-1, *weight.shape[1:])


# ---- the sheet ------------------------------------------------------------------------------------------------------

_TILE, _GAP, _LINE = 224, 12, 26


def draw_attention(model, image, picture, path, title="", class_index=None):
    """A sheet as PNG: the picture, rollout and gradient-weighted attention over it, each head of the last block, and
    the class token's mean attention block by block.

    image: (C, H, W) prepared for the model; picture: (C, H, W) uint8, the same before it was normed.
    """
    maps = attention_maps(model, image)
    rows = [
        [
            ("picture", None),
            ("attention rollout", on_grid(model, attention_rollout(maps)[0])),
            ("weighted by gradient", on_grid(model, gradient_attention(model, image, class_index)[0])),
        ],
        [(f"block {len(maps)}, head {h + 1}", on_grid(model, p[0])) for h, p in enumerate(maps[-1])],
        [(f"block {i + 1}, mean of heads", on_grid(model, p.mean(0)[0])) for i, p in enumerate(maps)],
    ]
    columns = max(3, min(6, max(map(len, rows))))
    tiles = [tile for row in rows for tile in row + [("", False)] * (-len(row) % columns)]
    buffer = io.BytesIO()
    _sheet(picture, tiles, columns, title).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def _sheet(picture, tiles, columns, title):
    """Tiles with their names on a white sheet. A tile is (name, map); map None is the picture, False is left empty."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[1:]
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    base = Image.fromarray(np.broadcast_to(picture.transpose(1, 2, 0), (height, width, 3)).copy())
    base = base.resize(size, Image.Resampling.NEAREST if scale > 4 else Image.Resampling.BICUBIC)
    rows = math.ceil(len(tiles) / columns)
    step = (_TILE + _GAP, size[1] + _LINE + _GAP)
    top = _GAP + (_LINE if title else 0)
    sheet = Image.new("RGB", (_GAP + columns * step[0], top + rows * step[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    draw.text((_GAP, _GAP), title, fill=(0, 0, 0), font=font)
    for i, (name, values) in enumerate(tiles):
        if values is False:
            continue
        x, y = _GAP + i % columns * step[0], top + i // columns * step[1]
        sheet.paste(base if values is None else _heat(base, values), (x, y))
        draw.text((x, y + size[1] + 4), name, fill=(60, 60, 60), font=font)
    return sheet


def _heat(base, values):
    """The picture darkened where attention is low and tinted where it is high.

    The scale ends at the map's 95th percentile: a few patches often draw most of the attention and would hide the rest.
    """
    from PIL import Image

    low, high = values.min(), np.quantile(values, 0.95)
    share = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1)
    mask = Image.fromarray((255 * share).astype(np.uint8)).resize(base.size, Image.Resampling.BICUBIC)
    share = np.asarray(mask, np.float32)[..., None] / 255
    warm = np.array([255, 140, 0], np.float32)
    pixels = np.asarray(base, np.float32)
    return Image.fromarray((pixels * (0.3 + 0.45 * share) + warm * 0.25 * share).clip(0, 255).astype(np.uint8))
