"""DETR with boxes as queries, denoising queries and groups in PyTorch: what numpyvit's AnchorDETR is compared with.

Names of parameters and the form of outputs and of denoising queries are numpyvit's.
"""

import math

import torch
from torch import nn
from torch_detr import DETR, Mlp, layer_terms, match, number_of_boxes, over_layers, sine_features, weighted


class AnchorDETR(DETR):
    """groups: of queries in training, each matched by itself."""

    def __init__(self, body, channels, num_classes, num_queries, hidden_dim, nheads, *, groups=1, **options):
        super().__init__(body, channels, num_classes, num_queries, hidden_dim, nheads, **options)
        del self.query_embed
        self.num_queries, self.heads = num_queries, nheads
        self.label_embed = nn.Embedding(num_classes + 1, hidden_dim)
        self.refpoint_embed = nn.Embedding(groups * num_queries, 4)
        self.ref_point_head = Mlp(2 * hidden_dim, hidden_dim, hidden_dim)

    def forward(self, images, mask, copies=None):
        memory, pos, mask = self.encode(images, mask)
        anchors = self.refpoint_embed.weight if self.training else self.refpoint_embed.weight[: self.num_queries]
        u = anchors.expand(len(images), -1, -1)
        x = self.label_embed.weight[-1].expand(*u.shape[:2], -1)
        group, known = torch.arange(u.shape[1]) // self.num_queries, 0
        padding = torch.zeros(u.shape[:2], dtype=torch.bool)
        if copies is not None:
            _, groups, most = copies["labels"].shape
            known = groups * most
            group = torch.cat([-1 - torch.arange(known) // most, group])
            padding = torch.cat([copies["targets"].flatten(1) < 0, padding], 1)
            x = torch.cat([self.label_embed(copies["labels"].flatten(1)), x], 1)
            u = torch.cat([torch.logit(copies["boxes"].flatten(1, 2).clamp(1e-3, 1 - 1e-3)), u], 1)
        layers = self.decode(x, u, memory, pos, mask, self.apart(group, padding))
        ends = range(known, u.shape[1], self.num_queries)
        first, *others = (_part(layers, slice(start, start + self.num_queries)) for start in ends)
        if others:
            first["groups"] = others
        if known:
            first["denoising"] = {**_part(layers, slice(0, known)), "targets": copies["targets"].flatten(1)}
        return first

    def apart(self, group, padding):
        """Queries of other groups and padding are not seen, but everybody sees himself: no softmax is empty."""
        apart = (group[:, None] != group) | padding[:, None]
        apart = apart & ~torch.eye(len(group), dtype=torch.bool)
        return apart.repeat_interleave(self.heads, 0) if apart.any() else None

    def decode(self, x, u, memory, pos, mask, apart):
        layers, decoder = [], self.transformer.decoder
        for layer in decoder.layers:
            sines = sine_features(u.sigmoid() * (2 * math.pi), x.shape[-1] // 2, 20.0)
            query_pos = self.ref_point_head(sines.flatten(2))
            x = layer(x + query_pos, query_pos, mask, memory, pos, apart)
            y = decoder.norm(x)
            u = u + self.bbox_embed(y)
            layers.append({"pred_logits": self.class_embed(y), "pred_boxes": u.sigmoid()})
        return layers


def _part(layers, part):
    *earlier, last = ({name: array[:, part] for name, array in layer.items()} for layer in layers)
    return {**last, "aux_outputs": earlier}


def set_loss(outputs, targets):
    """-> the loss and its parts, the mean over groups, and of denoising queries "ce_dn", "ce_dn_0", …"""
    boxes, groups = number_of_boxes(targets), [outputs, *outputs.get("groups", ())]
    each = [
        over_layers(group, lambda layer: layer_terms(layer, targets, match(layer, targets), boxes)) for group in groups
    ]
    parts = {name: sum(terms[name] for terms in each) / len(groups) for name in each[0]}
    if "denoising" in outputs:
        known = [((index >= 0).nonzero()[:, 0], index[index >= 0]) for index in outputs["denoising"]["targets"]]
        copies = max(sum(len(queries) for queries, _ in known), 1)
        parts |= over_layers(outputs["denoising"], lambda layer: layer_terms(layer, targets, known, copies, 0.0), "_dn")
    return weighted(parts), parts
