"""AdamW with one array of scratch."""

import math

import numpy as np

from ...backend import Array
from .. import kernel


@kernel("adamw_", np, "fd", tolerance=2e-6, gain=1.6)
def adamw_(
    theta: Array,
    g: Array,
    m: Array,
    v: Array,
    step: int,
    lr: float | Array,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    beta1, beta2 = betas
    scratch = g * (1 - beta1)
    m *= beta1
    m += scratch
    np.multiply(g, g, out=scratch)
    scratch *= 1 - beta2
    v *= beta2
    v += scratch
    np.sqrt(v, out=scratch)
    scratch /= math.sqrt(1 - beta2**step)
    scratch += eps
    np.divide(m, scratch, out=scratch)  # m / (√v̂ + ε)
    scratch *= lr / (1 - beta1**step)
    if weight_decay:
        theta *= 1 - lr * weight_decay
    theta -= scratch
