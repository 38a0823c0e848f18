"""A model for inference alone: what follows from its weights is computed once.

A scale and a shift that a product follows, or that follow a product, become part of it:

    W (γ x̂ + β) + b = (W diag γ) x̂ + (W β + b)      a LayerNorm before a Linear
    s (W_q x + b_q) = (s W_q) x + s b_q             the scale of attention's scores, and its queries
    γ (W x + b)     = (diag γ W) x + γ b            LayerScale behind a Linear
    a (W ∗ x) + b   = (a W) ∗ x + b                 a frozen batch norm behind a convolution
"""

import copy
from collections import Counter

import numpy as np

from .. import layers as L
from ..backend import array_module
from ..core import Layer, Parameter
from ..functional.windows import padded_size
from ..layers.heads import PoolingHead
from .swin import SwinTransformer

_PACKAGE = __name__.split(".")[0] + "."


def folded(model: Layer) -> Layer:
    """A copy of the model, with arrays of its own, whose forward without a tape gives the same in fewer passes.

    Folded are layers of this package. One's own stay as they are with all inside, which they may use in other ways, and
    so does what stands in several places.
    """
    model = copy.deepcopy(model)
    layers = [layer for _, layer in model.named_layers()]
    for layer in layers:
        vars(layer).pop("forward", None)  # who observes the model does not observe the copy
    places = Counter(child for layer in layers for _, child in layer.children())
    for layer in list(_known(model)):
        for kind, norm, behind in _NORMS:
            if _is(layer, kind):
                _fold_norm(layer, norm, behind(layer), places)
        for kind, fold in _FOLDS:
            if _is(layer, kind):
                fold(layer, places)
    return model


def _known(layer):
    """The layer and those inside, but none of one's own nor what is in there."""
    if all(method.__module__.startswith(_PACKAGE) for method in _passes(type(layer))):
        yield layer
        for _, child in layer.children():
            if isinstance(child, Layer):
                yield from _known(child)


def _is(layer, kind):
    """Whether it is of that kind, and runs as that does."""
    return isinstance(layer, kind) and _passes(type(layer)) == _passes(kind)


def _passes(kind):
    """The methods by which layers of a kind run their parts."""
    return [getattr(kind, name) for name in ("forward", "features", "pyramid", "encode") if hasattr(kind, name)]


# ---- norms ----------------------------------------------------------------------------------------------------------


def _fold_norm(owner, name, behind, places):
    """Fold a LayerNorm, an attribute of its owner, into the products that read it; behind: all layers that do."""
    norm, linears = getattr(owner, name), [_reader(layer) for layer in behind]
    if not _is(norm, L.LayerNorm) or not linears or None in linears or _shared(places, norm, *linears):
        return
    for linear in linears:
        _add_to_bias(linear, norm.bias.data)
        linear.weight.data *= norm.weight.data
    setattr(owner, name, L.Standardize(norm.eps))


def _add_to_bias(linear, shift):
    """A shift of what a Linear reads becomes part of its bias:   b + W shift."""
    weight = linear.weight.data
    bias = weight.astype(np.float64) @ shift.astype(np.float64)
    if linear.bias is not None:
        bias += linear.bias.data
    linear.bias = Parameter(bias.astype(weight.dtype))


# which layer inside reads the input, and alone
_READS = {
    L.Attention: "qkv",
    L.FeedForward: "linear1",
    L.MapHead: "fc",  # the mean of tokens, which it reads, may be taken before the scale and shift
    L.Mlp: "fc1",
    L.PreLogits: "fc",
    L.WindowAttention: "qkv",
}


def _reader(layer):
    """The Linear that alone reads what a layer is given; None where another does, or several."""
    for kind, name in _READS.items():
        if _is(layer, kind):
            return _reader(getattr(layer, name))
    return layer if _is(layer, L.Linear) or _is(layer, L.QKV) else None


def _shared(places, *layers):
    return any(places[child] > 1 for layer in layers for _, child in layer.children())


def _without_identities(*layers):
    return [layer for layer in layers if not isinstance(layer, L.Identity)]


# kind of layer, the name of a norm in it, and the layers that read it
_NORMS = [
    (L.Block, "norm1", lambda block: [block.attn]),
    (L.Block, "norm2", lambda block: [block.mlp]),
    (PoolingHead, "norm", lambda head: _without_identities(head.fc_norm, head.pre_logits, head.head)[:1]),
    (PoolingHead, "fc_norm", lambda head: _without_identities(head.pre_logits, head.head)[:1]),
    (L.DistilledHead, "norm", lambda head: [head.head, head.head_dist]),
    (L.SwinBlock, "norm2", lambda block: [block.mlp]),
    (L.PatchMerging, "norm", lambda merging: [merging.reduction]),
    (SwinTransformer, "norm", lambda model: [model.head]),
    (L.PreNormEncoderLayer, "norm2", lambda layer: [layer.feed_forward]),
    (L.PreNormDecoderLayer, "norm3", lambda layer: [layer.feed_forward]),
]


def _fold_norms_of_windows(model, places):
    """The padding of windows is zeros behind norm1, where a norm's shift would be missing: only where there is none."""
    if isinstance(model.patch_embed, L.DynamicPatchEmbed):
        return
    for block in (block for stage in model.layers for block in stage.blocks):
        size = block.input_resolution
        if _is(block, L.SwinBlock) and padded_size(size, block.window_size) == size:
            _fold_norm(block, "norm1", [block.attn], places)


# ---- attention ------------------------------------------------------------------------------------------------------


def _fold_attention(attention, places):
    q_norm, k_norm = (getattr(attention, name, L.Identity()) for name in ("q_norm", "k_norm"))
    normalized = not (isinstance(q_norm, L.Identity) and isinstance(k_norm, L.Identity))
    qkv, proj = attention.qkv, attention.proj
    if _reader(qkv) is None or _shared(places, qkv, q_norm) or (normalized and not _is(q_norm, L.LayerNorm)):
        return
    _fold_scale(attention, q_norm if normalized else qkv)
    if not normalized and qkv.bias is not None and _is(proj, L.Linear) and not _shared(places, proj):
        _fold_biases(qkv, proj)


def _fold_scale(attention, maker):
    """The scale of the scores becomes a factor of what makes the queries: a norm, or the first rows of qkv."""
    for _, child in maker.children():
        rows = len(child.data) if isinstance(maker, L.LayerNorm) else len(child.data) // 3
        child.data[:rows] *= attention.scale
    attention.scale = 1.0


def _fold_biases(qkv, proj):
    """Only queries keep their bias, the first third.

    That of the keys adds a number to all scores of a query, which softmax does not see. That of the values is added to
    every output, since probabilities add up to 1, so proj may do it.
    """
    width = len(qkv.bias.data) // 3
    _add_to_bias(proj, qkv.bias.data[2 * width :])
    qkv.bias = Parameter(qkv.bias.data[:width])


# ---- activations ----------------------------------------------------------------------------------------------------


def _fold_gelu(mlp, places):
    """The bias in front of a GELU is added in the same pass."""
    linear = mlp.fc1
    if _is(linear, L.Linear) and linear.bias is not None and type(mlp.act) is L.GELU and not _shared(places, linear):
        mlp.act = L.BiasedGELU(len(linear.bias.data))
        mlp.act.bias, linear.bias = linear.bias, None


# ---- LayerScale -----------------------------------------------------------------------------------------------------


def _fold_layer_scales(block, places):
    """Both branches of a block end with a Linear, whose rows take the factors behind it."""
    for name, branch, kind, last in (("ls1", block.attn, L.Attention, "proj"), ("ls2", block.mlp, L.Mlp, "fc2")):
        scale, linear = getattr(block, name), getattr(branch, last, None)
        if not (_is(scale, L.LayerScale) and _is(branch, kind) and _is(linear, L.Linear)) or linear.bias is None:
            continue
        if not _shared(places, scale, linear):
            linear.weight.data *= scale.gamma.data[:, None]
            linear.bias.data *= scale.gamma.data
            setattr(block, name, L.Identity())


# ---- batch norms ----------------------------------------------------------------------------------------------------


def _fold_batch_norms(block, places):
    """Each convolution of a block takes in the frozen batch norm behind it, which becomes nothing."""
    for number in "123":
        conv, norm = getattr(block, f"conv{number}", None), getattr(block, f"bn{number}", None)
        if _fold_batch_norm(conv, norm, places):
            setattr(block, f"bn{number}", L.Identity())


def _fold_shortcut(pair, places):
    if _fold_batch_norm(*pair, places):
        pair[1] = L.Identity()


def _fold_batch_norm(conv, norm, places):
    """-> whether the norm is part of the convolution now."""
    if not _is(conv, L.Conv2d) or not _is(norm, L.FrozenBatchNorm2d) or _shared(places, conv, norm):
        return False
    a, b = norm.affine()
    conv.weight.data = conv.weight.data * a[:, None, None, None]
    conv.bias = Parameter(b if conv.bias is None else a * conv.bias.data + b)
    return True


def _lay_out(conv, places):
    """In memory as kernels/cpu/convolution.py multiplies: a matrix for each row of the kernel."""
    conv.weight.data = (
        array_module(conv.weight.data).ascontiguousarray(conv.weight.data.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2)
    )


_FOLDS = [
    (SwinTransformer, _fold_norms_of_windows),
    (L.Block, _fold_layer_scales),
    (L.Attention, _fold_attention),
    (L.Mlp, _fold_gelu),
    (L.WindowAttention, _fold_attention),
    (L.Stem, _fold_batch_norms),
    (L.BasicBlock, _fold_batch_norms),
    (L.Bottleneck, _fold_batch_norms),
    (L.ConvNorm, _fold_shortcut),
    (L.Conv2d, _lay_out),
]
