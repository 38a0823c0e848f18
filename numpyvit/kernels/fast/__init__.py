"""Compiled kernels, by Numba: one pass where NumPy needs many. They are imported when the set "fast" is first chosen.

For arrays in another order of memory than the loops run through, the kernels of the set "numpy" are called.
"""

import math
from collections.abc import Sequence

import numpy as np

from ...backend import Array, rows, transposed
from .. import SETS, kernel
from ..cpu import attention as cpu
from . import loops

_NUMPY = {name: found.function for (name, *key), found in SETS["numpy"].items() if key == [np, "f"]}
SETS["fast"].update(SETS["numpy"])


def _compiled(name, *, tolerance, gain):
    return kernel(name, np, "f", tolerance=tolerance, gain=gain, sets=("fast",))


def _in_order(*arrays):
    return all(array.flags.c_contiguous for array in arrays)


def _in_columns(x):
    """Whether it has the features of one image first in memory, see cpu/linear.py."""
    return len(x) == 1 and _in_order(x.T)


@_compiled("gelu", tolerance=5e-7, gain=18)
def gelu(x: Array, bias: Array | None = None) -> Array:
    y = np.empty_like(x)
    if bias is None:
        loops.gelu(x.ravel("K"), y.ravel("K"))
    elif _in_columns(x):
        loops.gelu_of_columns(rows(x).T, bias, rows(y).T)
    elif _in_order(x):
        loops.gelu_of_rows(rows(x), bias, rows(y))
    else:
        return _NUMPY["gelu"](x, bias)
    return y


@_compiled("gelu_with_slope", tolerance=5e-7, gain=18)
def gelu_with_slope(x: Array) -> tuple[Array, Array]:
    y, slope = np.empty_like(x), np.empty_like(x)
    loops.gelu_with_slope(x.ravel("K"), y.ravel("K"), slope.ravel("K"))
    return y, slope


@_compiled("standardize", tolerance=5e-6, gain=6.0)
def standardize(x: Array, eps: float) -> tuple[Array, Array]:
    if not (_in_columns(x) or _in_order(x)):
        return _NUMPY["standardize"](x, eps)
    xhat, rstd = np.empty_like(x), np.empty((*x.shape[:-1], 1), x.dtype)
    if _in_columns(x):
        loops.standardize_columns(rows(x).T, eps, rows(xhat).T, rstd.reshape(-1))
    else:
        loops.standardize(rows(x), eps, rows(xhat), rstd.reshape(-1))
    return xhat, rstd


@_compiled("layer_norm", tolerance=5e-6, gain=6.0)
def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    if not (_in_columns(x) or _in_order(x)):
        return _NUMPY["layer_norm"](x, weight, bias, eps)
    y, xhat, rstd = np.empty_like(x), np.empty_like(x), np.empty((*x.shape[:-1], 1), x.dtype)
    if _in_columns(x):
        loops.layer_norm_of_columns(rows(x).T, weight, bias, eps, rows(y).T, rows(xhat).T, rstd.reshape(-1))
    else:
        loops.layer_norm(rows(x), weight, bias, eps, rows(y), rows(xhat), rstd.reshape(-1))
    return y, xhat, rstd


@_compiled("layer_norm_backward", tolerance=5e-6, gain=8.4)
def layer_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    if not _in_order(dy, weight, xhat, rstd):
        return _NUMPY["layer_norm_backward"](dy, weight, xhat, rstd)
    dx, dweight, dbias = np.empty_like(dy), np.zeros_like(weight), np.zeros_like(weight)
    loops.layer_norm_backward(rows(dy), weight, rows(xhat), rstd.reshape(-1), rows(dx), dweight, dbias)
    return dx, dweight, dbias


@_compiled("softmax_", tolerance=2e-6, gain=2.7)
def softmax_(x: Array, axis: int = -1) -> Array:
    return _softmax_(x, 1.0) if axis in (-1, x.ndim - 1) else _NUMPY["softmax_"](x, axis)


def _softmax_(x, scale):
    if x.size and _in_order(x):
        loops.softmax(rows(x), scale)
        return x
    x *= scale
    return _NUMPY["softmax_"](x)


@_compiled("attention", tolerance=2e-6, gain=1.5)
def attention(
    q: Array, k: Array, v: Array, scale: float, bias: Array | None = None, keep: Array | None = None
) -> tuple[Array, Array]:
    p = np.matmul(q, transposed(k), order="C")
    if bias is not None:
        p *= scale
        p += bias
    _softmax_(p, scale if bias is None else 1.0)
    return cpu.matmul_by_heads(p if keep is None else p * keep, v), p


@_compiled("attention_backward", tolerance=3e-6, gain=1.4)
def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    p: Array,
    scale: float,
    keep: Array | None = None,
    out: Sequence[Array] | None = None,
) -> tuple[Array, Array, Array, Array]:
    return cpu.attention_backward(dout, q, k, v, p, scale, keep, out, _softmax_backward_)


def _softmax_backward_(p, dp):
    if _in_order(p, dp):
        loops.softmax_backward(rows(p), rows(dp))
    else:
        cpu.softmax_backward_(p, dp)


@_compiled("adamw_", tolerance=2e-6, gain=5.9)
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
    if not np.isscalar(lr):
        return _NUMPY["adamw_"](theta, g, m, v, step, lr, betas, eps, weight_decay)
    (beta1, beta2), keep = betas, 1 - lr * weight_decay
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    loops.adamw(theta, g, m, v, beta1, 1 - beta1, beta2, 1 - beta2, rate, root, eps, keep)
