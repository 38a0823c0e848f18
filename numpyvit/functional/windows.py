"""Maps of tokens cut into windows, as in Swin: cyclic shift, padding, partition, mask and position bias, and merging.

(Liu et al. 2021, arXiv:2103.14030, §3.2.) Shapes: B batch, H×W rows and columns of tokens, C channels, h×w window,
n windows a map, N = h·w tokens a window. `window` and `shift` are (rows, columns), and so is `size`, that of a map.

Moving tokens has a simple backward: the adjoint of a permutation is its inverse, and that of padding is cropping. So
to_windows and from_windows are each the other's backward.
"""

import numpy as np

from ..backend import Array, array_module, transposed
from .linear import matmul

Size = tuple[int, int]  # rows, columns


def to_windows(x: Array, window: Size, shift: Size = (0, 0), pad_first: bool = False) -> Array:
    """Shift, pad, partition: (B, H, W, C) -> (B·n, N, C), window by window, row by row.   Backward: from_windows.

    pad_first: pad before the shift, as torchvision and Hugging Face do; timm, and this without it, shifts first.
    """
    x = cyclic_shift(pad(x, window), shift) if pad_first else pad(cyclic_shift(x, shift), window)
    return window_partition(x, window)


def from_windows(windows: Array, window: Size, shift: Size, size: Size, pad_first: bool = False) -> Array:
    """The inverse of to_windows: (B·n, N, C) -> (B, *size, C); the padding's tokens go.   Backward: to_windows."""
    x = window_reverse(windows, window, padded_size(size, window))
    back = (-shift[0], -shift[1])
    return crop(cyclic_shift(x, back), size) if pad_first else cyclic_shift(crop(x, size), back)


def cyclic_shift(x: Array, shift: Size) -> Array:
    """y[i, j] = x[i + shift₀, j + shift₁], beyond the border from the other side.   dx = cyclic_shift(dy, −shift)."""
    return array_module(x).roll(x, (-shift[0], -shift[1]), axis=(1, 2)) if any(shift) else x


def padded_size(size: Size, window: Size) -> Size:
    """The least multiple of the window that holds `size`."""
    return tuple(side + -side % w for side, w in zip(size, window))


def pad(x: Array, window: Size) -> Array:
    """Zeros below and on the right, up to whole windows.   dx = crop(dy, size)."""
    B, H, W, C = x.shape
    size = padded_size((H, W), window)
    if size == (H, W):
        return x
    y = array_module(x).zeros((B, *size, C), dtype=x.dtype)
    y[:, :H, :W] = x
    return y


def crop(x: Array, size: Size) -> Array:
    """The upper left part of a map.   dx = dy with zeros around, as in pad."""
    return x[:, : size[0], : size[1]]


def window_partition(x: Array, window: Size) -> Array:
    """Cut a map of whole windows: (B, H, W, C) -> (B·n, N, C).   Backward: window_reverse."""
    (B, H, W, C), (h, w) = x.shape, window
    x = x.reshape(B, H // h, h, W // w, w, C).transpose(0, 1, 3, 2, 4, 5)  # B, rows and columns of windows, h, w, C
    return x.reshape(-1, h * w, C)


def window_reverse(windows: Array, window: Size, size: Size) -> Array:
    """The inverse of window_partition: (B·n, N, C) -> (B, H, W, C)."""
    (H, W), (h, w), C = size, window, windows.shape[-1]
    x = windows.reshape(-1, H // h, W // w, h, w, C).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, H, W, C)


def attention_from(p: Array, queries: Array, window: Size, shift: Size = (0, 0), pad_first: bool = False) -> Array:
    """a[j] = Σ queries[i] p[i, j], stitched together: what some tokens of a map give to each, (B, heads, H, W).

    p: attention probabilities of the windows (B·n, heads, N, N). queries: (H, W), how much each token counts: 1 at one
    token and 0 elsewhere gives its attention, 0 outside its window; 1 everywhere what each token receives in all.
    """
    chosen = to_windows(queries[None, :, :, None], window, shift, pad_first)  # n, N, 1; 0 for the padding's tokens
    given = matmul(transposed(chosen)[:, None], p.reshape(-1, len(chosen), *p.shape[1:]))  # B, n, heads, 1, N
    windows = given.reshape(len(p), *p.shape[1:3]).swapaxes(1, 2)
    return from_windows(windows, window, shift, queries.shape, pad_first).transpose(0, 3, 1, 2)


def shift_mask(size: Size, window: Size, shift: Size) -> np.ndarray | None:
    """What keeps apart tokens that only the cyclic shift made neighbors: (n, 1, N, N) of 0 and −100; None unshifted.

    It is added to the scores. Along each axis the last window holds what came from the other side.
    """
    if not any(shift):
        return None
    rows, columns = (np.arange(side) >= side - s for side, s in zip(padded_size(size, window), shift))
    region = window_partition((2 * rows[:, None] + columns)[None, :, :, None], window)  # n, N, 1
    return np.where(region == region.swapaxes(1, 2), 0.0, -100.0)[:, None]


def relative_positions(length: int) -> np.ndarray:
    """One axis of a window: (2·length − 1, length²), 1 where i − j is the row's distance, −(length − 1) the first."""
    place = np.arange(length)
    distance = (place[:, None] - place).reshape(-1)
    return (distance == np.arange(1 - length, length)[:, None]).astype(np.float64)


def relative_bias(table: Array, rows: Array, columns: Array) -> Array:
    """b[k, (i, x), (j, y)] = table[(i − j, x − y), k], one number a head and distance.   -> (heads, N, N)

    table: ((2h − 1)·(2w − 1), heads); rows and columns: relative_positions of both axes. Looking up is a product with
    those zeros and ones, and so is its backward, which adds up the places of each distance.
    """
    heads = table.shape[1]
    h, w = _sides(rows, columns)
    grid = table.T.reshape(heads, 2 * h - 1, 2 * w - 1)
    bias = matmul(matmul(rows.T, grid), columns).reshape(heads, h, h, w, w)  # heads, i, j, x, y
    return bias.transpose(0, 1, 3, 2, 4).reshape(heads, h * w, h * w)


def relative_bias_backward(dbias: Array, rows: Array, columns: Array) -> Array:
    """dtable[(d, e), k] = Σ dbias[k, (i, x), (j, y)] over i − j = d and x − y = e."""
    heads = dbias.shape[0]
    h, w = _sides(rows, columns)
    dbias = dbias.reshape(heads, h, w, h, w).transpose(0, 1, 3, 2, 4).reshape(heads, h * h, w * w)
    return matmul(matmul(rows, dbias), columns.T).reshape(heads, -1).T


def _sides(rows, columns):
    return (len(rows) + 1) // 2, (len(columns) + 1) // 2


def merge_patches(x: Array) -> Array:
    """Each 2×2 tokens as one, in the order (0,0), (1,0), (0,1), (1,1): (B, H, W, C) -> (B, ⌈H/2⌉, ⌈W/2⌉, 4C)."""
    x = pad(x, (2, 2))
    B, H, W, C = x.shape
    return x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 4, 2, 5).reshape(B, H // 2, W // 2, 4 * C)


def merge_patches_backward(dy: Array, size: Size) -> Array:
    """The inverse of merge_patches, so its adjoint: (B, ⌈H/2⌉, ⌈W/2⌉, 4C) -> (B, *size, C)."""
    B, H, W, C = dy.shape
    dx = dy.reshape(B, H, W, 2, 2, C // 4).transpose(0, 1, 4, 2, 3, 5).reshape(B, 2 * H, 2 * W, C // 4)
    return crop(dx, size)
