"""DETR in PyTorch after the paper and its code, as short as it can be: what numpyvit's is compared with.

Names of parameters are those of the official checkpoints.
"""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F


def sine_features(x, dim, temperature):
    """(...) -> (..., dim), sine and cosine of each wave one after the other."""
    i = torch.arange(dim)
    angles = x[..., None] / temperature ** (2 * torch.div(i, 2, rounding_mode="floor") / dim).to(x.dtype)
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def sine_position(mask, dim, dtype, temperature):
    """(B, h, w) True at padding -> (B, dim, h, w), rows before columns."""
    valid, places = (~mask).to(dtype), []
    for axis in (1, 2):
        place = valid.cumsum(axis)
        place = place / (place.select(axis, -1).unsqueeze(axis) + 1e-6) * 2 * math.pi
        places.append(sine_features(place, dim // 2, temperature))
    return torch.cat(places, dim=3).permute(0, 3, 1, 2)


class LearnedPosition(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.row_embed, self.col_embed = nn.Embedding(50, dim // 2), nn.Embedding(50, dim // 2)

    def forward(self, mask):
        h, w = mask.shape[-2:]
        columns, rows = self.col_embed(torch.arange(w)), self.row_embed(torch.arange(h))
        both = [columns[None].repeat(h, 1, 1), rows[:, None].repeat(1, w, 1)]
        return torch.cat(both, dim=-1).permute(2, 0, 1)[None].repeat(len(mask), 1, 1, 1)


class TransformerLayer(nn.Module):
    """An encoder layer, or with memory a decoder layer."""

    def __init__(self, dim, heads, hidden, pre_norm, decodes):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        if decodes:
            self.multihead_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
            self.norm3 = nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.pre_norm, self.decodes = pre_norm, decodes

    def forward(self, x, pos, mask=None, memory=None, memory_pos=None, apart=None):
        """apart: (B · heads, Q, Q), True where a query may not see another."""

        def attend_self(x):
            padding = None if self.decodes else mask
            return self.self_attn(x + pos, x + pos, x, padding, need_weights=False, attn_mask=apart)[0]

        def attend(x):
            return self.multihead_attn(x + pos, memory + memory_pos, memory, mask, need_weights=False)[0]

        def feed(x):
            return self.linear2(F.relu(self.linear1(x)))

        branches = [attend_self, attend, feed] if self.decodes else [attend_self, feed]
        norms = [self.norm1, self.norm2] + ([self.norm3] if self.decodes else [])
        for branch, norm in zip(branches, norms):
            x = x + branch(norm(x)) if self.pre_norm else norm(x + branch(x))
        return x


class Stack(nn.Module):
    def __init__(self, layers, norm):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if norm is not None:
            self.norm = norm


class Mlp(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in itertools.pairwise(widths)])

    def forward(self, x):
        *layers, last = self.layers
        for layer in layers:
            x = F.relu(layer(x))
        return last(x)


class DETR(nn.Module):
    """body: a module that gives the last map of `channels` channels."""

    def __init__(
        self,
        body,
        channels,
        num_classes,
        num_queries,
        hidden_dim=32,
        nheads=4,
        enc_layers=2,
        dec_layers=2,
        dim_feedforward=48,
        position_embedding="sine",
        pre_norm=False,
        aux_loss=True,
        temperature=10000.0,
    ):
        super().__init__()
        backbone = nn.Module()
        backbone.body = body
        learned = position_embedding == "learned"
        self.backbone = nn.ModuleList([backbone] + ([LearnedPosition(hidden_dim)] if learned else []))
        self.input_proj = nn.Conv2d(channels, hidden_dim, 1)
        sizes = (hidden_dim, nheads, dim_feedforward, pre_norm)
        self.transformer = nn.Module()
        self.transformer.encoder = Stack(
            [TransformerLayer(*sizes, False) for _ in range(enc_layers)], nn.LayerNorm(hidden_dim) if pre_norm else None
        )
        self.transformer.decoder = Stack(
            [TransformerLayer(*sizes, True) for _ in range(dec_layers)], nn.LayerNorm(hidden_dim)
        )
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.class_embed, self.bbox_embed = nn.Linear(hidden_dim, num_classes + 1), Mlp(*3 * [hidden_dim], 4)
        self.aux_loss, self.temperature = aux_loss, temperature

    def encode(self, images, mask):
        """-> tokens (B, N, D), their positions, and which of them are padding."""
        features = self.backbone[0].body(images)
        mask = F.interpolate(mask[None].float(), size=features.shape[-2:]).to(torch.bool)[0]
        x = self.input_proj(features)
        learned = len(self.backbone) > 1
        pos = self.backbone[1](mask) if learned else sine_position(mask, x.shape[1], x.dtype, self.temperature)
        x, pos, mask = x.flatten(2).transpose(1, 2), pos.flatten(2).transpose(1, 2), mask.flatten(1)
        for layer in self.transformer.encoder.layers:
            x = layer(x, pos, mask)
        return getattr(self.transformer.encoder, "norm", nn.Identity())(x), pos, mask

    def forward(self, images, mask):
        memory, pos, mask = self.encode(images, mask)
        query = self.query_embed.weight[None].repeat(len(images), 1, 1)
        x, found = torch.zeros_like(query), []
        for layer in self.transformer.decoder.layers:
            x = layer(x, query, mask, memory, pos)
            found.append(self.transformer.decoder.norm(x))
        found = torch.stack(found)
        layers = [
            {"pred_logits": logits, "pred_boxes": boxes}
            for logits, boxes in zip(self.class_embed(found), self.bbox_embed(found).sigmoid())
        ]
        return {**layers[-1], **({"aux_outputs": layers[:-1]} if self.aux_loss else {})}


# ---- the set loss ---------------------------------------------------------------------------------------------------


def corners(boxes):
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - 0.5 * size, center + 0.5 * size], dim=-1)


def generalized_iou(a, b):
    """All pairs of two lists of corners."""

    def area(low, high):
        return (high - low).clamp(min=0).prod(-1)

    a, b = a[:, None], b[None]
    shared = area(torch.max(a[..., :2], b[..., :2]), torch.min(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - shared
    around = area(torch.min(a[..., :2], b[..., :2]), torch.max(a[..., 2:], b[..., 2:]))
    return shared / union - (around - union) / around


@torch.no_grad()
def match(outputs, targets):
    from scipy.optimize import linear_sum_assignment

    logits, boxes = outputs["pred_logits"].flatten(0, 1), outputs["pred_boxes"].flatten(0, 1)
    labels, wanted = (torch.cat([target[name] for target in targets]) for name in ("labels", "boxes"))
    cost = -logits.softmax(-1)[:, labels] + 5 * torch.cdist(boxes, wanted, p=1)
    cost = (cost - 2 * generalized_iou(corners(boxes), corners(wanted))).view(len(targets), -1, len(wanted))
    own = cost.split([len(target["boxes"]) for target in targets], -1)
    return [linear_sum_assignment(part[i].numpy()) for i, part in enumerate(own)]


def layer_terms(layer, targets, pairs, boxes_in_batch, no_object=0.1):
    """-> ce, bbox and giou of the outputs of one decoder layer."""
    logits, classes = layer["pred_logits"], layer["pred_logits"].shape[-1]
    image = torch.cat([torch.full((len(queries),), i) for i, (queries, _) in enumerate(pairs)])
    query = torch.cat([torch.as_tensor(queries) for queries, _ in pairs])
    found = layer["pred_boxes"][image, query]
    wanted = torch.cat([target["boxes"][indices] for target, (_, indices) in zip(targets, pairs)])
    labels = torch.full(logits.shape[:2], classes - 1)
    labels[image, query] = torch.cat([target["labels"][indices] for target, (_, indices) in zip(targets, pairs)])
    weight = torch.ones(classes, dtype=logits.dtype)
    weight[-1] = no_object
    giou = (1 - generalized_iou(corners(found), corners(wanted)).diagonal()).sum()
    ce = F.cross_entropy(logits.transpose(1, 2), labels, weight)
    return {"ce": ce, "bbox": F.l1_loss(found, wanted, reduction="sum") / boxes_in_batch, "giou": giou / boxes_in_batch}


def over_layers(outputs, terms, name=""):
    """terms(the outputs of a layer), of the last layer and of those before it -> {"ce", "bbox", "giou", "ce_0", …}."""
    layers = [("", outputs), *((f"_{i}", layer) for i, layer in enumerate(outputs.get("aux_outputs", ())))]
    return {term + name + suffix: value for suffix, layer in layers for term, value in terms(layer).items()}


def weighted(parts):
    weights = {"ce": 1, "bbox": 5, "giou": 2}
    return sum(weights[name.split("_")[0]] * value for name, value in parts.items())


def number_of_boxes(targets):
    return max(sum(len(target["labels"]) for target in targets), 1)


def set_loss(outputs, targets):
    """-> the loss and its parts."""
    boxes = number_of_boxes(targets)
    parts = over_layers(outputs, lambda layer: layer_terms(layer, targets, match(layer, targets), boxes))
    return weighted(parts), parts
