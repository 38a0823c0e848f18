"""The fast forms against plain ones."""

import math

import numpy as np
import pytest
from scipy.special import erf, ndtr

from numpyvit import functional as F
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
    assert error[np.abs(x) < 4].max() <= 2.0e-7
    assert error.max() <= 2.6e-7  # half the distance of two float32 numbers between 4 and 8 is 2.4e-7
    assert F.gelu(np.float32([0, -40, 40])).tolist() == [0, 0, 40]


def test_the_slope_of_gelu_in_float32(rng):
    x = np.concatenate([np.linspace(-12, 12, 200_001), [0.0, -0.0]]).astype(np.float32)
    y, slope = F.gelu_with_slope(x)
    wide = x.astype("float64")
    exact = ndtr(wide) + wide * np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    assert np.array_equal(y, F.gelu(x))
    assert np.abs(slope - exact).max() <= 3e-7


def test_gelu_takes_any_layout_and_size(rng):
    x = rng.standard_normal((300, 257)).astype(np.float32)  # more than one chunk, and a rest
    assert np.array_equal(F.gelu(x.T), F.gelu(x).T)
    assert np.array_equal(F.gelu(x[:, 5:9]), F.gelu(x)[:, 5:9])


def test_gelu_tanh_is_the_approximation_of_flax(rng):
    x = np.linspace(-6, 6, 10_001)
    assert 3e-4 < np.abs(F.gelu_tanh(x) - F.gelu(x)).max() < 5e-4


def test_sum_rows_and_weight_gradient(rng):
    dy, x = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 6))
    np.testing.assert_allclose(F.sum_rows(dy), dy.sum((0, 1)), rtol=1e-13)
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
