"""What ViTs after the first have: LayerScale, normalized queries and keys, register tokens, no class token."""

from dataclasses import replace
from functools import partial

from ..core import Seed
from ..layers import Block, DynamicEmbed, DynamicPatchEmbed, Embed, PatchEmbed
from .model import IMAGENET
from .vit import VisionTransformer
from .vit_sizes import BASE, SMALL, sizes


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
        *args,
        init_values: float | None = None,
        qk_norm: bool = False,
        reg_tokens: int = 0,
        no_embed_class: bool = False,
        class_token: bool = True,
        pre_norm: bool = False,
        dynamic_img_size: bool = False,
        dtype: str = "float32",
        seed: Seed = 0,
        **options,
    ):
        tokens = dict(cls_token=class_token, reg_tokens=reg_tokens, no_embed_class=no_embed_class, pre_norm=pre_norm)
        parts = {
            "embed_layer": partial(DynamicPatchEmbed if dynamic_img_size else PatchEmbed, bias=not pre_norm),
            "embed": partial(DynamicEmbed if dynamic_img_size else Embed, **tokens),
            "block": partial(Block, init_values=init_values, qk_norm=qk_norm),
        }
        super().__init__(*args, **{**parts, **options}, dtype=dtype, seed=seed)

    @staticmethod
    def count_parameters(
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        distilled: bool,
        init_values: float | None,
        qk_norm: bool,
        reg_tokens: int,
        no_embed_class: bool,
        class_token: bool,
        pre_norm: bool,
        **others,
    ) -> int:
        """See VisionTransformer; its class and distillation tokens have positions."""
        D, tokens = embed_dim, reg_tokens + bool(class_token) - 1
        positions = -(2 if distilled else 1) if no_embed_class else tokens
        scales = (0 if init_values is None else 2 * D) + (4 * (D // num_heads) if qk_norm else 0)
        extra = (tokens + positions) * D + depth * scales + (D if pre_norm else 0)  # a norm instead of the bias
        return extra + VisionTransformer.count_parameters(embed_dim=D, depth=depth, distilled=distilled, **others)

    @staticmethod
    def count_multiply_adds(*, reg_tokens: int, class_token: bool, **others) -> int:
        """See VisionTransformer."""
        return VisionTransformer.count_multiply_adds(prefix=reg_tokens + bool(class_token), **others)


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
