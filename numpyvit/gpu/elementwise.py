"""GELU, and the sum at the end of a residual branch.

In training the bias in front of GELU comes with the product, see products.
"""

from ..backend import Array, array_module
from .program import launch_for_each
from .table import device_kernel, served


@device_kernel
def gelu(x: Array, bias: Array | None = None) -> Array:
    if not served(x, *(() if bias is None else (bias,))):
        return NotImplemented
    y = array_module(x).empty(x.shape, dtype=x.dtype)
    launch_for_each("gelu", x.size, x, bias, y, x.size, x.shape[-1])
    return y


@device_kernel
def gelu_with_slope(x: Array) -> tuple[Array, Array]:
    if not served(x):
        return NotImplemented
    xp = array_module(x)
    y, slope = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)
    launch_for_each("gelu_with_slope", x.size, x, y, slope, x.size)
    return y, slope


def residual(x: Array, branch: Array, keep: Array | None = None) -> Array:
    """y = x + branch · keep, with the mask of DropPath in one pass: one number of `keep` (B, 1, …) for each image.

    Where it is 0 the branch is not read, so what is not finite in a branch that was left out does not matter.
    Backward: the gradient of x is dy, that of the branch dy · keep.
    """
    if not served(x, branch, *(() if keep is None else (keep,))):
        return x + (branch if keep is None else branch * keep)
    y = array_module(x).empty(x.shape, dtype=x.dtype)
    launch_for_each("residual", x.size, x, branch, keep, y, x.size, x.size // len(x))
    return y
