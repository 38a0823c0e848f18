"""Batch normalization with the statistics that it was trained to."""

import numpy as np

from .. import functional as F
from ..backend import Array, array_module
from ..core import FORGET, Buffer, Forget, Layer, Seed, Tape, as_dtype
from .checks import check_map
from .convolution import Conv2d


class FrozenBatchNorm2d(Layer):
    """y = γ (x − μ)/√(σ² + ε) + β, channel by channel, never trained   (Ioffe & Szegedy 2015, arXiv:1502.03167).

    μ and σ² are statistics over training images, so y = a x + b with a = γ/√(σ² + ε), and dx = a dy. Detectors train
    so, their batches being too small for statistics of their own; in inference it is every batch norm.

    x: (B, C, H, W). The buffers weight γ, bias β, running_mean μ and running_var σ² are (C,), as in torchvision.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, dtype: str = "float32", seed: Seed = 0):
        dtype = as_dtype(dtype)
        self.weight, self.bias = (Buffer(values(num_features, dtype), saved=True) for values in (np.ones, np.zeros))
        self.running_mean = Buffer(np.zeros(num_features, dtype), saved=True)
        self.running_var = Buffer(np.ones(num_features, dtype), saved=True)
        self.eps = eps

    def forward(self, x, tape=FORGET):
        check_map(self, x, len(self.weight.data))
        a, b = self.affine()
        return x * F.on_map(a) + F.on_map(b)

    def backward(self, dy, tape):
        return dy * F.on_map(self.affine()[0])

    def affine(self) -> tuple[Array, Array]:
        """(a, b) of y = a x + b, each (C,)."""
        a = self.weight.data / array_module(self.weight.data).sqrt(self.running_var.data + self.eps)
        return a, self.bias.data - a * self.running_mean.data


def conv_norm(conv: Conv2d, norm: Layer, x: Array, tape: Tape | Forget = FORGET) -> Array:
    """norm(conv x), a frozen batch norm being part of the product: y = (a W) x + b   costs no pass over the map."""
    if isinstance(norm, FrozenBatchNorm2d):
        return conv.forward(x, tape, norm.affine())
    return norm.forward(conv.forward(x, tape), tape)


def conv_norm_backward(conv: Conv2d, norm: Layer, dy: Array, tape: Tape) -> Array | None:
    """dx and the gradients of what conv_norm did:   dW = a dW', dW' that of a convolution with a W."""
    if isinstance(norm, FrozenBatchNorm2d):
        return conv.backward(dy, tape, norm.affine())
    return conv.backward(norm.backward(dy, tape), tape)
