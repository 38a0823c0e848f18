"""Conv2d and MaxPool2d.

Shapes: B batch, C and O channels in and out, H×W rows and columns, kh×kw the kernel, H'×W' rows and columns out.
"""

import math

from .. import functional as F
from ..backend import Array
from ..core import FORGET, Layer, Parameter, Seed, as_dtype, make_rng
from ..errors import ConfigError, ShapeError
from .checks import check_counts, check_map
from .init import uniform
from .patches import pair


class Conv2d(Layer):
    """y[o, h, w] = b[o] + Σ W[o, c, i, j] x[c, s h + d i − p, s w + d j − p], x being 0 outside; PyTorch's Conv2d.

    Backward: dx is the transposed convolution of dy with W, dW[:, :, i, j] = Σ dy xᵢⱼᵀ with xᵢⱼ the pixels under place
    (i, j) of the kernel, and db = Σ dy over images and pixels. docs/convolution.md derives it.

    x: (B, C, H, W), weight: (O, C, kh, kw), bias: (O,), y: (B, O, H', W') with H' = (H + 2p − d (kh − 1) − 1)/s + 1
    rounded down. kernel_size, stride, padding and dilation are an int or (rows, columns).

    affine, for forward and backward: a pair (a, b) of (O,), which makes the result a y + b channel by channel. It is
    part of the product, whose weight is a W, so a frozen batch norm costs no pass over the map (see conv_norm).
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        check_counts(in_chans=in_chans, out_chans=out_chans)
        dtype, rng, kernel = as_dtype(dtype), make_rng(seed), pair(kernel_size, "kernel_size")
        self.stride, self.padding = pair(stride, "stride"), pair(padding, "padding", least=0)
        self.dilation = pair(dilation, "dilation")
        fan_in = in_chans * kernel[0] * kernel[1]
        self.weight = Parameter(uniform(rng, (out_chans, in_chans, *kernel), fan_in, dtype))
        self.bias = Parameter(uniform(rng, out_chans, fan_in, dtype)) if bias else None

    def forward(self, x, tape=FORGET, affine=None):
        weight, bias = self._arrays_with(affine)
        places = (self.stride, self.padding, self.dilation)
        check_map(self, x, weight.shape[1])
        _check_size(self, x, F.out_size(x.shape, weight.shape[2:], *places))
        tape.push(self, x)
        return F.conv2d(x, weight, bias, *places)

    def backward(self, dy, tape, affine=None):
        (x,) = tape.pop(self)
        weight, _ = self._arrays_with(affine)
        places = (self.stride, self.padding, self.dilation)
        if tape.wants(self.weight):
            dweight = F.conv2d_weight_gradient(dy, x, weight.shape[2:], *places)
            tape.add(self.weight, dweight if affine is None else dweight * affine[0][:, None, None, None])
        if self.bias and tape.wants(self.bias):
            dbias = dy.sum((0, 2, 3))
            tape.add(self.bias, dbias if affine is None else dbias * affine[0])
        return F.conv2d_input_gradient(dy, weight, x.shape, *places) if tape.wants_input(self) else None

    def own_multiply_adds(self, y: Array, *inputs: Array) -> int:
        return y.size * math.prod(self.weight.data.shape[1:])

    def _arrays_with(self, affine):
        """Weight and bias, or a W and a bias + b."""
        weight, bias = self.weight.data, self.bias.data if self.bias else None
        if affine is None:
            return weight, bias
        a, b = affine
        return weight * a[:, None, None, None], b if bias is None else a * bias + b


class MaxPool2d(Layer):
    """y = the largest pixel under the kernel, channel by channel;   dx = dy at that pixel, the first of equal ones.

    kernel_size, stride, padding: int or (rows, columns); the stride is the kernel's size where none is given. The
    padding, at most half the kernel, is never the largest. x: (B, C, H, W), y: (B, C, H', W').
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        super().__init__(dtype=dtype, seed=seed)
        self.kernel_size, self.padding = pair(kernel_size, "kernel_size"), pair(padding, "padding", least=0)
        self.stride = pair(kernel_size if stride is None else stride, "stride")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size)):
            raise ConfigError(f"padding={padding} must be at most half of kernel_size={kernel_size}")

    def forward(self, x, tape=FORGET):
        places = (self.kernel_size, self.stride, self.padding)
        check_map(self, x)
        _check_size(self, x, F.out_size(x.shape, *places))
        y = F.max_pool2d(x, *places)
        tape.push(self, x, y)
        return y

    def backward(self, dy, tape):
        return F.max_pool2d_backward(dy, *tape.pop(self), self.kernel_size, self.stride, self.padding)


def _check_size(layer, x, size):
    if min(size) < 1:
        raise ShapeError(
            f"{layer.path}: got maps of {x.shape[2]}x{x.shape[3]} pixels, which its kernel does not fit into; "
            "give larger images, or more padding"
        )
