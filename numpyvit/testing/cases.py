"""Every layer and one model of each kind, with inputs: what `numpyvit gradcheck` and the tests run over."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..backend import array_module
from ..core import FORGET, Buffer, Layer
from ..layers import (
    GELU,
    QKV,
    Attention,
    BasicBlock,
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
    Stem,
    SwinBlock,
    SwinStage,
    Tanh,
    WindowAttention,
)
from ..models import DETR, AnchorDETR, ModernVisionTransformer, ResNet, SwinTransformer, VisionTransformer
from . import randomize


@dataclass(frozen=True)
class Case:
    """A layer to check. build(dtype=…, seed=…) makes it; rtol is the largest relative error allowed in float64."""

    name: str
    build: Callable
    shape: tuple
    rtol: float = 1e-7
    dropout: bool = False

    def layer(self, dtype: str = "float32") -> Layer:
        """The layer with random values in every parameter."""
        return randomize(self.build(dtype=dtype, seed=0))

    def x(self, dtype: str = "float32", batch: int | None = None) -> np.ndarray:
        shape = self.shape if batch is None else (batch, *self.shape[1:])
        return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def _checkpointed_block(**options):
    return Recompute(Block(8, 2, drop=0.2, attn_drop=0.2, drop_path=0.3, **options))


def _stage(**made):
    merging = PatchMerging(4, 8, **made)
    return SwinStage(merging, [SwinBlock(8, (4, 2), 2, window_size=2, shift_size=i, **made) for i in (0, 1)])


def _with_statistics(build, **options):
    """A layer whose buffers, the statistics of batch norms, are random."""
    layer, rng = build(**options), np.random.default_rng(2)
    for _, buffer in layer.named_buffers():
        buffer.data[...] = rng.uniform(0.2, 1, buffer.data.shape)
    return layer


def _normalized(*args, **options):
    return partial(_with_statistics, partial(*args, **options))


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


class _Detects(Layer):
    """A detector whose logits and boxes stand side by side in one array (B, Q, K+5)."""

    def __init__(self, detector):
        self.detector = detector
        self.set_paths()

    def forward(self, x, tape=FORGET):
        out = self.detector.forward(x, tape)
        return array_module(x).concatenate([out["pred_logits"], out["pred_boxes"]], axis=-1)

    def backward(self, dy, tape):
        return self.detector.backward({"pred_logits": dy[..., :-4], "pred_boxes": dy[..., -4:]}, tape)


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
    Case("LayerScale", partial(LayerScale, 8), _TOKENS),
    Case("GELU", GELU, _TOKENS),
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
    Case("FrozenBatchNorm2d", _normalized(FrozenBatchNorm2d, 4), _CHANNELS_FIRST),
    Case("Stem", _normalized(Stem, 4, 6), (3, 4, 9, 8)),
    Case("BasicBlock", _normalized(BasicBlock, 4, 4), _CHANNELS_FIRST),
    Case("BasicBlock with a shortcut", _normalized(BasicBlock, 4, 6, 2), _CHANNELS_FIRST),
    Case("BasicBlock with GroupNorm", partial(BasicBlock, 4, 6, 2, norm_layer=partial(GroupNorm, 2)), _CHANNELS_FIRST),
    Case("Bottleneck", _normalized(Bottleneck, 4, 1), _CHANNELS_FIRST),
    Case("Bottleneck with a shortcut", _normalized(Bottleneck, 4, 2, 2), _CHANNELS_FIRST),
    Case("Bottleneck with dilation", _normalized(Bottleneck, 4, 1, 1, 2), _CHANNELS_FIRST),
    Case("MapHead with dropout", partial(MapHead, 8, 5, 0.4), _MAP, dropout=True),
]

_tiny = partial(
    VisionTransformer,
    img_size=8,
    patch_size=4,
    in_chans=2,
    num_classes=3,
    embed_dim=8,
    depth=2,
    num_heads=2,
    mlp_ratio=2,
)
_IMAGES = (3, 2, 8, 8)


def _vit(name, dropout=False, shape=_IMAGES, **options):
    return Case(f"VisionTransformer {name}".strip(), partial(_tiny, **options), shape, 1e-6, dropout)


def _modern(name, shape=_IMAGES, **options):
    build = partial(ModernVisionTransformer, *_tiny.args, **_tiny.keywords, **options)
    return Case(f"ModernVisionTransformer {name}", build, shape, 1e-6)


_tiny_swin = partial(
    SwinTransformer,
    img_size=16,
    patch_size=2,
    in_chans=2,
    num_classes=3,
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 4),
    window_size=2,
    mlp_ratio=2,
    drop_path_rate=0,
)


def _swin(name, dropout=False, shape=(3, 2, 16, 16), **options):
    return Case(f"SwinTransformer {name}".strip(), partial(_tiny_swin, **options), shape, 1e-6, dropout)


def _resnet(name, block, depths, **options):
    build = partial(ResNet, block, depths, num_classes=3, in_chans=2, width=4, **options)
    return Case(f"ResNet {name}", _normalized(build), (2, 2, 25, 33), 1e-6)


def _detr(name, kind=DETR, dropout=False, shape=(3, 2, 12, 16), **options):
    sizes = dict(in_chans=2, hidden_dim=8, nheads=2, enc_layers=1, dec_layers=2, dim_feedforward=12, aux_loss=False)
    options = dict(sizes, dropout=0.2 * dropout, **options)
    build = partial(kind, 3, 4, (8, 8), **options)
    return Case(f"{kind.__name__} {name}".strip(), lambda **made: _Detects(build(**made)), shape, 1e-6, dropout)


MODELS = [
    _vit(""),
    _vit("distilled", distilled=True),
    _vit("global_pool=avg", global_pool="avg"),
    _vit("representation_size", representation_size=6),
    _vit("num_classes=0", num_classes=0),
    _vit("qkv_bias=False", qkv_bias=False),
    _vit("qk_scale", qk_scale=0.5),
    _vit("drop_rate", drop_rate=0.2, dropout=True),
    _vit("attn_drop_rate", attn_drop_rate=0.3, dropout=True),
    _vit("drop_path_rate", drop_path_rate=0.5, dropout=True),
    _vit("norm_layer", norm_layer=partial(LayerNorm, eps=1e-3)),
    _vit("act_layer", act_layer=GELUTanh),
    _modern("LayerScale", init_values=0.1),
    _modern("qk_norm", qk_norm=True),
    _modern("qk_norm and LayerScale", qk_norm=True, init_values=0.1),
    _modern("registers", reg_tokens=2),
    _modern("no_embed_class", reg_tokens=2, no_embed_class=True),
    _modern("without class token", class_token=False, global_pool="avg"),
    _modern("pre_norm", pre_norm=True),
    _modern("dynamic_img_size", (3, 2, 12, 8), dynamic_img_size=True),
    _vit("non-square", img_size=(8, 12), patch_size=(4, 2), shape=(3, 2, 8, 12)),
    _swin(""),
    _swin("num_classes=0", num_classes=0),
    _swin("qkv_bias=False", qkv_bias=False),
    _swin("non-square", img_size=(16, 24), patch_size=(4, 2), shape=(3, 2, 16, 24)),
    _swin("window of two sides", window_size=(2, 4)),
    _swin("a window for each stage", window_size=((2, 4), 3)),
    _swin("padded", window_size=3),
    _swin("padded before the shift", window_size=3, pad_first=True),
    _swin("with an odd grid", img_size=(14, 10), shape=(3, 2, 14, 10)),
    _swin("with windows that shrink", window_size=7),
    _swin("always_partition", window_size=7, always_partition=True),
    _swin("dynamic_img_size", dynamic_img_size=True, shape=(3, 2, 12, 20)),
    _swin("head_dim", head_dim=3),
    _swin("mlp_ratio for each stage", mlp_ratio=(1.5, 3)),
    _swin("norm_layer", norm_layer=LayerNorm),
    _swin("drop_rate", drop_rate=0.4, dropout=True),
    _swin("proj_drop_rate", proj_drop_rate=0.2, dropout=True),
    _swin("attn_drop_rate", attn_drop_rate=0.3, dropout=True),
    _swin("drop_path_rate", drop_path_rate=0.5, dropout=True),
    _resnet("of BasicBlocks", BasicBlock, (1, 2, 1, 1)),
    _resnet("of Bottlenecks", Bottleneck, (2, 1, 1, 1)),
    _resnet("DC5", Bottleneck, (1, 1, 1, 2), replace_stride_with_dilation=(False, False, True)),
    _resnet("with GroupNorm", BasicBlock, (1, 1, 1, 1), norm_layer=partial(GroupNorm, 2)),
    _detr(""),
    _detr("pre_norm", pre_norm=True),
    _detr("learned positions", position_embedding="learned"),
    _detr("dropout", dropout=True),
    _detr("", AnchorDETR),
    _detr("dropout and pre_norm", AnchorDETR, dropout=True, pre_norm=True, denoising=False),
]
