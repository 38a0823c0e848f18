"""What a detector asks of an image: queries, what the decoder makes of them, and the heads that read class and box.

Shapes: B images, N tokens, D width, Q queries, L decoder layers, K classes. Each kind of queries gives a dict of the
last layer, {"pred_logits": (B, Q, K+1), "pred_boxes": (B, Q, 4)}, with "aux_outputs", a list of the same for each
earlier one, and takes such a dict of gradients.
"""

import math

import numpy as np

from .. import functional as F
from ..backend import array_module, to_module
from ..core import FORGET, Layer, Seed, make_rng
from ..errors import ConfigError, ShapeError
from .init import uniform, xavier_uniform
from .linear import Linear, Perceptron
from .positions import Embedding


class LearnedQueries(Layer):
    """Q learned positions; the decoder starts from zeros   (DETR, arXiv:2005.12872, §3.2).

    class = class_embed(y),   box = σ(bbox_embed(y)),   y the decoder's output.   dσ⁻¹ = dbox · box (1 − box).
    """

    transparent = True
    takes_denoising = False

    def __init__(self, dim: int, num_queries: int, num_classes: int, *, dtype: str = "float32", seed: Seed = 0):
        made = dict(dtype=dtype, seed=make_rng(seed))
        self.query_embed = Embedding(num_queries, dim, **made)
        self.class_embed, self.bbox_embed = _heads(dim, num_classes, **made)

    def forward(self, memory, pos, decoder, tape=FORGET, mask=None, every_layer=False, denoising=None):
        """memory (B, N, D), its positions and padding -> the outputs of the last decoder layer, or of every one."""
        if denoising is not None:
            raise ConfigError("these queries take no denoising ones; give (images, mask), or make a model with anchors")
        xp, weight = array_module(memory), self.query_embed.weight.data
        query_pos = xp.broadcast_to(weight, (len(memory), *weight.shape))
        y = decoder.forward(xp.zeros_like(query_pos), query_pos, memory, pos, tape, mask, every_layer)
        y = xp.stack(y)  # (L, B, Q, D)
        logits = self.class_embed.forward(y, tape)
        boxes = F.sigmoid(self.bbox_embed.forward(y, tape))
        tape.push(self, boxes)
        return _as_outputs(logits, boxes)

    def backward(self, dout, decoder, tape):
        """-> dmemory, dpos."""
        (boxes,) = tape.pop(self)
        dlogits, dboxes = _from_outputs(dout)
        dy = self.bbox_embed.backward(F.sigmoid_backward(dboxes, boxes), tape)
        dy = dy + self.class_embed.backward(dlogits, tape)
        dquery, dmemory, dpos = decoder.backward(dy, tape)
        tape.add(self.query_embed.weight, dquery.sum(0))
        return dmemory, dpos


class AnchorQueries(Layer):
    """Queries that are boxes, moved by every decoder layer   (DAB-DETR, Liu et al. 2022, arXiv:2201.12329).

        posₗ = ref_point_head(sines of σ(uₗ)),   xₗ₊₁ = layerₗ(xₗ + posₗ, posₗ),   yₗ = norm xₗ₊₁,
        uₗ₊₁ = uₗ + bbox_embed(yₗ),   boxₗ = σ(uₗ₊₁),   u₀ = refpoint_embed.

    Backward goes through all of it, the sines included:   duₗ = duₗ₊₁ + dσ(uₗ) · σ(uₗ)(1 − σ(uₗ)).
    Other than in the paper a layer's input holds the position: a query that knows where it is learns sooner by how much
    it is off. Waves are of temperature 20, as there.

    groups:    groups of Q queries in training that do not see each other; each finds every box (Group-DETR, Chen
               et al. 2022, arXiv:2207.13085). Without a tape only the first group is there.
    denoising: learn a vector for each label, from which denoising queries start (see losses.denoising_queries);
               the others start from one for "no label" instead of zeros. Their outputs stand under "denoising".
    """

    transparent = True
    temperature = 20.0

    def __init__(
        self,
        dim: int,
        num_queries: int,
        num_classes: int,
        *,
        groups: int = 1,
        denoising: bool = True,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        if dim % 4 or groups < 1:
            raise ConfigError(f"the width {dim} must be divisible by 4 for sines of boxes, and groups be at least 1")
        rng = make_rng(seed)
        made = dict(dtype=dtype, seed=rng)
        self.num_queries, self.groups = num_queries, groups
        self.label_embed = Embedding(num_classes + 1, dim, **made) if denoising else None
        self.refpoint_embed = Embedding(groups * num_queries, 4, **made)
        places = rng.uniform(0.05, 0.95, (groups * num_queries, 2))
        self.refpoint_embed.weight.data[:, :2] = np.log(places / (1 - places))
        self.refpoint_embed.weight.data[:, 2:] = math.log(0.2 / 0.8)
        self.ref_point_head = Perceptron((2 * dim, dim, dim), **made)
        for layer in self.ref_point_head.layers:
            layer.weight.data[...] = xavier_uniform(rng, layer.weight.data.shape, dtype)
        self.class_embed, self.bbox_embed = _heads(dim, num_classes, **made)
        self.bbox_embed.layers[-1].weight.data[...] = self.bbox_embed.layers[-1].bias.data[...] = 0

    @property
    def takes_denoising(self):
        return self.label_embed is not None

    def forward(self, memory, pos, decoder, tape=FORGET, mask=None, every_layer=False, denoising=None):
        """As LearnedQueries; with more groups also "groups", with denoising queries also "denoising"."""
        xp, copies = array_module(memory), self._copies(denoising)
        x, u, known = self._start(memory, copies, tape)
        key, parts, found, boxes = memory + pos, self._parts(known, x.shape[1]), [], []
        query_mask = _apart(parts, copies, xp)
        for layer in decoder.layers:
            box = F.sigmoid(u)
            sines = F.sine_features(box * (2 * math.pi), x.shape[-1] // 2, self.temperature)  # (B, queries, 4, D/2)
            query_pos = self.ref_point_head.forward(sines.reshape(*x.shape[:2], -1), tape)
            x = layer.forward(x + query_pos, query_pos, key, memory, tape, mask, query_mask)
            y = decoder.norm.forward(x, tape)
            u = u + self.bbox_embed.forward(y, tape)
            tape.push(self, box)
            found.append(y)
            boxes.append(F.sigmoid(u))
        used = slice(0 if every_layer else -1, None)
        boxes = xp.stack(boxes[used])
        logits = self.class_embed.forward(xp.stack(found[used]), tape)
        tape.push(self, boxes, known)
        outputs = [_as_outputs(logits[:, :, part], boxes[:, :, part]) for part in parts]
        denoised = [outputs.pop(0) | {"targets": copies["targets"].reshape(len(memory), -1)}] if known else []
        first, *others = outputs
        return first | ({"groups": others} if others else {}) | ({"denoising": denoised[0]} if denoised else {})

    def backward(self, dout, decoder, tape):
        """-> dmemory, dpos."""
        boxes, known = tape.pop(self)
        xp, given = array_module(boxes), [dout["denoising"]] if known else []
        given = [_from_outputs(part) for part in (*given, dout, *dout.get("groups", ()))]
        dlogits, dboxes = (xp.concatenate(both, axis=2) for both in zip(*given))
        dfound, dboxes = list(self.class_embed.backward(dlogits, tape)), list(F.sigmoid_backward(dboxes, boxes))
        du = dx = dkey = dvalue = 0
        for layer in reversed(decoder.layers):
            (box,) = tape.pop(self)
            du = du + (dboxes.pop() if dboxes else 0)
            dy = self.bbox_embed.backward(du, tape) + (dfound.pop() if dfound else 0)
            dx, dquery_pos, dkey_here, dvalue_here = layer.backward(dx + decoder.norm.backward(dy, tape), tape)
            dkey, dvalue = dkey + dkey_here, dvalue + dvalue_here
            dsines = self.ref_point_head.backward(dquery_pos + dx, tape).reshape(*box.shape, -1)
            dbox = F.sine_features_backward(dsines, box * (2 * math.pi), self.temperature) * (2 * math.pi)
            du = du + F.sigmoid_backward(dbox, box)
        self._start_backward(dx, du, known, tape)
        return dkey + dvalue, dkey

    def _start(self, memory, copies, tape):
        """-> contents (B, queries, D), boxes before the sigmoid (B, queries, 4), and how many denoising ones lead."""
        xp, (B, _, D) = array_module(memory), memory.shape
        anchors = self.refpoint_embed.weight.data[: None if tape.training else self.num_queries]
        u = xp.broadcast_to(anchors, (B, *anchors.shape))
        x = xp.zeros((B, len(anchors), D), dtype=memory.dtype)
        if self.label_embed is not None:
            x = x + self.label_embed.weight.data[-1]
        if copies is None:
            return x, u, 0
        box = copies["boxes"].reshape(B, -1, 4).astype(memory.dtype).clip(1e-3, 1 - 1e-3)
        labels = self.label_embed.forward(copies["labels"].reshape(B, -1), tape)
        return xp.concatenate([labels, x], axis=1), xp.concatenate([xp.log(box / (1 - box)), u], axis=1), box.shape[1]

    def _start_backward(self, dx, du, known, tape):
        tape.add(self.refpoint_embed.weight, du[:, known:].sum(0))
        if self.label_embed is None:
            return
        dtable = array_module(dx).zeros_like(self.label_embed.weight.data)
        dtable[-1] = dx[:, known:].sum((0, 1))
        tape.add(self.label_embed.weight, dtable)
        if known:
            self.label_embed.backward(dx[:, :known], tape)

    def _copies(self, denoising):
        """Denoising queries, or None where there are none."""
        if denoising is None or denoising["labels"].shape[-1] == 0:
            return None
        if self.label_embed is None:
            raise ConfigError("got denoising queries for a model that was made with denoising=False")
        labels, boxes = denoising["labels"], denoising["boxes"]
        if labels.ndim != 3 or boxes.shape != (*labels.shape, 4):
            raise ShapeError(
                f"{self.path}: got denoising labels of shape {labels.shape} and boxes of shape {boxes.shape}, "
                "expected (batch, groups, queries) and (batch, groups, queries, 4)"
            )
        return denoising

    def _parts(self, known, total):
        """Where the denoising queries lie, if there are any, and each group of the others."""
        groups = [slice(start, start + self.num_queries) for start in range(known, total, self.num_queries)]
        return ([slice(0, known)] if known else []) + groups


def _apart(parts, copies, xp):
    """Which queries may not see which: those of other groups, and the padding of denoising ones. None: all see all."""
    if len(parts) == 1:
        return None
    group = np.concatenate([np.full(part.stop - part.start, -1 - i) for i, part in enumerate(parts)])
    if copies is not None:
        group[parts[0]] = np.repeat(np.arange(copies["labels"].shape[1]), copies["labels"].shape[2])
    apart = to_module(group[:, None] != group, xp)[None, None]
    if copies is None:
        return apart
    padding = xp.zeros((len(copies["labels"]), 1, 1, len(group)), dtype=bool)
    padding[..., parts[0]] = (copies["targets"] < 0).reshape(len(padding), 1, 1, -1)
    return apart | padding


def _heads(dim, num_classes, dtype, seed):
    """Class and box from a decoder's output; initial values as in torch.nn.Linear, uniform within ±1/√in."""
    heads = Linear(dim, num_classes + 1, dtype=dtype, seed=seed), Perceptron((dim, dim, dim, 4), dtype=dtype, seed=seed)
    for layer in (heads[0], *heads[1].layers):
        for parameter in (layer.weight, layer.bias):
            parameter.data[...] = uniform(seed, parameter.data.shape, dim, dtype)
    return heads


def _as_outputs(logits, boxes):
    """(L, B, Q, K+1) and (L, B, Q, 4) -> the dict of the last layer, with aux_outputs where there are earlier ones."""
    *earlier, last = ({"pred_logits": p, "pred_boxes": b} for p, b in zip(logits, boxes))
    return {**last, "aux_outputs": earlier} if earlier else last


def _from_outputs(outputs):
    """The inverse of _as_outputs."""
    layers, xp = [*outputs.get("aux_outputs", ()), outputs], array_module(outputs["pred_boxes"])
    return [xp.stack([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes")]
