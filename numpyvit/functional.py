"""The arithmetic: pure functions on arrays, each forward with its backward below it.

Legend of shapes, used in every docstring: B batch, N tokens, D width, H heads, d = D/H, C channels, P patch.
dx, dy are the gradients of the loss by x, y. No function changes an array it was given, unless its name ends in _.
float32 stays float32: constants are Python scalars, which NumPy 2 and CuPy take in the array's own type, or float32.
"""

import functools
import math
import threading

import numpy as np

from .backend import array_module, erf, on_host

# ---- linear ---------------------------------------------------------------------------------------------------------


def matmul(a, b, out=None):
    """a b over the last two axes: every product of two matrices goes through here; `@` is for those with a vector."""
    return array_module(a).matmul(a, b, out=out)


def rows(x):
    """(..., D) -> (M, D): GEMM wants two dimensions; with more, NumPy loops over the batch and CuPy copies."""
    return x.reshape(-1, x.shape[-1])


def features_first(x):
    """The same (B, N, D), in memory (B, D, N): products with the few rows of one image are then faster.

    BLAS need not rearrange an operand, and the layers keep the order that they find.
    """
    return _t(array_module(x).ascontiguousarray(_t(x)))


def linear(x, weight, bias=None):
    """y = x Wᵀ + b.   x: (..., in), weight: (out, in), bias: (out,), y: (..., out)."""
    x2 = rows(x)
    turned = x2.flags.f_contiguous and not x2.flags.c_contiguous  # features first: y is then laid out likewise
    y = matmul(weight, x2.T).T if turned else matmul(x2, weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def linear_input_gradient(dy, weight):
    """dx = dy W.   dy: (..., out), weight: (out, in), dx: (..., in)."""
    return linear(dy, weight.T)


def linear_weight_gradient(dy, x):
    """dW = Σ dyᵀ x over all rows.   dy: (..., out), x: (..., in), dW: (out, in)."""
    return matmul(rows(dy).T, rows(x))


def sum_rows(dy):
    """db = Σ dy over all rows.   (..., D) -> (D,). As a product with ones: BLAS sums columns faster than NumPy."""
    dy = rows(dy)
    return _ones(dy, dy.shape[0]) @ dy


def sum_last(x):
    """Σ over the last axis: (..., N) -> (..., 1). As a product with ones, several times faster than x.sum(-1)."""
    return (rows(x) @ _ones(x, x.shape[-1])).reshape(*x.shape[:-1], 1)


def _ones(like, n):
    return _host_ones(n, like.dtype) if on_host(like) else array_module(like).ones(n, dtype=like.dtype)


@functools.lru_cache(maxsize=64)
def _host_ones(n, dtype):
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones


# ---- gelu -----------------------------------------------------------------------------------------------------------

_CHUNK = 98_304  # elements: enough to share, and OpenBLAS's kernels for small products take up to 125,000
_scratch = threading.local()

# Φ(−a) = exp(−a²/2) · N(a)/D(a) for a ≥ 0 with cubic polynomials: a minimax fit, with which a·Φ(−a) is off by at most
# 2.1e-8, and exact at 0 (tests/test_functional.py measures what float32 makes of it). Rows N and D, columns of the
# powers 1 to a³.
_N_D = (
    (5.81423643613484, 2.228080921424931, 0.4204320266346879, -0.001364577868366709),
    (11.62847287226968, 13.734385974893987, 5.984567250817911, 1.0),
)
_COEFFICIENTS = np.array(_N_D, np.float32) * np.array([1, 1, -2, -2], np.float32)  # of 1, a, −a²/2, −a³/2


def _constant(value, dtype=np.float32):
    """As an array without dimensions: with one a pass begins a third of a microsecond sooner than with a float."""
    return np.array(value, dtype)


_HALF, _MINUS_HALF, _PHI0 = _constant(0.5), _constant(-0.5), _constant(1 / math.sqrt(2 * math.pi))
_SIGN = _constant(-(2**31), np.int32)  # the bit that holds a float32's sign


def gelu(x):
    """y = x Φ(x), Φ the normal distribution function (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    float64 uses erf; float32 on the host a fit for |x| < 1e12, 1.4e-7 off where |x| < 4, many times faster.
    """
    if x.dtype == np.float32 and array_module(x) is np:
        return _gelu_float32(x, None)
    return x * _phi(x)


def gelu_with_slope(x):
    """-> y = x Φ(x) and its slope dy/dx = Φ(x) + x φ(x), φ(x) = exp(−x²/2)/√(2π), which share their exponential."""
    xp = array_module(x)
    if x.dtype == np.float32 and xp is np:
        slope = np.empty_like(x)
        return _gelu_float32(x, slope), slope
    phi = _phi(x)
    return x * phi, phi + x * xp.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def gelu_backward(dy, slope):
    """dx = dy · (Φ(x) + x φ(x)); the slope comes from the forward pass."""
    return dy * slope


def _phi(x):
    return (erf(x * (1 / math.sqrt(2))) + 1) * 0.5


def _gelu_float32(x, slope):
    """gelu in chunks: y = max(x, 0) − |x| Φ(−|x|), which loses no digits for large |x|.

    Each operation is a pass over memory, so few of them count: both polynomials are one product with the powers.
    """
    y = np.empty_like(x)
    axes = sorted(range(x.ndim), key=lambda axis: -y.strides[axis])  # y has x's order in memory; so has its slope
    flat_x, flat_y, flat_slope = (None if a is None else a.transpose(axes).reshape(-1) for a in (x, y, slope))
    for start in range(0, flat_x.size, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        v = flat_x[chunk]
        scratch = _scratch_rows()[:, : v.size]
        zero, _, a, square, cube, tail, d = scratch
        np.abs(v, a)
        np.multiply(a, a, square)
        square *= _MINUS_HALF  # −a²/2
        np.multiply(square, a, cube)
        matmul(_COEFFICIENTS, scratch[1:5], out=scratch[5:7])  # N and D
        e = np.exp(square, square)
        tail /= d
        tail *= e  # Φ(−|x|)
        if flat_slope is not None:
            _gelu_slope(v, a, e, tail, flat_slope[chunk])
        tail *= a
        np.fmax(v, zero, flat_y[chunk])
        flat_y[chunk] -= tail
    return y


def _gelu_slope(x, a, e, tail, slope):
    """slope = ½ + sign(x) (½ − Φ(−a) + a φ(a)) from a = |x|, e = exp(−x²/2), tail = Φ(−a); overwrites e."""
    e *= _PHI0
    e *= a
    e -= tail
    e += _HALF
    bits = slope.view(np.int32)
    np.bitwise_and(x.view(np.int32), _SIGN, bits)  # np.copysign takes five times as long
    bits ^= e.view(np.int32)
    slope += _HALF


def _scratch_rows():
    """This thread's seven rows of _CHUNK numbers: the first stay 0, the second 1. They begin at a cache line, where
    passes in place are a third faster."""
    if not hasattr(_scratch, "rows"):
        numbers = np.zeros(7 * _CHUNK + 16, np.float32)
        first = -numbers.ctypes.data // 4 % 16
        _scratch.rows = numbers[first : first + 7 * _CHUNK].reshape(7, _CHUNK)
        _scratch.rows[1] = 1
    return _scratch.rows


def gelu_tanh(x):
    """y = x/2 · (1 + tanh u), u = √(2/π) (x + 0.044715 x³): the approximation of Flax and of GPT-2."""
    return 0.5 * x * (1 + array_module(x).tanh(_tanh_argument(x)))


def gelu_tanh_with_slope(x):
    """-> y and dy/dx = (1 + tanh u)/2 + x/2 · (1 − tanh² u) · √(2/π) (1 + 3 · 0.044715 x²)."""
    t = array_module(x).tanh(_tanh_argument(x))
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * (x * x))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du


def _tanh_argument(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))  # x**3 in float32 costs a hundred times x*x*x


# ---- softmax --------------------------------------------------------------------------------------------------------


_SAFE_EXPONENT = 40  # e⁴⁰ and e⁻⁸⁰, the smallest quotient, lie well inside float32


def softmax(x, axis=-1):
    """y = exp(x − max x) / Σ exp(x − max x); the maximum, which cancels, keeps exp from overflowing."""
    return softmax_(x.copy(), axis)


def softmax_(x, axis=-1):
    """softmax in place, for an array that the caller owns.

    The maximum of each row is the costly part. It serves nothing where no exp can overflow or lose digits, and one look
    at the whole array tells; on a device the look would stall.
    """
    can_look = on_host(x) and x.dtype.itemsize >= 4 and x.size
    if not (can_look and x.min() > -_SAFE_EXPONENT and x.max() < _SAFE_EXPONENT):
        x -= x.max(axis, keepdims=True)
    array_module(x).exp(x, out=x)
    x /= sum_last(x) if axis in (-1, x.ndim - 1) else x.sum(axis, keepdims=True)
    return x


def softmax_backward(dy, y, axis=-1):
    """dx = y · (dy − Σ dy·y), from dyᵢ/dxⱼ = yᵢ (δᵢⱼ − yⱼ)."""
    return y * (dy - (dy * y).sum(axis, keepdims=True))


def log_softmax(x):
    """x − max x − log Σ exp(x − max x) along the last axis; finite for any finite logits."""
    xp = array_module(x)
    x = x - x.max(-1, keepdims=True)
    return x - xp.log(xp.exp(x).sum(-1, keepdims=True))


# ---- attention ------------------------------------------------------------------------------------------------------


def attention(q, k, v, scale, bias=None, keep=None):
    """out = (p · keep) v with p = softmax(scale · q kᵀ + bias)   (Vaswani et al. 2017, arXiv:1706.03762, §3.2.1).

    q: (..., N, d), k and v: (..., M, d), bias broadcasts to the scores (..., N, M), keep is a dropout mask or None.
    -> out (..., N, d) and p (..., N, M).
    """
    scores = matmul(q, _t(k))
    scores *= scale
    if bias is not None:
        scores += bias
    p = softmax_(scores)
    return _matmul_by_heads(p if keep is None else p * keep, v), p


def attention_backward(dout, q, k, v, p, scale, keep=None):
    """-> dq, dk, dv, ds.   With w = p · keep:   dv = wᵀ dout,   dp = (dout vᵀ) · keep,
    ds = p · dp − p Σ p·dp,   dq = scale · ds k,   dk = scale · dsᵀ q.   ds is the gradient of the bias as well.
    """
    dv = _matmul_by_heads(_t(p if keep is None else p * keep), dout)
    ds = matmul(dout, _t(v))  # dp
    if keep is not None:
        ds *= keep
    ds *= p
    ds -= p * sum_last(ds)
    dq = _matmul_by_heads(ds, k)
    dq *= scale
    dk = _matmul_by_heads(_t(ds), q)
    dk *= scale
    return dq, dk, dv, ds


def _matmul_by_heads(a, b):
    """a b: (..., H, N, M) and (..., H, M, d) -> (..., H, N, d), laid out in memory so that join_heads moves nothing."""
    if a.ndim < 3 or a.shape[:-2] != b.shape[:-2]:
        return matmul(a, b)
    *batch, H, N, _ = a.shape
    if b.strides[-2] < b.strides[-1]:  # features before tokens, as in `linear`
        out = array_module(a).empty((*batch, H, b.shape[-1], N), dtype=a.dtype)
        return matmul(a, b, out=out.swapaxes(-1, -2))
    out = array_module(a).empty((*batch, N, H, b.shape[-1]), dtype=a.dtype)
    return matmul(a, b, out=out.swapaxes(-2, -3))


def split_heads(x, parts, heads):
    """(B, N, parts·H·d) -> (parts, B, H, N, d), a view: iterate over it for q, k, v."""
    B, N, width = x.shape
    return x.reshape(B, N, parts, heads, width // (parts * heads)).transpose(2, 0, 3, 1, 4)


def join_heads(parts):
    """The inverse of split_heads: [(B, H, N, d), …] -> (B, N, len(parts)·H·d)."""
    B, _, N, _ = parts[0].shape
    parts = [part.transpose(0, 2, 1, 3).reshape(B, N, part.shape[1] * part.shape[3]) for part in parts]
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts, axis=-1)


def _t(x):
    return x.swapaxes(-1, -2)


# ---- layer norm -----------------------------------------------------------------------------------------------------


def layer_norm(x, weight, bias, eps):
    """x̂ = (x − μ) r,   r = 1/√(σ² + ε),   y = γ x̂ + β,   over the last axis   (Ba et al. 2016, arXiv:1607.06450).

    -> y, x̂ (both (..., D)) and r (M, 1), one row a token. docs/layer_norm.md derives the backward.
    """
    xp = array_module(x)
    x2 = rows(x)
    width = x2.shape[1]
    mean = sum_last(x2)
    mean /= width
    xhat = x2 - mean
    var = xp.einsum("ij,ij->i", xhat, xhat)
    var /= width
    var += eps
    rstd = (1 / xp.sqrt(var))[:, None]
    xhat *= rstd
    y = xhat * weight
    y += bias
    return y.reshape(x.shape), xhat.reshape(x.shape), rstd


def layer_norm_backward(dy, weight, xhat, rstd):
    """-> dx = r (g − mean g − x̂ mean(g x̂)) with g = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy."""
    xp = array_module(dy)
    dy2, xhat2 = rows(dy), rows(xhat)
    width = dy2.shape[1]
    dy_xhat = dy2 * xhat2
    dweight, dbias = sum_rows(dy_xhat), sum_rows(dy2)
    mean_g = dy2 @ weight  # Σ γ dy, and the next Σ γ dy x̂: row sums as products again
    mean_g /= width
    mean_g_xhat = dy_xhat @ weight
    mean_g_xhat /= width
    dx = dy2 * weight
    dx -= mean_g[:, None]
    dx -= xp.multiply(xhat2, mean_g_xhat[:, None], out=dy_xhat)
    dx *= rstd
    return dx.reshape(dy.shape), dweight, dbias


# ---- dropout --------------------------------------------------------------------------------------------------------


def dropout_mask(random, shape, rate, dtype):
    """An array that is 0 with probability `rate`, else 1/(1 − rate), so that the mean of x · mask is x."""
    return (random.random(shape) >= rate).astype(dtype) * (1 / (1 - rate) if rate < 1 else 0.0)


# ---- patches --------------------------------------------------------------------------------------------------------


def im2col(x, patch):
    """Cut images into patches that do not overlap: (B, C, H, W) -> (B, N, C·Ph·Pw), row by row."""
    (B, C, H, W), (ph, pw) = x.shape, patch
    x = x.reshape(B, C, H // ph, ph, W // pw, pw).transpose(0, 2, 4, 1, 3, 5)  # B, H/Ph, W/Pw, C, Ph, Pw
    return x.reshape(B, -1, C * ph * pw)


def col2im(patches, patch, image_shape):
    """The inverse of im2col, so its adjoint too: no two patches share a pixel."""
    (B, C, H, W), (ph, pw) = image_shape, patch
    x = patches.reshape(B, H // ph, W // pw, C, ph, pw).transpose(0, 3, 1, 4, 2, 5)  # B, C, H/Ph, Ph, W/Pw, Pw
    return x.reshape(B, C, H, W)
