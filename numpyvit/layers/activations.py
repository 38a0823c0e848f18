"""Elementwise activations, Softmax and Identity."""

import numpy as np

from .. import functional as F
from ..backend import array_module
from ..core import FORGET, Layer, Parameter, Seed, as_dtype
from .checks import check_float, check_width


class Identity(Layer):
    """y = x,   dx = dy."""

    def forward(self, x, tape=FORGET):
        return x

    def backward(self, dy, tape):
        return dy


class GELU(Layer):
    """y = x Φ(x),   dx = dy (Φ(x) + x φ(x)),   φ(x) = exp(−x²/2)/√(2π), Φ its integral.

    (Hendrycks & Gimpel 2016, arXiv:1606.08415.) The forward pass keeps the slope, which shares its exponential.
    """

    forget, keep = staticmethod(F.gelu), staticmethod(F.gelu_with_slope)

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        if not tape.keeps:
            return self.forget(x)
        y, slope = self.keep(x)
        tape.push(self, slope)
        return y

    def backward(self, dy, tape):
        (slope,) = tape.pop(self)
        return F.gelu_backward(dy, slope)


class BiasedGELU(Layer):
    """y = gelu(x + b).   x: (..., D), b: (D,).   dx = dy · slope at x + b,   db = Σ dx."""

    def __init__(self, dim: int, *, dtype: str = "float32", seed: Seed = 0):
        self.bias = Parameter(np.zeros(dim, as_dtype(dtype)))

    def forward(self, x, tape=FORGET):
        check_width(self, x, len(self.bias.data))
        if not tape.keeps:
            return F.gelu(x, self.bias.data)
        y, slope = F.gelu_with_slope(x + self.bias.data)
        tape.push(self, slope)
        return y

    def backward(self, dy, tape):
        (slope,) = tape.pop(self)
        dx = F.gelu_backward(dy, slope)
        tape.add(self.bias, F.sum_over_rows(dx))
        return dx


class GELUTanh(GELU):
    """y = x/2 (1 + tanh u),   u = √(2/π) (x + 0.044715 x³): the approximation of Flax and GPT-2, up to 4.7e-4 off."""

    forget, keep = staticmethod(F.gelu_tanh), staticmethod(F.gelu_tanh_with_slope)


class Tanh(Layer):
    """y = tanh x,   dx = dy (1 − y²)."""

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        y = array_module(x).tanh(x)
        tape.push(self, y)
        return y

    def backward(self, dy, tape):
        (y,) = tape.pop(self)
        return dy * (1 - y * y)


class ReLU(Layer):
    """y = max(x, 0),   dx = dy where x > 0, else 0."""

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        y = array_module(x).maximum(x, 0)
        tape.push(self, y)  # which the next layer mostly keeps as well
        return y

    def backward(self, dy, tape):
        (y,) = tape.pop(self)
        return dy * (y > 0)


class Softmax(Layer):
    """yᵢ = exp xᵢ / Σ exp xⱼ along `axis`,   dx = y (dy − Σ dy y)."""

    def __init__(self, axis: int = -1, *, dtype: str = "float32", seed: Seed = 0):
        super().__init__(dtype=dtype, seed=seed)
        self.axis = axis

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        y = F.softmax(x, self.axis)
        tape.push(self, y)
        return y

    def backward(self, dy, tape):
        (y,) = tape.pop(self)
        return F.softmax_backward(dy, y, self.axis)
