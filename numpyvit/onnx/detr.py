"""DETR as ONNX, for images of any size without padding.

Shapes: B batch, h×w the map of the backbone, N = h·w tokens, D width, Q queries, K classes.
"""

import math
from collections.abc import Sequence

import numpy as np

from .. import layers
from ..core import Layer
from ..models import DETR, ResNet
from ..models.detr import Backbone
from . import resnet
from .graph import Graph, Value


def detr(graph: Graph, model: DETR, x: Value) -> dict[str, Value]:
    """-> {"pred_logits": (B, Q, K+1), "pred_boxes": (B, Q, 4)}."""
    body, position = model.backbone
    features = graph.run(body, x)
    pos = graph.run(position, features)
    tokens = graph.run(model.input_proj, features).reshape(0, 0, -1).transpose(0, 2, 1)  # (B, D, h, w) -> (B, N, D)
    memory = graph.run(model.transformer.encoder, tokens, pos)
    return graph.run(model.queries, memory, pos, model.transformer.decoder)


def backbone(graph: Graph, layer: Backbone, x: Value) -> Value:
    body = layer.body
    return resnet.features(graph, body, x) if isinstance(body, ResNet) else graph.run(body, x)


# ---- positions ------------------------------------------------------------------------------------------------------


def sine_position(graph: Graph, layer: layers.SinePosition, x: Value) -> Value:
    """Sines of each row and column, in 0..2π, the row's before the column's: (1, N, D)."""
    h, w, half = graph.size(x, 2), graph.size(x, 3), layer.dim // 2
    rows, columns = (sines(graph, places(graph, side), half, layer.temperature) for side in (h, w))
    return on_every_token(graph, (rows.reshape(-1, 1, half), columns.reshape(1, -1, half)), h, w, half)


def places(graph: Graph, side: Value) -> Value:
    """1, 2, … up to side, over side and times 2π: (side,)."""
    count = graph.op("CumSum", graph.op("Expand", 1.0, side), np.int64(0))
    return count / (count[-1:] + 1e-6) * (2 * math.pi)


def sines(graph: Graph, x: Value, dim: int, temperature: float = 10000.0) -> Value:
    """[sin a₀, cos a₀, sin a₁, …], aᵢ = x / T^(2i/dim), as functional.sine_features: (...) -> (..., dim/2, 2)."""
    frequencies = temperature ** (np.arange(0, dim, 2, dtype=np.float32) * (-1 / dim))
    angles = graph.op("Unsqueeze", x, np.array([-1])) * frequencies
    both = [graph.op("Unsqueeze", graph.op(name, angles), np.array([-1])) for name in ("Sin", "Cos")]
    return graph.concat(both, -1)


def learned_position(graph: Graph, layer: layers.LearnedPosition, x: Value) -> Value:
    """A learned vector for each row and column, the column's before the row's: (1, N, D)."""
    h, w, half = graph.size(x, 2), graph.size(x, 3), layer.row_embed.weight.data.shape[1]
    tables = ((layer.row_embed, h), (layer.col_embed, w))
    rows, columns = (graph.op("Slice", table.weight, np.array([0]), side, np.array([0])) for table, side in tables)
    return on_every_token(graph, (columns.reshape(1, -1, half), rows.reshape(-1, 1, half)), h, w, half)


def on_every_token(graph: Graph, halves: Sequence[Value], h: Value, w: Value, half: int) -> Value:
    """Two arrays that broadcast to (h, w, D/2), side by side: (1, N, D)."""
    size = graph.concat([h, w, np.array([1])], 0)
    return graph.concat([graph.op("Expand", x, size) for x in halves], 2).reshape(1, -1, 2 * half)


# ---- encoder and decoder --------------------------------------------------------------------------------------------


def multihead_attention(
    graph: Graph, layer: layers.MultiheadAttention, query: Value, key: Value, value: Value
) -> Value:
    width = layer.in_proj_weight.data.shape[1]
    weights = graph.split(layer.in_proj_weight, 3, width, axis=0)
    biases = graph.split(layer.in_proj_bias, 3, width, axis=0)
    inputs = zip((query, key, value), weights, biases)
    q, k, v = (graph.heads(graph.linear(x, weight, bias), layer.num_heads) for x, weight, bias in inputs)
    return graph.run(layer.out_proj, graph.join_heads(graph.attention(q, k, v, layer.scale)))


def feed_forward(graph: Graph, layer: layers.FeedForward, x: Value) -> Value:
    return graph.run(layer.linear2, graph.run(layer.activation, graph.run(layer.linear1, x)))


def encoder(graph: Graph, layer: layers.Encoder, x: Value, pos: Value) -> Value:
    return graph.run(layer.norm, graph.run(layer.layers, x, pos))


def encoder_layer(graph: Graph, layer: layers.EncoderLayer, x: Value, pos: Value) -> Value:
    q = x + pos
    x = graph.run(layer.norm1, x + graph.run(layer.self_attn, q, q, x))
    return graph.run(layer.norm2, x + graph.run(layer.feed_forward, x))


def pre_norm_encoder_layer(graph: Graph, layer: layers.PreNormEncoderLayer, x: Value, pos: Value) -> Value:
    n = graph.run(layer.norm1, x)
    x = x + graph.run(layer.self_attn, n + pos, n + pos, n)
    return x + graph.run(layer.feed_forward, graph.run(layer.norm2, x))


def decoder_layer(graph: Graph, layer: layers.DecoderLayer, x: Value, pos: Value, key: Value, memory: Value) -> Value:
    q = x + pos
    x = graph.run(layer.norm1, x + graph.run(layer.self_attn, q, q, x))
    x = graph.run(layer.norm2, x + graph.run(layer.multihead_attn, x + pos, key, memory))
    return graph.run(layer.norm3, x + graph.run(layer.feed_forward, x))


def pre_norm_decoder_layer(
    graph: Graph, layer: layers.PreNormDecoderLayer, x: Value, pos: Value, key: Value, memory: Value
) -> Value:
    n = graph.run(layer.norm1, x)
    x = x + graph.run(layer.self_attn, n + pos, n + pos, n)
    x = x + graph.run(layer.multihead_attn, graph.run(layer.norm2, x) + pos, key, memory)
    return x + graph.run(layer.feed_forward, graph.run(layer.norm3, x))


# ---- queries --------------------------------------------------------------------------------------------------------


def learned_queries(
    graph: Graph, layer: layers.LearnedQueries, memory: Value, pos: Value, decoder: layers.Decoder
) -> dict[str, Value]:
    weight = layer.query_embed.weight
    query_pos = graph.for_each(graph.op("Unsqueeze", weight, np.array([0])), memory)
    x, key = query_pos * 0.0, memory + pos
    for part in decoder.layers:
        x = graph.run(part, x, query_pos, key, memory)
    y = graph.run(decoder.norm, x)
    return outputs(graph, layer, y, graph.op("Sigmoid", graph.run(layer.bbox_embed, y)))


def anchor_queries(
    graph: Graph, layer: layers.AnchorQueries, memory: Value, pos: Value, decoder: layers.Decoder
) -> dict[str, Value]:
    """The first group alone, as in inference; each decoder layer moves the boxes σ(u)."""
    anchors, D = layer.refpoint_embed.weight, decoder.norm.weight.data.shape[0]
    u = graph.for_each(graph.op("Unsqueeze", graph.value(anchors)[: layer.num_queries], np.array([0])), memory)
    x = graph.for_each(np.zeros((1, layer.num_queries, D)), memory)
    if layer.label_embed is not None:
        x = x + graph.value(layer.label_embed.weight)[-1]
    key = memory + pos
    for part in decoder.layers:
        places = graph.op("Sigmoid", u) * (2 * math.pi)
        query_pos = graph.run(layer.ref_point_head, sines(graph, places, D // 2, layer.temperature).reshape(0, 0, -1))
        x = graph.run(part, x + query_pos, query_pos, key, memory)
        y = graph.run(decoder.norm, x)
        u = u + graph.run(layer.bbox_embed, y)
    return outputs(graph, layer, y, graph.op("Sigmoid", u))


def outputs(graph: Graph, layer: Layer, y: Value, boxes: Value) -> dict[str, Value]:
    return {"pred_logits": graph.run(layer.class_embed, y), "pred_boxes": boxes}


RULES = {
    DETR: detr,
    Backbone: backbone,
    layers.SinePosition: sine_position,
    layers.LearnedPosition: learned_position,
    layers.MultiheadAttention: multihead_attention,
    layers.FeedForward: feed_forward,
    layers.Encoder: encoder,
    layers.EncoderLayer: encoder_layer,
    layers.PreNormEncoderLayer: pre_norm_encoder_layer,
    layers.DecoderLayer: decoder_layer,
    layers.PreNormDecoderLayer: pre_norm_decoder_layer,
    layers.LearnedQueries: learned_queries,
    layers.AnchorQueries: anchor_queries,
}
