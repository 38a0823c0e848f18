"""Every layer and one model of each kind, with inputs: what `numpyvit gradcheck` and the tests run over."""

from functools import partial

import numpy as np

from ..backend import array_module
from ..core import FORGET, Buffer, Layer
from ..layers import (
    GELU,
    QKV,
    Attention,
    BasicBlock,
    BiasedGELU,
    Block,
    Bottleneck,
    Conv2d,
    DecoderLayer,
    Dropout,
    DropPath,
    EncoderLayer,
    FeedForward,
    FrozenBatchNorm2d,
    GELUTanh,
    GroupNorm,
    Identity,
    LayerNorm,
    LayerScale,
    Linear,
    MapHead,
    MaxPool2d,
    Mlp,
    MultiheadAttention,
    PatchEmbed,
    PatchMerging,
    PreNormDecoderLayer,
    PreNormEncoderLayer,
    Recompute,
    ReLU,
    Softmax,
    Standardize,
    Stem,
    SwinBlock,
    SwinStage,
    Tanh,
    WindowAttention,
)
from .case import Case, normalized
from .model_cases import MODELS

__all__ = ["LAYERS", "MODELS", "Case"]


def _checkpointed_block(**options):
    return Recompute(Block(8, 2, drop=0.2, attn_drop=0.2, drop_path=0.3, **options))


def _stage(**made):
    merging = PatchMerging(4, 8, **made)
    return SwinStage(merging, [SwinBlock(8, (4, 2), 2, window_size=2, shift_size=i, **made) for i in (0, 1)])


_TOKENS, _MAP, _CHANNELS_FIRST = (3, 5, 8), (3, 4, 6, 8), (3, 4, 7, 6)


class _Parts(Layer):
    """A layer of several inputs, each some of the tokens of one array: (B, Σ lengths, D)."""

    def __init__(self, layer, lengths, **masks):
        self.layer, self._edges, self._masks = layer, np.cumsum(lengths)[:-1].tolist(), masks
        self.masks = [Buffer(mask) for mask in masks.values()]

    def forward(self, x, tape=FORGET):
        masks = {name: buffer.data for name, buffer in zip(self._masks, self.masks)}
        return self.layer.forward(*array_module(x).split(x, self._edges, axis=1), tape=tape, **masks)

    def backward(self, dy, tape):
        return array_module(dy).concatenate(self.layer.backward(dy, tape), axis=1)


class _Encodes(Layer):
    """An encoder layer on tokens and their positions."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x, pos, tape=FORGET):
        return self.layer.forward((x, pos, None), tape)[0]

    def backward(self, dy, tape):
        return self.layer.backward((dy, 0), tape)


_NOT_BEHIND = np.triu(np.ones((3, 5), bool), 2)


def _attends(dropout=0.0, **masks):
    return lambda **made: _Parts(MultiheadAttention(8, 2, dropout, **made), (3, 5, 5), **masks)


def _encodes(kind, dropout=0.0):
    return lambda **made: _Parts(_Encodes(kind(8, 2, 12, dropout, **made)), (5, 5))


def _decodes(kind, dropout=0.0, **masks):
    return lambda **made: _Parts(kind(8, 2, 12, dropout, **made), (3, 3, 5, 5), **masks)


def _swin_block(name, shape=_MAP, dropout=False, **options):
    build = partial(SwinBlock, 8, shape[1:3], 2, **{"window_size": 2, **options})
    return Case(f"SwinBlock {name}".strip(), build, shape, dropout=dropout)


LAYERS = [
    Case("Linear", partial(Linear, 8, 6), _TOKENS),
    Case("Linear without bias", partial(Linear, 8, 6, bias=False), _TOKENS),
    Case("LayerNorm", partial(LayerNorm, 8), _TOKENS),
    Case("Standardize", Standardize, _TOKENS),
    Case("LayerScale", partial(LayerScale, 8), _TOKENS),
    Case("GELU", GELU, _TOKENS),
    Case("BiasedGELU", partial(BiasedGELU, 8), _TOKENS),
    Case("GELUTanh", GELUTanh, _TOKENS),
    Case("Tanh", Tanh, _TOKENS),
    Case("ReLU", ReLU, _TOKENS),
    Case("Softmax", Softmax, _TOKENS),
    Case("Softmax over axis 1", partial(Softmax, axis=1), _TOKENS),
    Case("Identity", Identity, _TOKENS),
    Case("Dropout", partial(Dropout, 0.3), _TOKENS, dropout=True),
    Case("DropPath", partial(DropPath, 0.4), (6, 5, 8), dropout=True),
    Case("Mlp", partial(Mlp, 8, 12, 6, drop=0.2), _TOKENS, dropout=True),
    Case("Mlp with ReLU", partial(Mlp, 8, 12, act_layer=ReLU), _TOKENS),
    Case("QKV", partial(QKV, 8), _TOKENS),
    Case("Attention", partial(Attention, 8, 2, qkv_bias=True), _TOKENS),
    Case("Attention without qkv bias", partial(Attention, 8, 2), _TOKENS),
    Case("Attention with qk_scale", partial(Attention, 8, 2, qk_scale=0.7), _TOKENS),
    Case("Attention with dropout", partial(Attention, 8, 2, attn_drop=0.3, proj_drop=0.2), _TOKENS, dropout=True),
    Case("Block", partial(Block, 8, 2, qkv_bias=True), _TOKENS),
    Case("Block with dropout", partial(Block, 8, 2, drop=0.2, attn_drop=0.2, drop_path=0.3), _TOKENS, dropout=True),
    Case("Block with LayerScale", partial(Block, 8, 2, drop_path=0.3, init_values=1e-5), _TOKENS, dropout=True),
    Case("Attention with qk-norm", partial(Attention, 8, 2, True, qk_norm=True), _TOKENS),
    Case("Recompute of a Block", _checkpointed_block, _TOKENS, dropout=True),
    Case("FeedForward", partial(FeedForward, 8, 12, 0.2), _TOKENS, dropout=True),
    Case("MultiheadAttention", _attends(), (3, 13, 8)),
    Case("MultiheadAttention with a mask", _attends(attn_mask=_NOT_BEHIND), (3, 13, 8)),
    Case("MultiheadAttention with added scores", _attends(attn_mask=_NOT_BEHIND * 0.7), (3, 13, 8)),
    Case("MultiheadAttention with dropout", _attends(0.3), (3, 13, 8), dropout=True),
    Case("EncoderLayer", _encodes(EncoderLayer), (3, 10, 8)),
    Case("EncoderLayer with dropout", _encodes(EncoderLayer, 0.2), (3, 10, 8), dropout=True),
    Case("PreNormEncoderLayer", _encodes(PreNormEncoderLayer, 0.2), (3, 10, 8), dropout=True),
    Case("DecoderLayer", _decodes(DecoderLayer, query_mask=_NOT_BEHIND[:, :3]), (3, 16, 8)),
    Case("DecoderLayer with dropout", _decodes(DecoderLayer, 0.2), (3, 16, 8), dropout=True),
    Case("PreNormDecoderLayer", _decodes(PreNormDecoderLayer, 0.2), (3, 16, 8), dropout=True),
    Case("PatchEmbed", partial(PatchEmbed, 8, 4, 3, 6), (2, 3, 8, 8)),
    Case("PatchEmbed 6x8 by 2x4", partial(PatchEmbed, (6, 8), (2, 4), 2, 6), (2, 2, 6, 8)),
    Case("PatchEmbed with norm", partial(PatchEmbed, 8, 4, 1, 6, norm_layer=LayerNorm), (2, 1, 8, 8)),
    Case("WindowAttention", partial(WindowAttention, 8, 2, window_size=(2, 3)), (4, 6, 8)),
    Case("WindowAttention with head_dim", partial(WindowAttention, 8, 3, 2, 2, False), (4, 4, 8)),
    Case(
        "WindowAttention with dropout", partial(WindowAttention, 8, 2, None, 2, True, 0.3, 0.2), (4, 4, 8), dropout=True
    ),
    _swin_block(""),
    _swin_block("shifted", shift_size=1),
    _swin_block("shifted along the columns", shift_size=(0, 1)),
    _swin_block("padded", window_size=3),
    _swin_block("padded and shifted", window_size=(3, 4), shift_size=(1, 2)),
    _swin_block("padded before the shift", window_size=(3, 4), shift_size=(1, 2), pad_first=True),
    _swin_block("with windows that shrink", window_size=5, shift_size=2),
    _swin_block("with always_partition", window_size=5, shift_size=2, always_partition=True),
    _swin_block("of one token a window", window_size=1),
    _swin_block("with dropout", shift_size=1, proj_drop=0.2, attn_drop=0.2, drop_path=0.3, dropout=True),
    Case("SwinBlock on maps of another size", partial(SwinBlock, 8, 6, 2, window_size=2, shift_size=1), (3, 5, 4, 8)),
    Case("PatchMerging", partial(PatchMerging, 8), _MAP),
    Case("PatchMerging of odd maps", partial(PatchMerging, 8, 6), (3, 5, 3, 8)),
    Case("SwinStage", _stage, (3, 8, 4, 4)),
    Case("MapHead", partial(MapHead, 8, 5), _MAP),
    Case("Conv2d", partial(Conv2d, 4, 5, 3, padding=1), _CHANNELS_FIRST),
    Case("Conv2d of one pixel", partial(Conv2d, 4, 5, 1, bias=False), _CHANNELS_FIRST),
    Case("Conv2d of one pixel in two", partial(Conv2d, 4, 5, 1, 2), _CHANNELS_FIRST),
    Case("Conv2d with a stride", partial(Conv2d, 4, 5, 3, 2, 1), _CHANNELS_FIRST),
    Case("Conv2d with dilation", partial(Conv2d, 4, 5, 3, 1, 2, 2), _CHANNELS_FIRST),
    Case("Conv2d with stride and dilation", partial(Conv2d, 4, 5, 3, (2, 3), 2, (1, 2)), _CHANNELS_FIRST),
    Case("Conv2d of a wide kernel", partial(Conv2d, 4, 5, (3, 5), (1, 2), (0, 4), bias=False), _CHANNELS_FIRST),
    Case("MaxPool2d", partial(MaxPool2d, 3, 2, 1), _CHANNELS_FIRST),
    Case("MaxPool2d of parts", partial(MaxPool2d, (2, 3)), _CHANNELS_FIRST),
    Case("GroupNorm", partial(GroupNorm, 2, 4), _CHANNELS_FIRST),
    Case("FrozenBatchNorm2d", normalized(FrozenBatchNorm2d, 4), _CHANNELS_FIRST),
    Case("Stem", normalized(Stem, 4, 6), (3, 4, 9, 8)),
    Case("BasicBlock", normalized(BasicBlock, 4, 4), _CHANNELS_FIRST),
    Case("BasicBlock with a shortcut", normalized(BasicBlock, 4, 6, 2), _CHANNELS_FIRST),
    Case("BasicBlock with GroupNorm", partial(BasicBlock, 4, 6, 2, norm_layer=partial(GroupNorm, 2)), _CHANNELS_FIRST),
    Case("Bottleneck", normalized(Bottleneck, 4, 1), _CHANNELS_FIRST),
    Case("Bottleneck with a shortcut", normalized(Bottleneck, 4, 2, 2), _CHANNELS_FIRST),
    Case("Bottleneck with dilation", normalized(Bottleneck, 4, 1, 1, 2), _CHANNELS_FIRST),
    Case("MapHead with dropout", partial(MapHead, 8, 5, 0.4), _MAP, dropout=True),
]
