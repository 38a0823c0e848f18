"""GELU in float32 by a fit, many times faster than erf.

y = max(x, 0) − a Φ(−a) with a = |x|, which loses no digits for large |x|, and Φ(−a) = exp(−a²/2) · N(a)/D(a).
Each operation is a pass over memory, so few of them count: both polynomials are one product with the powers of a.
"""

import math
import threading

import numpy as np

from ...backend import Array
from .. import kernel

# Coefficients of the powers 1 to a³, a minimax fit by tests/reference/fit_gelu.py: a·Φ(−a) is off by at most 1.3e-8 and
# Φ(−a) by 2.6e-8, exact at 0 (tests/test_functional.py measures what float32 makes of it).
NUMERATOR = (5.9162456, 2.23895982, 0.421987147, -0.00149824728)
DENOMINATOR = (11.8324912, 13.9189098, 6.03302356, 1.0)
_N_D = np.array([NUMERATOR, DENOMINATOR], np.float32)

# Arrays without dimensions: with one a pass begins a third of a microsecond sooner than with a float.
_HALF, _MINUS_HALF, _PHI0 = (np.array(c, np.float32) for c in (0.5, -0.5, 1 / math.sqrt(2 * math.pi)))
_SIGN = np.array(-(2**31), np.int32)  # the bit that holds a float32's sign
_FAR = 15  # exp(−15²/2) is 0 in float32, so a may end there, before its powers overflow

_CHUNK = 98_304  # elements: passes long enough to share the interpreter, rows that stay in a processor's cache
_scratch = threading.local()


@kernel("gelu", np, "f", tolerance=5e-7, gain=4.0)
def gelu(x: Array, bias: Array | None = None) -> Array:
    if bias is None:
        y = np.empty_like(x)
    else:
        x = y = x + bias  # what follows can work in place
    for chunk in _chunks(x, y):
        _gelu(*chunk)
    return y


@kernel("gelu_with_slope", np, "f", tolerance=5e-7, gain=3.6)
def gelu_with_slope(x: Array) -> tuple[Array, Array]:
    y, slope = np.empty_like(x), np.empty_like(x)
    for chunk in _chunks(x, y, slope):
        _gelu(*chunk)
    return y, slope


def _chunks(x, y, *slope):
    """The same part of each array, in their order in memory, which y and its slope have from x."""
    axes = sorted(range(x.ndim), key=y.strides.__getitem__, reverse=True)
    flat = [array.transpose(axes).reshape(-1) for array in (x, y, *slope)]
    for start in range(0, x.size, _CHUNK):
        yield [array[start : start + _CHUNK] for array in flat]


def _gelu(x, y, slope=None):
    """Write gelu(x) into y and, where asked for, its derivative into slope."""
    rows = _scratch_rows()[:, : x.size]
    zero, far, _, a, square, cube, n, d = rows
    np.abs(x, out=a)
    np.minimum(a, far, out=a)
    np.multiply(a, a, out=square)
    np.multiply(square, a, out=cube)
    np.matmul(_N_D, rows[2:6], out=rows[6:])  # n and d, from 1, a, a², a³
    exponent = np.multiply(square, _MINUS_HALF, out=square)
    e = np.exp(exponent, out=exponent)
    tail = np.divide(n, d, out=n)
    tail *= e  # Φ(−a)
    if slope is not None:
        _gelu_slope(x, a, e, tail, slope)
    a_tail = np.multiply(tail, a, out=tail)
    np.maximum(x, zero, out=y)
    y -= a_tail


def _gelu_slope(x, a, e, tail, slope):
    """slope = ½ + sign(x) (½ − Φ(−a) + a φ(a)) from e = exp(−a²/2) and tail = Φ(−a); overwrites e."""
    phi = np.multiply(e, _PHI0, out=e)
    distance = np.multiply(phi, a, out=phi)  # of the slope from ½
    distance -= tail
    distance += _HALF
    bits = slope.view(np.int32)
    np.bitwise_and(x.view(np.int32), _SIGN, out=bits)  # np.copysign takes five times as long
    bits ^= distance.view(np.int32)
    slope += _HALF


def _scratch_rows():
    """This thread's eight rows of _CHUNK numbers, the first three full of 0, _FAR and 1: np.maximum and np.minimum take
    half as long with a row as with a number. They begin at a cache line, where passes in place are a third faster."""
    if not hasattr(_scratch, "rows"):
        numbers = np.empty(8 * _CHUNK + 16, np.float32)
        first = -numbers.ctypes.data // 4 % 16
        _scratch.rows = numbers[first : first + 8 * _CHUNK].reshape(8, _CHUNK)
        _scratch.rows[:3] = [[0], [_FAR], [1]]
    return _scratch.rows
