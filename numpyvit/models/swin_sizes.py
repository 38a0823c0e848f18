"""The sizes of a Swin Transformer's stages, and how many parameters and multiply-adds follow from them."""

import math
from typing import NamedTuple

from ..errors import ConfigError
from ..functional.windows import padded_size
from ..layers.patches import pair


class Stage(NamedTuple):
    """dim: width; depth: number of blocks; head_dim: None for dim / heads; window: (rows, columns)."""

    dim: int
    depth: int
    heads: int
    head_dim: int | None
    window: tuple[int, int]
    mlp_ratio: float


def stage_sizes(
    embed_dim: int,
    depths: tuple[int, ...],
    num_heads: int | tuple[int, ...],
    head_dim: int | tuple[int, ...] | None,
    window_size: int | tuple,
    mlp_ratio: float | tuple[float, ...],
) -> list[Stage]:
    """SwinTransformer's options, stage by stage. Errors: ConfigError for a list that has not one value for each."""
    if not isinstance(depths, (tuple, list)) or not depths:
        raise ConfigError(f"depths must be a list of one number of blocks for each stage, got {depths!r}")
    if isinstance(window_size, (tuple, list)) and all(isinstance(side, int) for side in window_size[:2]):
        window_size = [window_size] * len(depths) if len(window_size) == 2 else window_size  # two ints: one window
    named = dict(num_heads=num_heads, head_dim=head_dim, window_size=window_size, mlp_ratio=mlp_ratio)
    heads, head_dims, windows, ratios = (_per_stage(name, value, depths) for name, value in named.items())
    windows = [pair(window, "window_size") for window in windows]
    widths = [embed_dim * 2**i for i in range(len(depths))]
    return [Stage(*row) for row in zip(widths, depths, heads, head_dims, windows, ratios)]


def _per_stage(name, value, depths):
    """One value for all stages, or a list of one for each."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * len(depths)
    if len(values) != len(depths):
        raise ConfigError(f"{name} must have one value for each of the {len(depths)} stages, got {value!r}")
    return values


def coarser(grid: tuple[int, int], stage: int) -> tuple[int, int]:
    """(rows, columns) of the map in a stage, each merging of patches rounding up."""
    return tuple(-(-side // 2**stage) for side in grid)


def _fitted(window, size, kept):
    """A window that is larger than the map shrinks to it, unless windows are kept."""
    return window if kept else tuple(map(min, window, size))


def count_parameters(
    *,
    img_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
    in_chans: int,
    num_classes: int,
    embed_dim: int,
    depths: tuple[int, ...],
    num_heads: int | tuple[int, ...],
    window_size: int | tuple,
    mlp_ratio: float | tuple[float, ...],
    qkv_bias: bool,
    head_dim: int | tuple[int, ...] | None,
    always_partition: bool,
    pad_first: bool,
    **others,
) -> int:
    """How many parameters a model with these options has, by arithmetic: nothing is made."""
    image, patch = pair(img_size, "img_size"), pair(patch_size, "patch_size")
    grid = tuple(side // step for side, step in zip(image, patch))
    total = embed_dim * (in_chans * math.prod(patch) + 3)
    stages = stage_sizes(embed_dim, depths, num_heads, head_dim, window_size, mlp_ratio)
    for i, (D, depth, heads, head_dim, window, mlp_ratio) in enumerate(stages):
        inner, hidden = heads * (head_dim or D // heads), int(D * mlp_ratio)
        window = _fitted(window, coarser(grid, i), always_partition or pad_first)
        table = math.prod(2 * side - 1 for side in window)
        attention = 3 * inner * (D + bool(qkv_bias)) + D * (inner + 1) + heads * table
        total += depth * (4 * D + attention + hidden * (D + 1) + D * (hidden + 1))
        total += 2 * D * D + 4 * D if i else 0  # the merging
    return total + 2 * D + (D + 1) * num_classes


def count_multiply_adds(
    *,
    img_size: int | tuple[int, int],
    patch_size: int | tuple[int, int],
    in_chans: int,
    num_classes: int,
    embed_dim: int,
    depths: tuple[int, ...],
    num_heads: int | tuple[int, ...],
    window_size: int | tuple,
    mlp_ratio: float | tuple[float, ...],
    head_dim: int | tuple[int, ...] | None,
    always_partition: bool,
    pad_first: bool,
    **others,
) -> int:
    """How many multiply-adds one image takes, padding of windows included, as `summary` counts them."""
    image, patch = pair(img_size, "img_size"), pair(patch_size, "patch_size")
    grid = tuple(side // step for side, step in zip(image, patch))
    total = math.prod(grid) * in_chans * math.prod(patch) * embed_dim
    stages = stage_sizes(embed_dim, depths, num_heads, head_dim, window_size, mlp_ratio)
    for i, (D, depth, heads, head_dim, window, mlp_ratio) in enumerate(stages):
        inner, size = heads * (head_dim or D // heads), coarser(grid, i)
        window = _fitted(window, size, always_partition or pad_first)
        tokens, padded = math.prod(size), math.prod(padded_size(size, window))
        attention = padded * (4 * inner * D + 2 * inner * math.prod(window))
        total += depth * (attention + tokens * 2 * D * int(D * mlp_ratio))
        total += tokens * 2 * D * D if i else 0  # the merging
    return total + D * num_classes
