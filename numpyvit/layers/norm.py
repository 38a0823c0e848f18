"""LayerNorm, Standardize, GroupNorm and LayerScale.

Shapes: (..., D) is any number of leading dimensions of width D.
"""

import numpy as np

from .. import functional as F
from ..core import FORGET, Layer, Parameter, Seed, as_dtype
from ..errors import ConfigError
from .checks import check_counts, check_float, check_map, check_width


class LayerNorm(Layer):
    """y = γ x̂ + β,   x̂ = (x − μ) r,   r = 1/√(σ² + ε), over the last axis   (Ba et al. 2016, arXiv:1607.06450).

    μ and σ² depend on every x of the row, so with g = γ dy:   dx = r (g − mean g − x̂ mean(g x̂)),
    dγ = Σ dy x̂,   dβ = Σ dy.   docs/layer_norm.md derives it. x: (..., D); ε is 1e-6 as in timm's ViT.
    """

    def __init__(self, dim: int, eps: float = 1e-6, *, dtype: str = "float32", seed: Seed = 0):
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


class Standardize(Layer):
    """y = x̂ = (x − μ) r,   r = 1/√(σ² + ε), over the last axis: PyTorch's LayerNorm with elementwise_affine=False.

    dx = r (dy − mean dy − x̂ mean(dy x̂)). x: (..., D).
    """

    def __init__(self, eps: float = 1e-6, *, dtype: str = "float32", seed: Seed = 0):
        super().__init__(dtype=dtype, seed=seed)
        self.eps = eps

    def forward(self, x, tape=FORGET):
        check_float(self, x)
        xhat, rstd = F.standardize(x, self.eps)
        tape.push(self, xhat, rstd)
        return xhat

    def backward(self, dy, tape):
        return F.standardize_backward(dy, *tape.pop(self))


class GroupNorm(Layer):
    """y = γ x̂ + β, x̂ normalized over the channels of a group and all pixels   (Wu & He 2018, arXiv:1803.08494).

    Backward as for LayerNorm, a group being a row:   dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,
    dγ = Σ dy x̂,   dβ = Σ dy over images and pixels. x: (B, C, H, W), γ and β: (C,); ε is PyTorch's 1e-5.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, *, dtype: str = "float32", seed: Seed = 0
    ):
        check_counts(num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ConfigError(f"num_channels={num_channels} must be divisible by num_groups={num_groups}")
        dtype = as_dtype(dtype)
        self.weight, self.bias = Parameter(np.ones(num_channels, dtype)), Parameter(np.zeros(num_channels, dtype))
        self.num_groups, self.eps = num_groups, eps

    def forward(self, x, tape=FORGET):
        check_map(self, x, len(self.weight.data))
        y, xhat, rstd = F.group_norm(x, self.weight.data, self.bias.data, self.num_groups, self.eps)
        tape.push(self, xhat, rstd)
        return y

    def backward(self, dy, tape):
        dx, dweight, dbias = F.group_norm_backward(dy, self.weight.data, *tape.pop(self))
        tape.add(self.weight, dweight)
        tape.add(self.bias, dbias)
        return dx


class LayerScale(Layer):
    """y = γ x, one factor a channel   (Touvron et al. 2021, arXiv:2103.17239).   dx = γ dy,   dγ = Σ dy x."""

    def __init__(self, dim: int, init_values: float = 1e-5, *, dtype: str = "float32", seed: Seed = 0):
        self.gamma = Parameter(np.full(dim, init_values, as_dtype(dtype)))

    def forward(self, x, tape=FORGET):
        check_width(self, x, self.gamma.data.shape[0])
        tape.push(self, x)
        return x * self.gamma.data

    def backward(self, dy, tape):
        (x,) = tape.pop(self)
        if tape.wants(self.gamma):
            tape.add(self.gamma, F.sum_over_rows(dy * x))
        return dy * self.gamma.data
