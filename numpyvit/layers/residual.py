"""The parts of a ResNet (He et al. 2015, arXiv:1512.03385): its stem and its residual blocks.

Shapes: B batch, C channels, H×W pixels. Every convolution is followed by a norm and has no bias. The stride of a
Bottleneck lies in its 3×3 convolution, as in torchvision.
"""

from collections.abc import Callable

import numpy as np

from ..core import FORGET, Layer, Seed, as_dtype, make_rng
from .activations import Identity, ReLU
from .batch_norm import FrozenBatchNorm2d, conv_norm, conv_norm_backward
from .checks import check_float
from .convolution import Conv2d, MaxPool2d
from .sequence import Sequence


class Stem(Layer):
    """y = maxpool(relu(bn1(conv1 x))), a quarter of the rows and columns:   (B, C, H, W) -> (B, 64, H/4, W/4)."""

    transparent = True

    def __init__(
        self,
        in_chans: int,
        width: int,
        norm_layer: Callable[..., Layer] = FrozenBatchNorm2d,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        self.conv1 = _conv(in_chans, width, 7, 2, dtype=dtype, seed=seed)
        self.bn1 = norm_layer(width, dtype=dtype)
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, 2, 1)

    def forward(self, x, tape=FORGET):
        check_float(self.conv1, x)
        x = conv_norm(self.conv1, self.bn1, x.astype(self.conv1.weight.data.dtype, copy=False), tape)
        return self.maxpool.forward(self.relu.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.relu.backward(self.maxpool.backward(dy, tape), tape)
        return conv_norm_backward(self.conv1, self.bn1, dy, tape)


class BasicBlock(Layer):
    """y = relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut x), both 3×3   (§3.3; the block of ResNet-18 and 34).

    The shortcut, downsample, is x itself, or where the shape changes a convolution of one pixel and its norm.
    (B, in_chans, H, W) -> (B, width, H/stride, W/stride).
    """

    expansion = 1

    def __init__(
        self,
        in_chans: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        norm_layer: Callable[..., Layer] = FrozenBatchNorm2d,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        made = dict(dtype=as_dtype(dtype), seed=make_rng(seed))
        self.conv1 = _conv(in_chans, width, 3, stride, dilation, **made)
        self.bn1 = norm_layer(width, dtype=dtype)
        self.relu1 = ReLU()
        self.conv2 = _conv(width, width, 3, 1, dilation, **made)
        self.bn2 = norm_layer(width, dtype=dtype)
        self.downsample = _shortcut(in_chans, width, stride, norm_layer, **made)
        self.relu2 = ReLU()

    def forward(self, x, tape=FORGET):
        y = self.relu1.forward(conv_norm(self.conv1, self.bn1, x, tape), tape)
        y = conv_norm(self.conv2, self.bn2, y, tape)
        return self.relu2.forward(y + self.downsample.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.relu2.backward(dy, tape)
        dshort = self.downsample.backward(dy, tape)
        dy = self.relu1.backward(conv_norm_backward(self.conv2, self.bn2, dy, tape), tape)
        dy = conv_norm_backward(self.conv1, self.bn1, dy, tape)
        return None if dy is None else dy + dshort


class Bottleneck(Layer):
    """y = relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1 x))))))) + shortcut x)   (figure 5; of ResNet-50 and 101).

    conv1 is 1×1 and makes `width` channels of the input's, conv2 is 3×3, conv3 is 1×1 and makes four times as many. The
    shortcut is as in BasicBlock. (B, in_chans, H, W) -> (B, 4·width, H/stride, W/stride).
    """

    expansion = 4

    def __init__(
        self,
        in_chans: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        norm_layer: Callable[..., Layer] = FrozenBatchNorm2d,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        made, out_chans = dict(dtype=as_dtype(dtype), seed=make_rng(seed)), self.expansion * width
        self.conv1 = _conv(in_chans, width, 1, **made)
        self.bn1 = norm_layer(width, dtype=dtype)
        self.relu1 = ReLU()
        self.conv2 = _conv(width, width, 3, stride, dilation, **made)
        self.bn2 = norm_layer(width, dtype=dtype)
        self.relu2 = ReLU()
        self.conv3 = _conv(width, out_chans, 1, **made)
        self.bn3 = norm_layer(out_chans, dtype=dtype)
        self.downsample = _shortcut(in_chans, out_chans, stride, norm_layer, **made)
        self.relu3 = ReLU()

    def forward(self, x, tape=FORGET):
        y = self.relu1.forward(conv_norm(self.conv1, self.bn1, x, tape), tape)
        y = self.relu2.forward(conv_norm(self.conv2, self.bn2, y, tape), tape)
        y = conv_norm(self.conv3, self.bn3, y, tape)
        return self.relu3.forward(y + self.downsample.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.relu3.backward(dy, tape)
        dshort = self.downsample.backward(dy, tape)
        dy = self.relu2.backward(conv_norm_backward(self.conv3, self.bn3, dy, tape), tape)
        dy = self.relu1.backward(conv_norm_backward(self.conv2, self.bn2, dy, tape), tape)
        dy = conv_norm_backward(self.conv1, self.bn1, dy, tape)
        return None if dy is None else dy + dshort


def _conv(in_chans, out_chans, kernel, stride=1, dilation=1, *, dtype, seed):
    """A convolution that keeps the size, up to its stride; normal initial values of deviation √(2/(out_chans·kernel²)).

    (He et al. 2015, arXiv:1502.01852, eq. 14.)
    """
    rng, padding = make_rng(seed), dilation * (kernel // 2)
    conv = Conv2d(in_chans, out_chans, kernel, stride, padding, dilation, bias=False, dtype=dtype, seed=rng)
    values = rng.standard_normal(conv.weight.data.shape, dtype=np.float32) * (2 / (out_chans * kernel**2)) ** 0.5
    conv.weight.data[...] = values
    return conv


def _shortcut(in_chans, out_chans, stride, norm_layer, *, dtype, seed):
    """What x passes beside a block's convolutions."""
    if stride == 1 and in_chans == out_chans:
        return Identity()
    conv = _conv(in_chans, out_chans, 1, stride, dtype=dtype, seed=seed)
    return ConvNorm([conv, norm_layer(out_chans, dtype=dtype)])


class ConvNorm(Sequence):
    """y = norm(conv x), see conv_norm."""

    def forward(self, x, tape=FORGET):
        return conv_norm(*self, x, tape)

    def backward(self, dy, tape):
        return conv_norm_backward(*self, dy, tape)
