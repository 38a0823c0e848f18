"""The documented defaults: scripts that name no value count on them."""

import inspect

import pytest

import numpyvit as nv
from numpyvit import layers, losses, optim
from numpyvit.training.shards import Sharding

VISION_TRANSFORMER = dict(
    img_size=224,
    patch_size=16,
    in_chans=3,
    num_classes=1000,
    embed_dim=768,
    depth=12,
    num_heads=12,
    mlp_ratio=4.0,
    qkv_bias=True,
    qk_scale=None,
    representation_size=None,
    distilled=False,
    drop_rate=0.0,
    attn_drop_rate=0.0,
    drop_path_rate=0.0,
    norm_layer=None,
    act_layer=None,
    global_pool="token",
    dtype="float32",
    seed=0,
)
MODERN = dict(
    init_values=None,
    qk_norm=False,
    reg_tokens=0,
    no_embed_class=False,
    class_token=True,
    pre_norm=False,
    dynamic_img_size=False,
    dtype="float32",
    seed=0,
)
SWIN_TRANSFORMER = dict(
    img_size=224,
    patch_size=4,
    in_chans=3,
    num_classes=1000,
    embed_dim=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    window_size=7,
    mlp_ratio=4.0,
    qkv_bias=True,
    drop_rate=0.0,
    attn_drop_rate=0.0,
    drop_path_rate=0.1,
    norm_layer=None,
    proj_drop_rate=0.0,
    head_dim=None,
    always_partition=False,
    strict_img_size=True,
    dynamic_img_size=False,
    pad_first=False,
)
DETR = dict(
    num_classes=91,
    num_queries=100,
    backbone="resnet50",
    img_size=800,
    in_chans=3,
    hidden_dim=256,
    nheads=8,
    enc_layers=6,
    dec_layers=6,
    dim_feedforward=2048,
    dropout=0.1,
    position_embedding="sine",
    temperature=10000.0,
    pre_norm=False,
    aux_loss=True,
    dilation=False,
)
RESNET = dict(
    depths=(3, 4, 6, 3),
    num_classes=1000,
    in_chans=3,
    width=64,
    img_size=224,
    replace_stride_with_dilation=(False, False, False),
    norm_layer=layers.FrozenBatchNorm2d,
)
RESIDUAL = dict(stride=1, dilation=1, norm_layer=layers.FrozenBatchNorm2d)
WINDOWS = dict(head_dim=None, window_size=7, qkv_bias=True, attn_drop=0.0, proj_drop=0.0)
SWIN_BLOCK = dict(shift_size=0, always_partition=False, mlp_ratio=4.0, drop_path=0.0, norm_layer=None, pad_first=False)
EMBED = dict(cls_token=True, dist_token=False, reg_tokens=0, no_embed_class=False, drop_rate=0.0, pre_norm=False)
ATTENTION = dict(num_heads=8, qkv_bias=False, qk_scale=None, attn_drop=0.0, proj_drop=0.0)
BLOCK = dict(mlp_ratio=4.0, qkv_bias=False, qk_scale=None, drop=0.0, attn_drop=0.0, drop_path=0.0)
PATCHES = dict(img_size=224, patch_size=16, in_chans=3, embed_dim=768, norm_layer=None)

DEFAULTS = [
    (nv.VisionTransformer, VISION_TRANSFORMER),
    (nv.ModernVisionTransformer, MODERN),
    (nv.SwinTransformer, SWIN_TRANSFORMER),
    (nv.models.DETR, DETR),
    (nv.models.AnchorDETR, dict(groups=1, denoising=True)),
    (nv.models.ResNet, {**RESNET, "block": layers.Bottleneck}),
    (nv.summary, dict(input_shape=None, depth=2)),
    (nv.create_model, dict(pretrained=None, seed=0, dtype="float32", device="cpu", grad_checkpointing=False)),
    (nv.VisionTransformer.set_grad_checkpointing, dict(enable=True)),
    (nv.VisionTransformer.forward_intermediates, dict(indices=None, norm=False)),
    (layers.Linear, dict(bias=True)),
    (layers.LayerNorm, dict(eps=1e-6)),
    (layers.Softmax, dict(axis=-1)),
    (layers.Dropout, dict(p=0.5)),
    (layers.DropPath, dict(p=0.0)),
    (layers.LayerScale, dict(init_values=1e-5)),
    (layers.Mlp, dict(hidden_features=None, out_features=None, act_layer=layers.GELU, drop=0.0)),
    (layers.Attention, ATTENTION),
    (
        layers.Block,
        {**BLOCK, "act_layer": layers.GELU, "norm_layer": layers.LayerNorm, "init_values": None, "qk_norm": False},
    ),
    (layers.PatchEmbed, PATCHES),
    (layers.DynamicPatchEmbed, PATCHES),
    (layers.Embed, EMBED),
    (layers.DynamicEmbed, EMBED),
    (layers.ClassHead, dict(representation_size=None, norm_layer=layers.LayerNorm)),
    (layers.AverageHead, dict(num_prefix_tokens=1, representation_size=None, norm_layer=layers.LayerNorm)),
    (layers.MapHead, dict(drop_rate=0.0)),
    (layers.Sequence, dict(recompute=False)),
    (layers.WindowAttention, WINDOWS),
    (layers.SwinBlock, {**WINDOWS, **SWIN_BLOCK}),
    (layers.PatchMerging, dict(out_dim=None, norm_layer=None)),
    (layers.Conv2d, dict(stride=1, padding=0, dilation=1, bias=True)),
    (layers.ConvNorm, dict(recompute=False)),
    (layers.MaxPool2d, dict(stride=None, padding=0)),
    (layers.FrozenBatchNorm2d, dict(eps=1e-5)),
    (layers.GroupNorm, dict(eps=1e-5)),
    (layers.BasicBlock, RESIDUAL),
    (layers.Bottleneck, RESIDUAL),
    (layers.MultiheadAttention, dict(dropout=0.0)),
    (layers.EncoderLayer, dict(dropout=0.0)),
    (layers.DecoderLayer, dict(dropout=0.0)),
    (layers.Transformer, dict(dropout=0.0, pre_norm=False)),
    (layers.SinePosition, dict(temperature=10000.0)),
    (layers.AnchorQueries, dict(groups=1, denoising=True)),
    (nv.models.SwinTransformer.forward_intermediates, dict(indices=None, norm=False)),
    (nv.models.SwinTransformer.set_grad_checkpointing, dict(enable=True)),
    (nv.models.ResNet.set_grad_checkpointing, dict(enable=True)),
    (nv.models.ResNet.pyramid, dict(stages=4)),
    (nv.models.DETR.set_grad_checkpointing, dict(enable=True)),
    (layers.Sequence.set_recompute, dict(enable=True)),
    (layers.Standardize, dict(eps=1e-6)),
    (nv.functional.softmax, dict(axis=-1)),
    (nv.functional.softmax_backward, dict(axis=-1)),
    (nv.functional.out_size, dict(dilation=(1, 1))),
    (nv.functional.to_windows, dict(shift=(0, 0), pad_first=False)),
    (nv.functional.from_windows, dict(pad_first=False)),
    (nv.functional.attention_from, dict(shift=(0, 0), pad_first=False)),
    (nv.functional.sine_features, dict(temperature=10000.0)),
    (nv.functional.sine_features_backward, dict(temperature=10000.0)),
    (losses.match, dict(cost=(1.0, 5.0, 2.0))),
    (
        losses.detection,
        dict(return_parts=False, pairs=None, weights=(1.0, 5.0, 2.0), cost=(1.0, 5.0, 2.0), no_object=0.1),
    ),
    (losses.denoising_queries, dict(groups=5, label_noise=0.2, box_noise=0.4, most=None)),
    (losses.cross_entropy, dict(label_smoothing=0.0, weight=None)),
    (losses.hard_distillation, dict(alpha=0.5, label_smoothing=0.0)),
    (losses.soft_distillation, dict(alpha=0.5, tau=1.0, label_smoothing=0.0)),
    (optim.AdamW, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, lr_scale=None)),
    (optim.SGD, dict(lr=1e-2, momentum=0.0, nesterov=False, weight_decay=0.0, lr_scale=None)),
    (optim.EMA, dict(decay=0.999)),
    (optim.constant_schedule, dict(warmup_steps=0)),
    (optim.cosine_schedule, dict(warmup_steps=0, min_lr=0.0)),
    (optim.step_schedule, dict(gamma=0.1, warmup_steps=0)),
    (nv.Tape, dict(seed=None, input_gradient=True, record_all=False)),
    (nv.TrainStep, dict(loss=losses.cross_entropy, threads=None, seed=0, clip_norm=None, sharding=None)),
    (nv.infer, dict(threads=None, sharding=None)),
    (nv.Parameter, dict(trainable=True, decay=None)),
    (nv.Layer.load_state_dict, dict(strict=True)),
]


@pytest.mark.parametrize("function, expected", DEFAULTS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_the_documented_defaults_hold(function, expected):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in expected} == expected


# which batches are cut how: other numbers give other bits
SHARDS = [
    (Sharding(), dict(max_shards=8, min_shard=48_000, tiny_batch=15_000, tiny_work=4_000_000)),
    (nv.create_model("vit_micro_patch2_8"), dict(min_shard=0)),
    (nv.create_model("swin_micro_patch2_window4_32"), dict(min_shard=100_000 * 32 * 32 * 3 // (8 * 8 // 4 * 128))),
    (nv.create_model("detr_micro_64"), dict(min_shard=200_000)),
]


@pytest.mark.parametrize("owner, expected", SHARDS, ids=lambda value: type(value).__name__)
def test_the_sizes_of_shards_hold(owner, expected):
    assert {name: getattr(owner, name) for name in expected} == expected


def _classes(kind):
    for one in kind.__subclasses__():
        if one.__module__.startswith("numpyvit."):
            yield one
        yield from _classes(one)


@pytest.mark.parametrize("kind", sorted(set(_classes(nv.Layer)), key=lambda kind: kind.__qualname__))
def test_every_layer_and_model_is_float32_and_of_seed_0_unless_told(kind):
    parameters = inspect.signature(kind).parameters
    for name, default in (("dtype", "float32"), ("seed", 0)):
        assert name not in parameters or parameters[name].default == default
