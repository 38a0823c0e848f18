"""LayerNorm, and sums over rows."""

from ..backend import Array, array_module, rows
from .program import SHARED_BYTES, WARP, WARPS, blocks, launch, launch_for_each_row
from .table import device_kernel, served

_PARTS = 256  # at most, into which rows are cut for their sums: enough to fill a GPU, and the same on every GPU


@device_kernel
def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    if not served(x, weight, bias):
        return NotImplemented
    xp, (M, D) = array_module(x), rows(x).shape
    y, xhat = xp.empty(x.shape, dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)
    rstd = xp.empty((*x.shape[:-1], 1), dtype=x.dtype)
    launch_for_each_row("layer_norm", M, x, weight, bias, y, xhat, rstd, M, D, float(eps))
    return y, xhat, rstd


@device_kernel
def layer_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    M, D = rows(dy).shape
    warps = min(WARPS, SHARED_BYTES // (4 * 2 * D))
    if not served(dy, weight, xhat, rstd) or not warps:
        return NotImplemented
    xp, part = array_module(dy), max(warps, blocks(M, _PARTS))
    parts = blocks(M, part)
    dx, sums = xp.empty(dy.shape, dtype=dy.dtype), xp.empty((parts, 2 * D), dtype=dy.dtype)
    arguments = (dy, weight, xhat, rstd, dx, sums, M, D, part)
    launch("layer_norm_backward", (parts,), (WARP * warps,), *arguments, shared_floats=warps * 2 * D)
    sums = _sum_over_rows(sums)
    return dx, sums[:D], sums[D:]


@device_kernel
def sum_over_rows(dy: Array) -> Array:
    return _sum_over_rows(rows(dy)) if served(dy) else NotImplemented


def _sum_over_rows(x):
    """(M, D) -> (D,), in two stages where there are many rows: the order of addition depends on the shape alone."""
    xp, (M, D) = array_module(x), x.shape
    part = max(WARPS, blocks(M, _PARTS)) if M > _PARTS else M
    sums = xp.empty((blocks(M, part), D), dtype=x.dtype)
    grid, block = (blocks(D, WARP), len(sums)), (WARP, WARPS)
    launch("sum_over_rows", grid, block, x, sums, M, D, part, shared_floats=WARP * WARPS)
    return sums[0] if len(sums) == 1 else _sum_over_rows(sums)
