"""The sizes of Vision Transformers, and how many parameters and multiply-adds follow from them."""

import math

from ..layers.patches import pair

# (embed_dim, depth, num_heads)
TINY, SMALL, BASE, LARGE, HUGE = (192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 16)


def sizes(patch_size: int, size: tuple[int, int, int], img_size: int = 224, **options) -> dict:
    """The options of a preset of one of these sizes."""
    embed_dim, depth, num_heads = size
    named = dict(img_size=img_size, patch_size=patch_size, embed_dim=embed_dim, depth=depth, num_heads=num_heads)
    return {**named, **options}


def count_parameters(
    *,
    img_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
    in_chans: int,
    num_classes: int,
    embed_dim: int,
    depth: int,
    mlp_ratio: float,
    qkv_bias: bool,
    representation_size: int | None,
    distilled: bool,
    **others,
) -> int:
    """How many parameters a model with these options has, by arithmetic: nothing is made."""
    D, hidden, heads = embed_dim, int(embed_dim * mlp_ratio), 2 if distilled else 1
    image, patch = pair(img_size, "img_size"), pair(patch_size, "patch_size")
    patches = math.prod(side // step for side, step in zip(image, patch))
    embed = D * (in_chans * math.prod(patch) + 1) + (patches + 2 * heads) * D  # each token has a position
    block = 4 * D + D * (3 * D + 3 * bool(qkv_bias)) + D * (D + 1) + hidden * (D + 1) + D * (hidden + 1)
    features, represent = D, 0
    if representation_size and not distilled:
        features, represent = representation_size, representation_size * (D + 1)
    return embed + depth * block + 2 * D + represent + heads * (features + 1) * num_classes


def count_multiply_adds(
    *,
    img_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
    in_chans: int,
    num_classes: int,
    embed_dim: int,
    depth: int,
    mlp_ratio: float,
    representation_size: int | None,
    distilled: bool,
    prefix: int = 1,
    **others,
) -> int:
    """How many multiply-adds one image takes, as `summary` counts them.

    prefix: how many tokens stand before the patches, the distillation token aside.
    """
    D, hidden = embed_dim, int(embed_dim * mlp_ratio)
    image, patch = pair(img_size, "img_size"), pair(patch_size, "patch_size")
    patches = math.prod(side // step for side, step in zip(image, patch))
    N, heads = patches + prefix + bool(distilled), 2 if distilled else 1
    block = N * (4 * D * D + 2 * D * hidden) + 2 * N * N * D
    features, represent = D, 0
    if representation_size and not distilled:
        features, represent = representation_size, representation_size * D
    return patches * in_chans * math.prod(patch) * D + depth * block + represent + heads * features * num_classes
