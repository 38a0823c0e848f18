"""One model of each kind and option, with images: see cases.py."""

from functools import partial

from ..backend import array_module
from ..core import FORGET, Layer
from ..layers import BasicBlock, Bottleneck, GELUTanh, GroupNorm, LayerNorm
from ..models import DETR, AnchorDETR, ModernVisionTransformer, ResNet, SwinTransformer, VisionTransformer
from .case import Case, normalized


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
    return Case(f"ResNet {name}", normalized(build), (2, 2, 25, 33), 1e-6)


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
