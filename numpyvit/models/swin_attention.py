"""What a Swin looked at: methods of SwinTransformer."""

import numpy as np

from ..backend import Array
from ..core import Tape
from .checks import check_patch
from .model import Model
from .swin_sizes import coarser


def attention_on_grid(
    self: Model, tape: Tape, image_size: tuple[int, int], patch: tuple[int, int] | None = None
) -> list[Array]:
    """What a pass on a tape with record_all looked at, block by block: [(B, heads, rows, columns), …].

    The maps are those of SwinBlock.attention_on_map; patch: (row, column) on the grid of patches, whose token is
    the one that looks, in each stage the one that it was merged into.
    """
    kept, size, maps = dict(tape.residuals()), self.grid_for(image_size), []
    token = None if patch is None else check_patch(patch, size)
    for stage in self.layers:
        maps += [block.attention_on_map(kept[block.attn], size, token) for block in stage.blocks]
        size, token = coarser(size, 1), token and (token[0] // 2, token[1] // 2)
    return maps


def attention_in_windows(
    self: Model, tape: Tape, image_size: tuple[int, int]
) -> list[tuple[tuple[int, int], np.ndarray, Array]]:
    """What a pass of one image on a tape with record_all looked at, block by block, window by window.

    [(grid, tokens, probabilities), …]: (rows, columns) of the block's map, and of SwinBlock.attention_in_windows.
    """
    kept, size, found = dict(tape.residuals()), self.grid_for(image_size), []
    for stage in self.layers:
        found += [(size, *block.attention_in_windows(kept[block.attn], size)) for block in stage.blocks]
        size = coarser(size, 1)
    return found
