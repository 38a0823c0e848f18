"""AdamW in one pass over the flat buffer, with what clips gradients and the moving average of the weights."""

import numpy as np

from ..backend import Array
from .program import launch_for_each, struct
from .table import device_kernel, served


@device_kernel
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
    scale: Array | None = None,
    average: Array | None = None,
    average_decay: float = 0.0,
) -> None:
    """step and lr may be on the device: a uint64, and a float32 or one for each weight.

    scale:   on the device, by which g is multiplied first: min(1, max_norm/‖g‖) clips.
    average: the moving average s of the weights, in place:   s = β s + (1 − β) θ, β = min(average_decay, (1+t)/(10+t)).
    """
    lr_there, lr_here = (lr, 0.0) if hasattr(lr, "dtype") else (None, float(lr))
    step_there, step_here = (step, 0) if hasattr(step, "dtype") else (None, int(step))
    floats = [array for array in (theta, g, m, v, average, scale, lr_there) if array is not None]
    if not served(*floats) or not (step_there is None or step_there.dtype == np.uint64):
        return NotImplemented
    settings = struct(
        beta1=np.float64(betas[0]),
        beta2=np.float64(betas[1]),
        lr=lr_here,
        eps=float(eps),
        weight_decay=float(weight_decay),
        average_decay=float(average_decay),
        step=step_here,
        lr_each=int(lr_there is not None and lr_there.ndim > 0),
    )
    arrays = (theta, g, m, v, average, scale, lr_there, step_there)
    launch_for_each("adamw", theta.size, *arrays, theta.size, settings, shared_floats=3)
