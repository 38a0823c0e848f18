"""Vision Transformers as ONNX: ViT, DeiT and those after them."""

from .. import layers
from ..layers.heads import PoolingHead
from ..layers.patches import PatchProjection
from ..models import VisionTransformer
from .common import linear
from .graph import Graph, Value


def vision_transformer(graph: Graph, model: VisionTransformer, x: Value) -> Value:
    """As in forward, the last block makes only the tokens that the head reads."""
    *blocks, last = model.blocks.layers
    x = graph.run(model.embed, x)
    for block in blocks:
        x = graph.run(block, x)
    return graph.run(model.classifier, graph.run(last, x, model.classifier.reads))


def patch_projection(graph: Graph, layer: PatchProjection, x: Value) -> Value:
    """(B, C, H, W) -> (B, N, D): a convolution whose stride is its kernel."""
    arrays = filter(None, (layer.weight, layer.bias))
    return graph.op("Conv", x, *arrays, strides=layer.weight.data.shape[2:]).reshape(0, 0, -1).transpose(0, 2, 1)


def patch_embed(graph: Graph, layer: layers.PatchEmbed, x: Value) -> Value:
    return graph.run(layer.norm, graph.run(layer.proj, x))


def embed(graph: Graph, layer: layers.Embed, x: Value) -> Value:
    """[tokens, patches] + pos_embed, or the positions on the patches alone."""
    patches = graph.run(layer.patch_embed, x)
    tokens = [graph.for_each(token, patches) for token in layer.prefix_tokens]
    if layer.num_prefix_positions:
        y = graph.concat([*tokens, patches], 1) + layer.pos_embed
    else:
        y = graph.concat([*tokens, patches + layer.pos_embed], 1)
    return graph.run(layer.norm_pre, y)


def block(graph: Graph, layer: layers.Block, x: Value, first: int | None = None) -> Value:
    branch = graph.run(layer.ls1, graph.run(layer.attn, graph.run(layer.norm1, x), first))
    x = x[:, :first] + branch
    return x + graph.run(layer.ls2, graph.run(layer.mlp, graph.run(layer.norm2, x)))


def attention(graph: Graph, layer: layers.Attention, x: Value, first: int | None = None) -> Value:
    q, k, v = graph.split(graph.run(layer.qkv, x), 3, layer.dim, axis=2)
    q, k, v = (graph.heads(part, layer.num_heads) for part in (q[:, :first], k, v))
    q, k = graph.run(layer.q_norm, q), graph.run(layer.k_norm, k)
    return graph.run(layer.proj, graph.join_heads(graph.attention(q, k, v, layer.scale)))


def pooling_head(graph: Graph, layer: PoolingHead, x: Value) -> Value:
    x = graph.run(layer.fc_norm, graph.run(layer.norm, layer.pool(x)))
    return graph.run(layer.head, graph.run(layer.pre_logits, x))


def pre_logits(graph: Graph, layer: layers.PreLogits, x: Value) -> Value:
    return graph.run(layer.act, graph.run(layer.fc, x))


def distilled_head(graph: Graph, layer: layers.DistilledHead, x: Value) -> Value:
    """The mean of both logits."""
    x = graph.run(layer.norm, x[:, :2])
    return (graph.run(layer.head, x[:, 0]) + graph.run(layer.head_dist, x[:, 1])) * 0.5


RULES = {
    VisionTransformer: vision_transformer,
    PatchProjection: patch_projection,
    layers.PatchEmbed: patch_embed,
    layers.Embed: embed,
    layers.Block: block,
    layers.Attention: attention,
    layers.QKV: linear,
    PoolingHead: pooling_head,
    layers.PreLogits: pre_logits,
    layers.DistilledHead: distilled_head,
}
