"""The fast forms against plain ones."""

import math

import numpy as np
import pytest
from numpy.polynomial.polynomial import polyval
from reference.fit_gelu import fit
from scipy.special import erf, erfc, ndtr

from numpyvit import functional as F
from numpyvit.kernels.cpu.gelu import DENOMINATOR, NUMERATOR
from numpyvit.testing import gradcheck_loss


def plain_layer_norm(x, weight, bias, eps):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def plain_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def plain_attention(q, k, v, scale):
    return plain_softmax(np.einsum("bhid,bhjd->bhij", q, k) * scale) @ v


TOLERANCE = {"float64": 1e-12, "float32": 3e-6}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layer_norm_agrees_with_the_plain_form(rng, dtype):
    x = rng.standard_normal((7, 5, 48)).astype(dtype)
    weight, bias = rng.standard_normal((2, 48)).astype(dtype)
    expected = plain_layer_norm(*(a.astype("float64") for a in (x, weight, bias)), 1e-6)
    np.testing.assert_allclose(F.layer_norm(x, weight, bias, 1e-6)[0], expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_attention_agrees_with_the_plain_form(rng, dtype):
    q, k, v = rng.standard_normal((3, 2, 3, 9, 4)).astype(dtype)
    expected = plain_attention(*(a.astype("float64") for a in (q, k, v)), 0.5)
    out, p = F.attention(q, k, v, 0.5)
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)


def test_attention_with_bias_and_mask_is_differentiated(rng):
    q, k, v = rng.standard_normal((3, 2, 2, 4, 3))
    bias, keep = rng.standard_normal((2, 4, 4)), (rng.random((2, 2, 4, 4)) > 0.3) / 0.7
    dout = rng.standard_normal((2, 2, 4, 3))

    def value_and_gradient(heads):
        out, p = F.attention(*heads, 0.6, bias, keep)
        return (out * dout).sum(), F.attention_backward(dout, *heads, p, 0.6, keep)[:3]

    gradcheck_loss(value_and_gradient, (q, k, v))


def test_gelu_in_float64_is_exact(rng):
    x = rng.standard_normal(1000) * 3
    np.testing.assert_allclose(F.gelu(x), x * 0.5 * (1 + erf(x / math.sqrt(2))), rtol=1e-15, atol=1e-16)


def test_gelu_in_float32_is_off_by_no_more_than_rounding():
    x = np.linspace(-12, 12, 1_000_001).astype(np.float32)
    exact = x.astype("float64") * ndtr(x.astype("float64"))
    error = np.abs(F.gelu(x) - exact)
    assert error[np.abs(x) < 4].max() <= 1.5e-7
    assert error.max() <= 2.6e-7  # half the distance of two float32 numbers between 4 and 8 is 2.4e-7
    far = np.float32([0, -40, 40, -1e12, 1e12])
    assert np.array_equal(F.gelu(far), np.maximum(far, 0))
    assert np.array_equal(F.gelu_with_slope(far)[1], [0.5, 0, 1, 0, 1])


@pytest.mark.parametrize("far", [1e13, 1e20, float(np.finfo(np.float32).max), np.inf])
def test_gelu_in_float32_far_from_0_is_x_or_0(far):
    x = np.float32([far, -far, 1, np.nan])
    y, slope = F.gelu_with_slope(x)
    assert np.array_equal(F.gelu(x), y, equal_nan=True)
    assert np.array_equal(y[:2], [x[0], 0]) and np.array_equal(slope[:2], [1, 0])
    assert np.isfinite([y[2], slope[2]]).all() and np.isnan([y[3], slope[3]]).all()


def test_the_fit_of_gelu_is_as_close_as_stated_and_is_what_its_script_finds():
    a = np.linspace(0, 40, 400_001)

    def largest_errors(numerator, denominator):
        phi = np.exp(-a * a / 2) * polyval(a, numerator) / polyval(a, denominator)
        off = np.abs(phi - erfc(a / math.sqrt(2)) / 2)
        return (a * off).max(), off.max()

    of_value, of_slope = largest_errors(NUMERATOR, DENOMINATOR)
    assert of_value <= 1.3e-8 and of_slope <= 2.6e-8 and NUMERATOR[0] / DENOMINATOR[0] == 0.5
    np.testing.assert_allclose(fit(), (NUMERATOR, DENOMINATOR), rtol=1e-6)
    np.testing.assert_allclose(largest_errors(*fit()), (of_value, of_slope), rtol=0.01)


def test_the_slope_of_gelu_in_float32(rng):
    x = np.concatenate([np.linspace(-12, 12, 200_001), [0.0, -0.0]]).astype(np.float32)
    y, slope = F.gelu_with_slope(x)
    wide = x.astype("float64")
    exact = ndtr(wide) + wide * np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    assert np.array_equal(y, F.gelu(x))
    assert np.abs(slope - exact).max() <= 2.1e-7


def test_gelu_takes_any_layout_and_size(rng):
    x = rng.standard_normal((300, 257)).astype(np.float32)  # more than one chunk, and a rest
    assert np.array_equal(F.gelu(x.T), F.gelu(x).T)
    assert np.array_equal(F.gelu(x[:, 5:9]), F.gelu(x)[:, 5:9])


def test_gelu_tanh_is_the_approximation_of_flax(rng):
    x = np.linspace(-6, 6, 10_001)
    assert 3e-4 < np.abs(F.gelu_tanh(x) - F.gelu(x)).max() < 5e-4


def test_sum_over_rows_and_weight_gradient(rng):
    dy, x = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 6))
    np.testing.assert_allclose(F.sum_over_rows(dy), dy.sum((0, 1)), rtol=1e-13)
    np.testing.assert_allclose(F.linear_weight_gradient(dy, x), np.einsum("bno,bni->oi", dy, x), rtol=1e-12)


def test_col2im_undoes_im2col(rng):
    x = rng.standard_normal((2, 3, 6, 8))
    cols = F.im2col(x, (3, 2))
    assert cols.shape == (2, 8, 18)
    assert np.array_equal(F.col2im(cols, (3, 2), x.shape), x)
    assert np.array_equal(cols[0, 1].reshape(3, 3, 2), x[0, :, :3, 2:4])


def test_log_softmax_is_finite_for_extreme_logits():
    x = np.array([[1e4, -1e4, 0.0]])
    assert np.array_equal(F.log_softmax(x), [[0, -2e4, -1e4]])


@pytest.mark.parametrize("scale", [1, 39, 60, 3e3])  # below and above the bound under which no maximum is taken
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_softmax_agrees_with_the_plain_form_for_small_and_large_scores(rng, dtype, scale):
    x = (rng.uniform(-1, 1, (4, 6, 50)) * scale).astype(dtype)
    x[0, 0], x[1, 1, 0] = -scale, scale
    np.testing.assert_allclose(F.softmax(x), plain_softmax(x.astype("float64")), rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(F.softmax(x, axis=1).sum(1), 1, rtol=1e-6)


def test_softmax_of_masked_and_of_lost_scores():
    assert np.array_equal(F.softmax(np.array([[0.0, -np.inf], [5.0, 5.0]])), [[1, 0], [0.5, 0.5]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(F.softmax(np.array([[0.0, np.nan]]))).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_attention_backward_agrees_with_the_plain_form(rng, dtype):
    q, k, v, dout = rng.standard_normal((4, 2, 3, 9, 4))
    p = plain_softmax(np.einsum("bhid,bhjd->bhij", q, k) * 0.5)
    dp = np.einsum("bhid,bhjd->bhij", dout, v)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    expected = (
        0.5 * np.einsum("bhij,bhjd->bhid", ds, k),
        0.5 * np.einsum("bhij,bhid->bhjd", ds, q),
        np.einsum("bhij,bhid->bhjd", p, dout),
        ds,
    )
    found = F.attention_backward(*(a.astype(dtype) for a in (dout, q, k, v, p)), 0.5)
    for name, array, wanted in zip(("dq", "dk", "dv", "ds"), found, expected):
        np.testing.assert_allclose(array, wanted, rtol=0, atol=TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layer_norm_backward_agrees_with_the_plain_form(rng, dtype):
    x, dy = rng.standard_normal((2, 7, 5, 48))
    weight, bias = rng.standard_normal((2, 48))
    _, xhat, rstd = F.layer_norm(x, weight, bias, 1e-6)
    g = dy * weight
    dx = rstd.reshape(7, 5, 1) * (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True))
    expected = dx, (dy * xhat).sum((0, 1)), dy.sum((0, 1))
    found = F.layer_norm_backward(*(a.astype(dtype) for a in (dy, weight, xhat, rstd)))
    for name, array, wanted in zip(("dx", "dweight", "dbias"), found, expected):
        scale = max(1, np.abs(wanted).max())
        np.testing.assert_allclose(array / scale, wanted / scale, rtol=0, atol=TOLERANCE[dtype], err_msg=name)


def test_order_in_memory_changes_nothing(rng):
    """The tokens of one image come features first from a product, and every function keeps to that order."""
    x = rng.standard_normal((1, 9, 12))
    turned = np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    weight, bias = rng.standard_normal((36, 12)), rng.standard_normal(36)
    y, z = np.ascontiguousarray(F.linear(x, weight, bias)), F.linear(turned, weight, bias)
    assert z.strides[-1] > z.strides[-2]
    np.testing.assert_allclose(z, y, rtol=1e-12)
    heads, turned_heads = (F.split_heads(a, 3, 3) for a in (y, z))
    out, turned_out = (F.join_heads((F.attention(*a, 0.5)[0],)) for a in (heads, turned_heads))
    assert turned_out.strides[-1] > turned_out.strides[-2]
    np.testing.assert_allclose(turned_out, out, rtol=1e-12)
    x = x.astype(np.float32)
    assert np.array_equal(F.gelu(turned.astype(np.float32)), F.gelu(x))
    assert all(map(np.array_equal, F.gelu_with_slope(turned.astype(np.float32)), F.gelu_with_slope(x)))
