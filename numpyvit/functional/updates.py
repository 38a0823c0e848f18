"""The update of AdamW."""

from ..backend import Array, array_module
from ..kernels import accelerated


@accelerated
def adamw_(
    theta: Array,
    g: Array,
    m: Array,
    v: Array,
    step: int | Array,
    lr: float | Array,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """m = β₁ m + (1 − β₁) g,   v = β₂ v + (1 − β₂) g²,   m̂ = m/(1 − β₁ᵗ),   v̂ = v/(1 − β₂ᵗ),
    θ = θ (1 − ηλ) − η m̂/(√v̂ + ε)   (Loshchilov & Hutter 2017, arXiv:1711.05101).

    θ, m and v in place; η is one number, or one for each weight. On a device t and η may be 0-d arrays there, t of
    whole numbers.
    """
    beta1, beta2 = betas
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m * _correction(beta1, step, m.dtype), v * _correction(beta2, step, v.dtype)
    theta[...] = theta * (1 - lr * weight_decay) - lr * m_hat / (array_module(v).sqrt(v_hat) + eps)


def _correction(beta, step, dtype):
    """1/(1 − βᵗ), computed in float64."""
    if isinstance(step, int):
        return 1 / (1 - beta**step)
    return (1 / (1 - beta ** step.astype("float64"))).astype(dtype)  # on a GPU the number of the step lies there
