"""GELU and its approximation."""

import math

from ..backend import Array, array_module, erf
from ..kernels import accelerated


@accelerated
def gelu(x: Array, bias: Array | None = None) -> Array:
    """y = x Φ(x),   Φ(x) = (1 + erf(x/√2))/2, the normal distribution function   (arXiv:1606.08415).

    bias: (D,), added to x (..., D) before.
    """
    if bias is not None:
        x = x + bias
    return x * _phi(x)


@accelerated
def gelu_with_slope(x: Array) -> tuple[Array, Array]:
    """-> y = x Φ(x) and its slope dy/dx = Φ(x) + x φ(x),   φ(x) = exp(−x²/2)/√(2π)."""
    phi = _phi(x)
    return x * phi, phi + x * array_module(x).exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def _phi(x):
    return (erf(x * (1 / math.sqrt(2))) + 1) * 0.5


def gelu_backward(dy: Array, slope: Array) -> Array:
    """dx = dy · (Φ(x) + x φ(x)); the slope comes from the forward pass."""
    return dy * slope


def gelu_tanh(x: Array) -> Array:
    """y = x/2 · (1 + tanh u), u = √(2/π) (x + 0.044715 x³): the approximation of Flax and of GPT-2."""
    return 0.5 * x * (1 + array_module(x).tanh(_tanh_argument(x)))


def gelu_tanh_with_slope(x: Array) -> tuple[Array, Array]:
    """-> y and dy/dx = (1 + tanh u)/2 + x/2 · (1 − tanh² u) · √(2/π) (1 + 3 · 0.044715 x²)."""
    t = array_module(x).tanh(_tanh_argument(x))
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * (x * x))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du


def _tanh_argument(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))  # x**3 in float32 costs a hundred times x*x*x


def sigmoid(x: Array) -> Array:
    """y = 1/(1 + exp(−x)), as (1 + tanh(x/2))/2, which cannot overflow."""
    return 0.5 * (array_module(x).tanh(0.5 * x) + 1)


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y (1 − y)."""
    return dy * (y * (1 - y))
