"""Swin Transformers as ONNX.

Shapes: B batch, H×W rows and columns of tokens, C channels, h×w window, n windows a map, N = h·w tokens a window.
"""

import numpy as np

from .. import functional as F
from .. import layers
from ..backend import to_host
from ..core import Buffer
from ..functional.windows import padded_size
from ..models import SwinTransformer
from .graph import Graph, Value


def swin_transformer(graph: Graph, model: SwinTransformer, x: Value) -> Value:
    size = model.patch_embed.grid_size
    x = graph.run(model.patch_embed, x).reshape(0, *size, -1)
    for stage in model.layers:
        x = graph.run(stage, x, size)
        size = stage.blocks[0].input_resolution
    return graph.run(model.head, graph.run(model.norm, x))


def swin_stage(graph: Graph, stage: layers.SwinStage, x: Value, size: tuple[int, int]) -> Value:
    """size: (rows, columns) of x."""
    return graph.run(stage.blocks, graph.run(stage.downsample, x, size))


def patch_merging(graph: Graph, layer: layers.PatchMerging, x: Value, size: tuple[int, int]) -> Value:
    """Each 2×2 tokens as one, in the order (0,0), (1,0), (0,1), (1,1)."""
    x = pad(graph, x, size, (2, 2))
    x = graph.concat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], 3)
    return graph.run(layer.reduction, graph.run(layer.norm, x))


def swin_block(graph: Graph, block: layers.SwinBlock, x: Value) -> Value:
    windows = to_windows(graph, graph.run(block.norm1, x), block)
    x = x + from_windows(graph, graph.run(block.attn, windows, block.attn_mask), block)
    return x + graph.run(block.mlp, graph.run(block.norm2, x))


def window_attention(graph: Graph, layer: layers.WindowAttention, x: Value, mask: Buffer | None) -> Value:
    """x: windows (B·n, N, C). With a mask, which differs from window to window, a map's n windows become one with n
    times as many heads: (B, n·heads, N, d).
    """
    width, heads = layer.proj.weight.data.shape[1], layer.num_heads
    qkv = graph.split(graph.run(layer.qkv, x), 3, width, axis=2)
    q, k, v = (graph.heads(part, heads) for part in qkv)
    bias = relative_bias(graph, layer)
    if mask is None:
        out = graph.attention(q, k, v, layer.scale, bias)
    else:
        n, _, N, _ = mask.data.shape
        q, k, v = (part.reshape(-1, n * heads, N, width // heads) for part in (q, k, v))
        out = graph.attention(q, k, v, layer.scale, (graph.value(mask) + bias).reshape(-1, N, N))
        out = out.reshape(-1, heads, N, width // heads)
    return graph.run(layer.proj, graph.join_heads(out))


def relative_bias(graph: Graph, layer: layers.WindowAttention) -> Value:
    """(heads, N, N), looked up in the table by the numbers of its rows."""
    table = layer.relative_position_bias_table
    numbers = np.arange(len(table.data), dtype=np.float64)[:, None]
    (rows,) = F.relative_bias(numbers, to_host(layer.rows.data), to_host(layer.columns.data)).astype(np.int64)
    return graph.op("Gather", table, rows, axis=0).transpose(2, 0, 1)


def to_windows(graph: Graph, x: Value, block: layers.SwinBlock) -> Value:
    """Shift, pad, partition: (B, H, W, C) -> (B·n, N, C); see functional.to_windows."""
    size, (h, w) = block.input_resolution, block.window_size
    if block.pad_first:
        x = cyclic_shift(graph, pad(graph, x, size, (h, w)), block.shift_size)
    else:
        x = pad(graph, cyclic_shift(graph, x, block.shift_size), size, (h, w))
    rows, columns = windows_along(block)
    x = x.reshape(-1, rows, h, columns, w, block.dim).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, h * w, block.dim)


def from_windows(graph: Graph, windows: Value, block: layers.SwinBlock) -> Value:
    """The inverse of to_windows: (B·n, N, C) -> (B, H, W, C)."""
    (H, W), (h, w), (rows, columns) = block.input_resolution, block.window_size, windows_along(block)
    x = windows.reshape(-1, rows, columns, h, w, block.dim).transpose(0, 1, 3, 2, 4, 5)
    x, back = x.reshape(-1, rows * h, columns * w, block.dim), tuple(-shift for shift in block.shift_size)
    if block.pad_first:
        return cyclic_shift(graph, x, back)[:, :H, :W]
    return cyclic_shift(graph, x[:, :H, :W], back)


def windows_along(block: layers.SwinBlock) -> tuple[int, int]:
    """How many windows stand below and beside each other."""
    sides = padded_size(block.input_resolution, block.window_size)
    return tuple(side // window for side, window in zip(sides, block.window_size))


def cyclic_shift(graph: Graph, x: Value, shift: tuple[int, int]) -> Value:
    """y[i, j] = x[i + shift₀, j + shift₁], beyond the border from the other side."""
    rows, columns = shift
    x = graph.concat([x[:, rows:], x[:, :rows]], 1) if rows else x
    return graph.concat([x[:, :, columns:], x[:, :, :columns]], 2) if columns else x


def pad(graph: Graph, x: Value, size: tuple[int, int], window: tuple[int, int]) -> Value:
    """Zeros below and on the right, up to whole windows."""
    below, right = (whole - side for whole, side in zip(padded_size(size, window), size))
    return graph.op("Pad", x, np.array([0, 0, 0, 0, 0, below, right, 0])) if below or right else x


RULES = {
    SwinTransformer: swin_transformer,
    layers.SwinStage: swin_stage,
    layers.PatchMerging: patch_merging,
    layers.SwinBlock: swin_block,
    layers.WindowAttention: window_attention,
    layers.MapHead: lambda graph, layer, x: graph.run(layer.fc, x.mean((1, 2))),
}
