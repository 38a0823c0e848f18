"""DeiT (Touvron et al. 2020, arXiv:2012.12877): ViT trained on less data, and distilled with a second head."""

from dataclasses import replace

from .model import IMAGENET
from .vit import VisionTransformer
from .vit_sizes import BASE, SMALL, TINY, sizes


def _deit(*row, crop_pct=0.9, **options):
    return VisionTransformer, sizes(*row, **options), replace(IMAGENET, crop_pct=crop_pct)


# name: class, options and preprocessing, as in timm
VARIANTS = {
    "deit_tiny_patch16_224": _deit(16, TINY),
    "deit_small_patch16_224": _deit(16, SMALL),
    "deit_base_patch16_224": _deit(16, BASE),
    "deit_base_patch16_384": _deit(16, BASE, 384, crop_pct=1.0),
    "deit_tiny_distilled_patch16_224": _deit(16, TINY, distilled=True),
    "deit_small_distilled_patch16_224": _deit(16, SMALL, distilled=True),
    "deit_base_distilled_patch16_224": _deit(16, BASE, distilled=True),
    "deit_base_distilled_patch16_384": _deit(16, BASE, 384, crop_pct=1.0, distilled=True),
}
