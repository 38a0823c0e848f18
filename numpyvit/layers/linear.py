"""Linear, and the Mlp made of two.

Shapes: (..., D) is any number of leading dimensions of width D.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from .. import functional as F
from ..backend import Array
from ..core import FORGET, Layer, Parameter, Seed, as_dtype, make_rng
from .activations import GELU, ReLU
from .checks import check_makes_layers, check_width
from .dropout import Dropout
from .init import trunc_normal


class Linear(Layer):
    """y = x Wᵀ + b.   x: (..., in), W: (out, in), b: (out,), y: (..., out).

    Backward, with sums over all rows of x:   dW = Σ dyᵀ x,   db = Σ dy,   dx = dy W.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: str = "float32", seed: Seed = 0
    ):
        dtype, rng = as_dtype(dtype), make_rng(seed)
        self.weight = Parameter(trunc_normal(rng, (out_features, in_features), 0.02, dtype))
        self.bias = Parameter(np.zeros(out_features, dtype)) if bias else None

    def forward(self, x, tape=FORGET):
        check_width(self, x, self.weight.data.shape[1])
        tape.push(self, x)
        return F.linear(x, self.weight.data, self.bias.data if self.bias else None)

    def backward(self, dy, tape):
        (x,) = tape.pop(self)
        if tape.wants(self.weight):
            tape.add(self.weight, F.linear_weight_gradient(dy, x))
        if self.bias and tape.wants(self.bias):
            tape.add(self.bias, F.sum_over_rows(dy))
        return F.linear_input_gradient(dy, self.weight.data)

    def own_multiply_adds(self, y: Array, *inputs: Array) -> int:
        return y.size * self.weight.data.shape[1]


class Mlp(Layer):
    """y = drop2(fc2(drop1(act(fc1 x)))).   x: (..., in), hidden: (..., hidden), y: (..., out)."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[..., Layer] = GELU,
        drop: float = 0.0,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        check_makes_layers("act_layer", act_layer)
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


class Perceptron(Layer):
    """y = layersₙ(relu(… relu(layers₀ x))).   x: (..., widths[0]), y: (..., widths[-1]); named as DETR's MLP."""

    def __init__(self, widths: Sequence[int], *, dtype: str = "float32", seed: Seed = 0):
        rng = make_rng(seed)
        self.layers = [Linear(i, o, dtype=dtype, seed=rng) for i, o in itertools.pairwise(widths)]
        self.relu = ReLU()

    def forward(self, x, tape=FORGET):
        for layer in self.layers[:-1]:
            x = self.relu.forward(layer.forward(x, tape), tape)
        return self.layers[-1].forward(x, tape)

    def backward(self, dy, tape):
        dy = self.layers[-1].backward(dy, tape)
        for layer in reversed(self.layers[:-1]):
            dy = layer.backward(self.relu.backward(dy, tape), tape)
        return dy
