"""What ViTs after the first have: LayerScale, normalized queries and keys, register tokens, no class token."""

from dataclasses import replace

import numpy as np

from ..core import as_dtype, make_rng
from ..errors import ConfigError
from ..layers import (
    GELU,
    Block,
    DynamicEmbed,
    DynamicPatchEmbed,
    Embed,
    LayerNorm,
    PatchEmbed,
    Sequence,
)
from .model import IMAGENET
from .vit import BASE, SMALL, VisionTransformer, check_sizes, pooling_head, sizes


class ModernVisionTransformer(VisionTransformer):
    """A VisionTransformer with what DeiT-III (arXiv:2204.07118) and DINOv2 (arXiv:2304.07193, 2309.16588) add.

    init_values:    initial value of LayerScale's factors on both branches of a block; None leaves them out.
    qk_norm:        queries and keys are normalized head by head.
    reg_tokens:     how many register tokens stand between the class token and the patches.
    no_embed_class: the position embedding is for the patches alone.
    class_token:    False leaves the class token out; then global_pool must be "avg".
    dynamic_img_size: images of any size that the patches divide; the position embedding is resized in each pass,
                    bicubic and antialiased as in timm, and learns through that.
    pre_norm:       a norm on the embedded tokens, before the first block; the patches then have no bias.
    """

    def __init__(
        self,
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
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=None,
        act_layer=None,
        global_pool="token",
        *,
        init_values=None,
        qk_norm=False,
        reg_tokens=0,
        no_embed_class=False,
        class_token=True,
        pre_norm=False,
        dynamic_img_size=False,
        dtype="float32",
        seed=0,
    ):
        check_sizes(
            num_classes,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            hidden=embed_dim * mlp_ratio,
            representation_size=1 if representation_size is None else representation_size,
        )
        if global_pool not in ("token", "avg"):
            raise ConfigError(f"global_pool must be 'token' or 'avg', got {global_pool!r}")
        if not class_token and global_pool == "token":
            raise ConfigError("class_token=False needs global_pool='avg'")
        norm_layer, made = norm_layer or LayerNorm, dict(dtype=as_dtype(dtype), seed=make_rng(seed))
        patch_layer, embed = (DynamicPatchEmbed, DynamicEmbed) if dynamic_img_size else (PatchEmbed, Embed)
        patches = patch_layer(img_size, patch_size, in_chans, embed_dim, bias=not pre_norm, **made)
        self.embed = embed(
            patches,
            embed_dim,
            cls_token=class_token,
            reg_tokens=reg_tokens,
            no_embed_class=no_embed_class,
            drop_rate=drop_rate,
            norm_pre=norm_layer(embed_dim, dtype=dtype) if pre_norm else None,
            **made,
        )
        width = (embed_dim, num_heads, mlp_ratio, qkv_bias, qk_scale, drop_rate, attn_drop_rate)
        self.blocks = Sequence(
            Block(*width, float(rate), act_layer or GELU, norm_layer, init_values=init_values, qk_norm=qk_norm, **made)
            for rate in np.linspace(0, drop_path_rate, depth)
        )
        options = (num_classes, representation_size, norm_layer)
        self.classifier = pooling_head(global_pool, self.embed, embed_dim, *options, **made)
        self.set_paths()


def _deit3(size):
    return ModernVisionTransformer, sizes(16, size, init_values=1e-6, no_embed_class=True), IMAGENET


def _dinov2(size, **options):
    options = sizes(14, size, 518, num_classes=0, init_values=1e-5, **options)
    return ModernVisionTransformer, options, replace(IMAGENET, crop_pct=1.0)


# name: class, options and preprocessing, as in timm
VARIANTS = {
    "deit3_small_patch16_224": _deit3(SMALL),
    "deit3_base_patch16_224": _deit3(BASE),
    "vit_small_patch14_dinov2": _dinov2(SMALL),
    "vit_base_patch14_dinov2": _dinov2(BASE),
    "vit_small_patch14_reg4_dinov2": _dinov2(SMALL, reg_tokens=4, no_embed_class=True),
}
