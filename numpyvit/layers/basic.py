"""Linear, LayerNorm, the activations, Dropout, DropPath and the Mlp made of them.

Shapes: B batch, N tokens, D width; (..., D) is any number of leading dimensions.
"""

import numpy as np

from .. import functional as F
from ..backend import array_module
from ..core import FORGET, Layer, Parameter, as_dtype, make_rng
from ..errors import ConfigError, DtypeError, ShapeError
from .init import trunc_normal


def check_float(layer, x):
    """x must be a floating array."""
    if not hasattr(x, "dtype"):
        raise DtypeError(f"{layer.path}: got a {type(x).__name__}, expected an array; convert it with numpy.asarray")
    if x.dtype.kind != "f":
        raise DtypeError(
            f"{layer.path}: got an array of {x.dtype}, expected floating point; convert it with x.astype('float32')"
        )


def check_width(layer, x, width):
    """x must be a floating array (..., width)."""
    check_float(layer, x)
    if x.ndim == 0 or x.shape[-1] != width:
        raise ShapeError(f"{layer.path}: got an array of shape {x.shape}, expected (..., {width})")


def check_rate(name, rate):
    if not 0 <= rate <= 1:
        raise ConfigError(f"{name} is a probability and must lie in 0..1, got {rate}")
    return float(rate)


class Linear(Layer):
    """y = x Wᵀ + b.   x: (..., in), W: (out, in), b: (out,), y: (..., out).

    Backward, with sums over all rows of x:   dW = Σ dyᵀ x,   db = Σ dy,   dx = dy W.
    """

    def __init__(self, in_features, out_features, bias=True, *, dtype="float32", seed=0):
        dtype, rng = as_dtype(dtype), make_rng(seed)
        self.weight = Parameter(trunc_normal(rng, (out_features, in_features), 0.02, dtype))
        self.bias = Parameter(np.zeros(out_features, dtype)) if bias else None

    def forward(self, x, tape=FORGET):
        check_width(self, x, self.weight.data.shape[1])
        tape.push(self, x)
        return self.product(x)

    def backward(self, dy, tape):
        (x,) = tape.pop(self)
        return self.product_backward(dy, x, tape)

    def product(self, x, outputs=...):
        """y, or a slice of its outputs."""
        return F.linear(x, self.weight.data[outputs], self.bias.data[outputs] if self.bias else None)

    def product_backward(self, dy, x, tape, outputs=...):
        if tape.wants(self.weight):
            tape.add(self.weight, F.linear_weight_gradient(dy, x), outputs)
        if self.bias and tape.wants(self.bias):
            tape.add(self.bias, F.sum_rows(dy), outputs)
        return F.linear_input_gradient(dy, self.weight.data[outputs])


class LayerNorm(Layer):
    """y = γ x̂ + β,   x̂ = (x − μ) r,   r = 1/√(σ² + ε), over the last axis   (Ba et al. 2016, arXiv:1607.06450).

    μ and σ² depend on every x of the row, so with g = γ dy:   dx = r (g − mean g − x̂ mean(g x̂)),
    dγ = Σ dy x̂,   dβ = Σ dy.   docs/layer_norm.md derives it. x: (..., D); ε is 1e-6 as in timm's ViT.
    """

    def __init__(self, dim, eps=1e-6, *, dtype="float32", seed=0):
        dtype = as_dtype(dtype)
        self.weight, self.bias = Parameter(np.ones(dim, dtype)), Parameter(np.zeros(dim, dtype))
        self.eps = eps

    def forward(self, x, tape=FORGET):
        check_width(self, x, self.weight.data.shape[0])
        y, xhat, rstd = F.layer_norm(x, self.weight.data, self.bias.data, self.eps)
        tape.push(self, xhat, rstd)
        return y

    def backward(self, dy, tape):
        dx, dweight, dbias = F.layer_norm_backward(dy, self.weight.data, *tape.pop(self))
        tape.add(self.weight, dweight)
        tape.add(self.bias, dbias)
        return dx


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
        tape.push(self, x > 0)
        return array_module(x).maximum(x, 0)

    def backward(self, dy, tape):
        (positive,) = tape.pop(self)
        return dy * positive


class Softmax(Layer):
    """yᵢ = exp xᵢ / Σ exp xⱼ along `axis`,   dx = y (dy − Σ dy y)."""

    def __init__(self, axis=-1, *, dtype="float32", seed=0):
        self.axis = axis

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        y = F.softmax(x, self.axis)
        tape.push(self, y)
        return y

    def backward(self, dy, tape):
        (y,) = tape.pop(self)
        return F.softmax_backward(dy, y, self.axis)


class Dropout(Layer):
    """y = x m,   dx = dy m,   each mᵢ 0 with probability p, else 1/(1 − p)   (Srivastava et al. 2014, JMLR 15).

    m is drawn anew for each element and pass, from the tape; on a tape without a seed, y = x.
    """

    def __init__(self, p=0.5, *, dtype="float32", seed=0):
        self.p = check_rate("the dropout rate", p)

    def mask_shape(self, shape):
        return shape

    def mask(self, shape, dtype, tape):
        """A mask, or None where nothing is dropped."""
        if tape.random is None or self.p == 0:
            return None
        return F.dropout_mask(tape.random, self.mask_shape(shape), self.p, dtype)

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        mask = self.mask(x.shape, x.dtype, tape)
        tape.push(self, mask)
        return x if mask is None else x * mask

    def backward(self, dy, tape):
        (mask,) = tape.pop(self)
        return dy if mask is None else dy * mask


class DropPath(Dropout):
    """Stochastic depth: Dropout with one draw a sample, so whole residual branches vanish (arXiv:1603.09382)."""

    def __init__(self, p=0.0, *, dtype="float32", seed=0):
        super().__init__(p, dtype=dtype, seed=seed)

    def mask_shape(self, shape):
        return (shape[0],) + (1,) * (len(shape) - 1)


class LayerScale(Layer):
    """y = γ x, one factor a channel   (Touvron et al. 2021, arXiv:2103.17239).   dx = γ dy,   dγ = Σ dy x."""

    def __init__(self, dim, init_values=1e-5, *, dtype="float32", seed=0):
        self.gamma = Parameter(np.full(dim, init_values, as_dtype(dtype)))

    def forward(self, x, tape=FORGET):
        check_width(self, x, self.gamma.data.shape[0])
        tape.push(self, x)
        return x * self.gamma.data

    def backward(self, dy, tape):
        (x,) = tape.pop(self)
        if tape.wants(self.gamma):
            tape.add(self.gamma, F.sum_rows(dy * x))
        return dy * self.gamma.data


class Mlp(Layer):
    """y = drop2(fc2(drop1(act(fc1 x)))).   x: (..., in), hidden: (..., hidden), y: (..., out)."""

    def __init__(
        self, in_features, hidden_features=None, out_features=None, act_layer=GELU, drop=0.0, *, dtype="float32", seed=0
    ):
        rng, hidden = make_rng(seed), hidden_features or in_features
        self.fc1 = Linear(in_features, hidden, dtype=dtype, seed=rng)
        self.act = act_layer()
        self.drop1 = Dropout(drop)
        self.fc2 = Linear(hidden, out_features or in_features, dtype=dtype, seed=rng)
        self.drop2 = Dropout(drop)

    def forward(self, x, tape=FORGET):
        x = self.drop1.forward(self.act.forward(self.fc1.forward(x, tape), tape), tape)
        return self.drop2.forward(self.fc2.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.fc2.backward(self.drop2.backward(dy, tape), tape)
        return self.fc1.backward(self.act.backward(self.drop1.backward(dy, tape), tape), tape)
