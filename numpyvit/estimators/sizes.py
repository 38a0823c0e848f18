"""Which model suits images of a shape, where the user does not say."""

import math

from ..layers.checks import check_counts
from ..layers.patches import pair

# pixels of an image, all channels counted, up to which a size serves: embed_dim, depth, num_heads
_SIZES = ((48, (32, 2, 2)), (2000, (64, 4, 4)), (math.inf, (96, 6, 4)))
_PATCHES = 8  # a side, about


def patch_for(side: int) -> int:
    """The side of a patch for an image's side in pixels: 1 for a few pixels, else such that 4 to 8 patches fit."""
    return max(1 if side < 8 else 2, math.ceil(side / _PATCHES))


def model_options(
    image_shape: tuple[int, int, int],
    patch_size: int | tuple[int, int] | None = None,
    embed_dim: int | None = None,
    depth: int | None = None,
) -> dict:
    """The options of a model for images (C, H, W), what the user says first.

    img_size is the image's, rounded up so that the patches divide it.
    """
    C, H, W = image_shape
    width, blocks, heads = next(size for pixels, size in _SIZES if pixels >= C * H * W)
    width, blocks = width if embed_dim is None else embed_dim, blocks if depth is None else depth
    check_counts(embed_dim=width, depth=blocks)
    patch = (patch_for(H), patch_for(W)) if patch_size is None else pair(patch_size, "patch_size")
    return {
        "img_size": tuple(math.ceil(side / part) * part for side, part in zip((H, W), patch)),
        "patch_size": patch,
        "in_chans": C,
        "embed_dim": width,
        "depth": blocks,
        "num_heads": math.gcd(width, heads),
    }
