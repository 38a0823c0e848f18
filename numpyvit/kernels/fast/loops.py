"""The compiled loops, each one pass over memory. They take contiguous float32 arrays and write into those given last.

NaN and infinities go through them as through the formulas, so none is assumed away; sums may be taken in any order
that the compiler finds, the same at every run. Compiled code is kept on disk beside this file, or in the user's cache.
"""

import functools
import math
import sys

import numpy as np
from llvmlite import ir
from numba import float32, njit, types, void
from numba.extending import intrinsic

from ..cpu.gelu import DENOMINATOR, NUMERATOR

_one, _two = float32[::1], float32[:, ::1]
_f = np.float32
_ANY_ORDER = {"reassoc", "contract", "nsz"}
_N0, _N1, _N2, _N3 = map(_f, NUMERATOR)
_D0, _D1, _D2, _D3 = map(_f, DENOMINATOR)
_PHI0 = _f(1 / math.sqrt(2 * math.pi))
_FAR = _f(13.1)  # exp(−13.1²/2) is the smallest number that exp gives here
_BLOCK = 8192  # numbers
_SAFE = _f(40)
_LEAST = _f(-80)  # below, exp of a score is 0: smaller numbers make products slow


def _compiled(*signature):
    """A decorator. What is not compiled yet on this machine takes some seconds, which is said once."""

    def compile_loop(function):
        compile_it = functools.partial(njit, void(*signature), nogil=True, fastmath=_ANY_ORDER, error_model="numpy")
        try:
            loop = compile_it(cache=True)(function)
        except RuntimeError:  # no folder to keep it in
            loop = compile_it()(function)
        if not loop.stats.cache_hits:
            _say_once("numpyvit: compiling kernels, which takes some seconds, once on this machine")
        return loop

    return compile_loop


@functools.cache
def _say_once(text):
    print(text, file=sys.stderr, flush=True)


@intrinsic
def _from_bits(typingctx, i):
    """The float32 of the same bits as an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(inline="always", fastmath=_ANY_ORDER, error_model="numpy")
def _exp(x):
    """exp x = 2ᵏ exp r with k = round(x log₂e) and a polynomial for exp r, |r| ≤ log(2)/2; 1.2e-7 of the value off.

    x is taken into −87..88 first. (The polynomial is that of Cephes' expf.)
    """
    x = _f(88) if x > _f(88) else x  # so that NaN stays NaN
    x = _f(-87) if x < _f(-87) else x
    k = np.floor(x * _f(1.44269504) + _f(0.5))
    r = x - k * _f(0.693359375) + k * _f(2.12194440e-4)
    p = _f(1.9875691500e-4) * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    return (p * r * r + r + _f(1)) * _from_bits((np.int32(k) + np.int32(127)) << np.int32(23))


@njit(inline="always", fastmath=_ANY_ORDER, error_model="numpy")
def _gelu(x):
    """-> a = |x|, exp(−a²/2) and Φ(−a), by the fit that kernels/cpu/gelu.py explains."""
    a = _FAR if abs(x) > _FAR else abs(x)
    e = _exp(_f(-0.5) * a * a)
    return a, e, e * (((_N3 * a + _N2) * a + _N1) * a + _N0) / (((_D3 * a + _D2) * a + _D1) * a + _D0)


@njit(inline="always", fastmath=_ANY_ORDER, error_model="numpy")
def _gelu_alone(x):
    a, _, tail = _gelu(x)
    return (_f(0) if x < _f(0) else x) - a * tail


@_compiled(_one, _one)
def gelu(x, y):
    for i in range(x.size):
        y[i] = _gelu_alone(x[i])


@_compiled(_two, _one, _two)
def gelu_of_rows(x, bias, y):
    """Of x + bias."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = _gelu_alone(x[i, j] + bias[j])


@_compiled(_two, _one, _two)
def gelu_of_columns(x, bias, y):
    """Of arrays (width, rows), as in standardize_columns."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = _gelu_alone(x[i, j] + bias[i])


@_compiled(_one, _one, _one)
def gelu_with_slope(x, y, slope):
    for i in range(x.size):
        a, e, tail = _gelu(x[i])
        y[i] = (_f(0) if x[i] < _f(0) else x[i]) - a * tail
        distance = _f(0.5) - tail + a * e * _PHI0
        slope[i] = _f(0.5) + (distance if x[i] > _f(0) else -distance)


@njit(fastmath=_ANY_ORDER, error_model="numpy")
def _mean_and_rstd(row, eps):
    width = row.size
    mean = _f(0)
    for j in range(width):
        mean += row[j]
    mean /= _f(width)
    var = _f(0)
    for j in range(width):
        centered = row[j] - mean
        var += centered * centered
    return mean, _f(1) / np.sqrt(var / _f(width) + eps)


@njit(fastmath=_ANY_ORDER, error_model="numpy")
def _mean_and_rstd_of_columns(x, eps, rstd):
    """-> the means; the others are written into rstd."""
    width, columns = x.shape
    mean = np.zeros(columns, np.float32)
    rstd[:] = _f(0)
    for i in range(width):
        for j in range(columns):
            mean[j] += x[i, j]
    for j in range(columns):
        mean[j] /= _f(width)
    for i in range(width):
        for j in range(columns):
            centered = x[i, j] - mean[j]
            rstd[j] += centered * centered
    for j in range(columns):
        rstd[j] = _f(1) / np.sqrt(rstd[j] / _f(width) + eps)
    return mean


@_compiled(_two, float32, _two, _one)
def standardize(x, eps, xhat, rstd):
    for i in range(x.shape[0]):
        mean, r = _mean_and_rstd(x[i], eps)
        rstd[i] = r
        for j in range(x.shape[1]):
            xhat[i, j] = (x[i, j] - mean) * r


@_compiled(_two, float32, _two, _one)
def standardize_columns(x, eps, xhat, rstd):
    """Of arrays (width, rows): the features of one image lie first in memory."""
    mean = _mean_and_rstd_of_columns(x, eps, rstd)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            xhat[i, j] = (x[i, j] - mean[j]) * rstd[j]


@_compiled(_two, _one, _one, float32, _two, _two, _one)
def layer_norm(x, weight, bias, eps, y, xhat, rstd):
    for i in range(x.shape[0]):
        mean, r = _mean_and_rstd(x[i], eps)
        rstd[i] = r
        for j in range(x.shape[1]):
            normalized = (x[i, j] - mean) * r
            xhat[i, j] = normalized
            y[i, j] = normalized * weight[j] + bias[j]


@_compiled(_two, _one, _one, float32, _two, _two, _one)
def layer_norm_of_columns(x, weight, bias, eps, y, xhat, rstd):
    """Of arrays (width, rows)."""
    mean = _mean_and_rstd_of_columns(x, eps, rstd)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            normalized = (x[i, j] - mean[j]) * rstd[j]
            xhat[i, j] = normalized
            y[i, j] = normalized * weight[i] + bias[i]


@_compiled(_two, _one, _two, _one, _two, _one, _one)
def layer_norm_backward(dy, weight, xhat, rstd, dx, dweight, dbias):
    """dweight and dbias are added to."""
    rows, width = dy.shape
    for i in range(rows):
        mean_g, mean_g_xhat = _f(0), _f(0)
        for j in range(width):
            g = dy[i, j] * weight[j]
            mean_g += g
            mean_g_xhat += g * xhat[i, j]
        mean_g /= _f(width)
        mean_g_xhat /= _f(width)
        for j in range(width):
            dx[i, j] = rstd[i] * (dy[i, j] * weight[j] - mean_g - xhat[i, j] * mean_g_xhat)
            dweight[j] += dy[i, j] * xhat[i, j]
            dbias[j] += dy[i, j]


@njit(fastmath=_ANY_ORDER)
def _subtract_maxima(x):
    for i in range(len(x)):
        largest = x[i, 0]
        for j in range(x.shape[1]):
            largest = max(largest, x[i, j])
        for j in range(x.shape[1]):
            x[i, j] -= largest


@njit(fastmath=_ANY_ORDER)
def _divide_by_sums(x):
    for i in range(len(x)):
        total = _f(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        factor = _f(1) / total
        for j in range(x.shape[1]):
            x[i, j] *= factor


@_compiled(_two, float32)
def softmax(x, scale):
    """Of scale · x, in place, over the rows, a block of them that stays in the cache at a time.

    Maxima are subtracted only where an exponential could overflow or lose digits.
    """
    rows, width = x.shape
    step = max(1, _BLOCK // width)
    for start in range(0, rows, step):
        block = x[start : start + step]
        flat = block.reshape(-1)  # long loops, so that short rows are vectorized as well
        far = 0
        for i in range(flat.size):
            flat[i] *= scale
            far += np.int32(not abs(flat[i]) < _SAFE)
        if far:
            _subtract_maxima(block)
        for i in range(flat.size):
            e = _exp(flat[i])
            flat[i] = _f(0) if flat[i] < _LEAST else e
        _divide_by_sums(block)


@_compiled(_two, _two)
def softmax_backward(p, dp):
    """dp becomes ds = p (dp − Σ p dp), over the rows."""
    rows, width = p.shape
    for i in range(rows):
        total = _f(0)
        for j in range(width):
            total += p[i, j] * dp[i, j]
        for j in range(width):
            dp[i, j] = p[i, j] * (dp[i, j] - total)


@_compiled(_one, _one, _one, _one, *[float32] * 8)
def adamw(theta, g, m, v, beta1, rest1, beta2, rest2, rate, root, eps, keep):
    """rest: 1 − β, which float32 would round, rate: η/(1 − β₁ᵗ), root: √(1 − β₂ᵗ), keep: 1 − ηλ."""
    for i in range(theta.size):
        m[i] = beta1 * m[i] + rest1 * g[i]
        v[i] = beta2 * v[i] + rest2 * (g[i] * g[i])
        theta[i] = keep * theta[i] - rate * m[i] / (np.sqrt(v[i]) / root + eps)
