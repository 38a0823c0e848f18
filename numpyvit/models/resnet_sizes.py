"""The convolutions of a ResNet, and how many parameters and multiply-adds follow from them."""

import math

from ..layers import BasicBlock, Bottleneck
from ..layers.patches import pair


def convolutions(
    block: type, depths: tuple[int, ...], in_chans: int, width: int, dilated: tuple[bool, ...] = (False,) * 3
) -> list[tuple[int, int]]:
    """For each convolution its weights, and how often the image's sides are halved behind it.

    dilated: see replace_stride_with_dilation of ResNet.
    """
    found, channels, halvings = [(49 * in_chans * width, 1)], width, 2
    for i, depth in enumerate(depths):
        inner, before = width * 2**i, halvings
        halvings += i > 0 and not dilated[i - 1]
        if i or block.expansion > 1:
            found.append((channels * inner * block.expansion, halvings))  # the shortcut of the first block
        for _ in range(depth):
            if block is BasicBlock:
                found += [(9 * channels * inner, halvings), (9 * inner**2, halvings)]
            else:
                found += [(channels * inner, before), (9 * inner**2, halvings), (block.expansion * inner**2, halvings)]
            channels, before = inner * block.expansion, halvings
    return found


def map_size(image_size: tuple[int, int], halvings: int) -> tuple[int, int]:
    """(rows, columns) of a map, each halving rounding up."""
    return tuple(-(-side // 2**halvings) for side in image_size)


def products(convolutions: list[tuple[int, int]], image_size: tuple[int, int]) -> int:
    """The multiply-adds of convolutions: each weight is used once at each place of the map behind it."""
    return sum(weights * math.prod(map_size(image_size, halvings)) for weights, halvings in convolutions)


def count_parameters(
    block: type = Bottleneck,
    depths: tuple[int, int, int, int] = (3, 4, 6, 3),
    num_classes: int = 1000,
    in_chans: int = 3,
    width: int = 64,
    **others,
) -> int:
    """How many parameters a model with frozen norms has, by arithmetic: nothing is made."""
    features = 8 * width * block.expansion
    return sum(weights for weights, _ in convolutions(block, depths, in_chans, width)) + (features + 1) * num_classes


def count_multiply_adds(
    *,
    block: type,
    depths: tuple[int, int, int, int],
    num_classes: int,
    in_chans: int,
    width: int,
    img_size: int | tuple[int, int],
    replace_stride_with_dilation: tuple[bool, bool, bool],
    **others,
) -> int:
    """How many multiply-adds one image takes, as `summary` counts them."""
    found = convolutions(block, depths, in_chans, width, replace_stride_with_dilation)
    return products(found, pair(img_size, "img_size")) + 8 * width * block.expansion * num_classes
