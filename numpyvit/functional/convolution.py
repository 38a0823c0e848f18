"""Convolution and pooling of maps.

Shapes: B batch, C and O channels in and out, H×W rows and columns, kh×kw the kernel; H' rows out,
H' = (H + 2p − d (kh − 1) − 1)/s + 1 rounded down, and W' columns likewise. s, p and d are stride, padding and
dilation, each (rows, columns).
"""

import functools
from collections.abc import Sequence

from ..backend import Array, array_module
from ..kernels import accelerated
from .linear import matmul

Size = tuple[int, int]  # rows, columns


@accelerated
def conv2d(x: Array, weight: Array, bias: Array | None, stride: Size, padding: Size, dilation: Size) -> Array:
    """y[o, h, w] = b[o] + Σ W[o, c, i, j] x[c, s h + d i − p, s w + d j − p] over c, i, j, x being 0 outside.

    One product for each place (i, j) in the kernel:   y = b + Σ W[:, :, i, j] xᵢⱼ, xᵢⱼ the pixels that lie under it.
    x: (B, C, H, W), weight: (O, C, kh, kw), bias: (O,) or None, y: (B, O, H', W').
    """
    xp, x, size = array_module(x), padded(x, padding), out_size(x.shape, weight.shape[2:], stride, padding, dilation)
    y = xp.zeros((len(x), len(weight), size[0] * size[1]), dtype=x.dtype)
    for i, j in places(weight.shape[2:]):
        under = under_place(x, i, j, size, stride, dilation)
        y += matmul(xp.ascontiguousarray(weight[:, :, i, j]), under.reshape(*x.shape[:2], -1))
    if bias is not None:
        y += bias[:, None]
    return y.reshape(*y.shape[:2], *size)


def conv2d_input_gradient(
    dy: Array, weight: Array, input_shape: Sequence[int], stride: Size, padding: Size, dilation: Size
) -> Array:
    """dxᵢⱼ += W[:, :, i, j]ᵀ dy for each place (i, j): the transposed convolution.   -> dx (B, C, H, W).

    Without a stride it is a convolution of dy, with the kernel turned by 180° and its channels exchanged.
    """
    xp = array_module(dy)
    around = tuple(d * (k - 1) - p for k, p, d in zip(weight.shape[2:], padding, dilation))
    if stride == (1, 1) and min(around) >= 0:
        return conv2d(dy, weight[:, :, ::-1, ::-1].swapaxes(0, 1), None, stride, around, dilation)
    dx = padded(xp.zeros(input_shape, dtype=dy.dtype), padding)
    dy2 = dy.reshape(*dy.shape[:2], -1)
    for i, j in places(weight.shape[2:]):
        under = under_place(dx, i, j, dy.shape[2:], stride, dilation)
        under += matmul(xp.ascontiguousarray(weight[:, :, i, j].T), dy2).reshape(under.shape)
    return cropped(dx, padding)


@accelerated
def conv2d_weight_gradient(dy: Array, x: Array, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Array:
    """dW[:, :, i, j] = Σ dy xᵢⱼᵀ over images and pixels.   -> dW (O, C, kh, kw)."""
    x, dy2 = padded(x, padding), dy.reshape(*dy.shape[:2], -1)
    dweight = array_module(dy).empty((dy.shape[1], x.shape[1], *kernel), dtype=dy.dtype)
    for i, j in places(kernel):
        under = under_place(x, i, j, dy.shape[2:], stride, dilation)
        dweight[:, :, i, j] = matmul(dy2, under.reshape(*x.shape[:2], -1).swapaxes(-1, -2)).sum(0)
    return dweight


def max_pool2d(x: Array, kernel: Size, stride: Size, padding: Size) -> Array:
    """y = the largest of the kh·kw pixels under the kernel, −∞ outside: over its rows, then over its columns.

    x: (B, C, H, W), y: (B, C, H', W').
    """
    xp, size = array_module(x), out_size(x.shape, kernel, stride, padding)
    x = padded(x, padding, -float("inf"))
    rows = [under_place(x, i, 0, (size[0], x.shape[3]), (stride[0], 1)) for i in range(kernel[0])]
    x = functools.reduce(xp.maximum, rows)
    return functools.reduce(xp.maximum, [under_place(x, 0, j, size, (1, stride[1])) for j in range(kernel[1])])


def max_pool2d_backward(dy: Array, x: Array, y: Array, kernel: Size, stride: Size, padding: Size) -> Array:
    """dx = dy at the pixel that was the largest, the first of equal ones."""
    x, dx = padded(x, padding, -float("inf")), padded(array_module(x).zeros_like(x), padding)
    left = dy  # what has found no pixel yet
    for i, j in places(kernel):
        under = under_place(dx, i, j, dy.shape[2:], stride)
        found = left * (under_place(x, i, j, dy.shape[2:], stride) == y)
        under += found
        left = left - found
    return cropped(dx, padding)


def out_size(shape: Sequence[int], kernel: Size, stride: Size, padding: Size, dilation: Size = (1, 1)) -> Size:
    """(H', W') for maps of `shape` (…, H, W); less than 1 where the kernel is larger than the padded map."""
    sides = zip(shape[-2:], kernel, stride, padding, dilation)
    return tuple((side + 2 * p - d * (k - 1) - 1) // s + 1 for side, k, s, p, d in sides)


def padded(x: Array, padding: Size, value: float = 0) -> Array:
    """x with `padding` (rows, columns) of `value` on each side; x itself where there is none."""
    (B, C, H, W), (ph, pw) = x.shape, padding
    if not ph and not pw:
        return x
    out = array_module(x).full((B, C, H + 2 * ph, W + 2 * pw), value, dtype=x.dtype)
    out[:, :, ph : ph + H, pw : pw + W] = x
    return out


def cropped(x: Array, padding: Size) -> Array:
    """The inverse of padded."""
    (H, W), (ph, pw) = x.shape[2:], padding
    return x[:, :, ph : H - ph, pw : W - pw]


def places(kernel: Size) -> list[Size]:
    """(i, j) for each place in a kernel, row by row."""
    return [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]


def under_place(x: Array, i: int, j: int, size: Size, stride: Size, dilation: Size = (1, 1)) -> Array:
    """The pixels of the padded x that lie under place (i, j) of the kernel, for each y: (B, C, H', W'), a view."""
    (H, W), (sh, sw), (top, left) = size, stride, (i * dilation[0], j * dilation[1])
    return x[:, :, top : top + sh * (H - 1) + 1 : sh, left : left + sw * (W - 1) + 1 : sw]
