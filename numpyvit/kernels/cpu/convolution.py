"""Convolution as few large products: pixels gathered in columns, a piece of the batch at a time.

A row of the kernel needs the same pixels as the row above it, further down the map. So columns are gathered for the kw
places of one row only, and the kh products read them at kh offsets: kw copies instead of the kh·kw of im2col. A piece
has about _COLUMNS columns; those stay in a processor's cache, and bound the memory.

Shapes: B images of a piece, C and O channels in and out, H'×W' rows and columns of y.
"""

import numpy as np

from ...backend import Array
from .. import kernel

Size = tuple[int, int]  # rows, columns

_COLUMNS = 1024


@kernel("conv2d", np, "fd", tolerance=5e-6, gain=1.3)
def conv2d(x: Array, weight: Array, bias: Array | None, stride: Size, padding: Size, dilation: Size) -> Array:
    O, C, kh, kw = weight.shape
    if (kh, kw) == (1, 1) and padding == (0, 0):
        return _of_one_pixel(x[:, :, :: stride[0], :: stride[1]], weight[:, :, 0, 0], bias)
    sides = zip(x.shape[2:], (kh, kw), stride, padding, dilation)
    size = tuple((side + 2 * p - d * (k - 1) - 1) // s + 1 for side, k, s, p, d in sides)
    y = np.empty((len(x), O, *size), x.dtype)
    taps = np.ascontiguousarray(weight.transpose(2, 0, 3, 1)).reshape(kh, O, kw * C)  # a matrix for each row
    for images, rows, columns in _pieces(x, size, (kh, kw), stride, padding, dilation):
        total = np.matmul(taps[0], columns[0])
        for tap, shifted in zip(taps[1:], columns[1:]):
            total += np.matmul(tap, shifted)
        if bias is not None:
            total += bias[:, None]
        piece = y[images, :, rows]
        piece[...] = total.reshape(O, piece.shape[2], len(piece), size[1]).transpose(2, 0, 1, 3)
    return y


@kernel("conv2d_weight_gradient", np, "fd", tolerance=5e-6, gain=1.1)
def conv2d_weight_gradient(dy: Array, x: Array, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Array:
    (kh, kw), O, C = kernel, dy.shape[1], x.shape[1]
    dtaps = np.zeros((kh, O, kw * C), dy.dtype)
    for images, rows, columns in _pieces(x, dy.shape[2:], kernel, stride, padding, dilation):
        piece = dy[images, :, rows].transpose(1, 2, 0, 3).reshape(O, -1)  # O, H'·B·W'
        for dtap, shifted in zip(dtaps, columns):
            dtap += np.matmul(piece, shifted.T)
    return dtaps.reshape(kh, O, kw, C).transpose(1, 3, 0, 2)


def _of_one_pixel(x, weight, bias):
    y = np.matmul(weight, x.reshape(*x.shape[:2], -1))
    if bias is not None:
        y += bias[:, None]
    return y.reshape(len(x), len(weight), *x.shape[2:])


def _pieces(x, size, kernel, stride, padding, dilation):
    """(images, rows of y, columns for each row of the kernel): several small maps, or a band of rows of a large one."""
    H, W = size
    images = max(1, _COLUMNS // (H * W))
    bands = 1 if kernel == (1, 1) else -(-H * W // _COLUMNS)  # single pixels of a map need no gathering
    height = -(-H // bands)
    for first in range(0, len(x), images):
        some = slice(first, first + images)
        pixels = _with_border(x[some], padding) if any(padding) else x[some]
        for top in range(0, H, height):
            rows = min(height, H - top)
            band = pixels[:, :, top * stride[0] :].transpose(1, 2, 0, 3)  # C, H, B, W
            yield some, slice(top, top + rows), _columns(band, (rows, W), kernel, stride, dilation)


def _with_border(x, padding):
    """x with zeros around its maps, as np.pad makes it in many times the time."""
    (B, C, H, W), (ph, pw) = x.shape, padding
    y = np.zeros((B, C, H + 2 * ph, W + 2 * pw), x.dtype)
    y[:, :, ph : ph + H, pw : pw + W] = x
    return y


def _columns(pixels, size, kernel, stride, dilation):
    """(C, H, B, W) -> for each row of the kernel (kw·C, H'·B·W').

    Rows of the map that lie a stride apart are gathered one behind the other, so that an offset by rows is a slice.
    """
    (H, W), kw, (sh, sw) = size, kernel[1], stride
    tops, lefts = ([k * d for k in range(n)] for n, d in zip(kernel, dilation))
    step, gathered = pixels.shape[2] * W, {}
    for phase in {top % sh for top in tops}:
        deepest = max(top // sh for top in tops if top % sh == phase)
        rows = pixels[:, phase::sh][:, : deepest + H]
        under = [rows[..., left : left + sw * (W - 1) + 1 : sw] for left in lefts]
        gathered[phase] = (np.stack(under) if kw > 1 else under[0]).reshape(kw * len(pixels), -1)
    return [gathered[top % sh][:, top // sh * step : (top // sh + H) * step] for top in tops]
