"""Each function of the arithmetic against its published formula, written out in float64, backward included."""

import math

import numpy as np
import pytest
from scipy.special import erf

import numpyvit as nv
from numpyvit import functional as F

LAYOUTS = {
    "rows": lambda a: a,
    "columns": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
}


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def slope(f, x, step=1e-5):
    """The derivative of an elementwise function, by differences."""
    return (f(x + step) - f(x - step)) / (2 * step)


class Draws:
    """A random stream whose draws are known."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float32)

    def random(self, shape):
        return self.values.reshape(shape)


# ---- linear ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7), (2, 3, 5, 7)], ids=str)
def test_linear(rng, shape, layout):
    x, weight, bias = LAYOUTS[layout](rng.standard_normal(shape)), rng.standard_normal((4, 7)), rng.standard_normal(4)
    dy = LAYOUTS[layout](rng.standard_normal((*shape[:-1], 4)))
    np.testing.assert_allclose(F.linear(x, weight), np.einsum("...i,oi->...o", x, weight), rtol=1e-11)
    np.testing.assert_allclose(F.linear(x, weight, bias), np.einsum("...i,oi->...o", x, weight) + bias, rtol=1e-11)
    np.testing.assert_allclose(F.linear_input_gradient(dy, weight), np.einsum("...o,oi->...i", dy, weight), rtol=1e-11)
    expected = np.einsum("mo,mi->oi", dy.reshape(-1, 4), x.reshape(-1, 7))
    np.testing.assert_allclose(F.linear_weight_gradient(dy, x), expected, rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_over_rows(rng, dtype):
    for shape in ((3, 4, 5), (6, 5), (5,)):
        x = rng.standard_normal(shape).astype(dtype)
        wide = x.astype("float64")
        np.testing.assert_allclose(F.sum_over_rows(x), wide.reshape(-1, 5).sum(0), rtol=1e-5)
        assert F.sum_over_rows(x).dtype == dtype


def test_a_product_takes_the_last_two_axes(rng):
    a, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))
    np.testing.assert_allclose(F.matmul(a, b), np.einsum("bij,bjk->bik", a, b), rtol=1e-12)


# ---- activations ----------------------------------------------------------------------------------------------------


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("name, plain", [("gelu", gelu), ("gelu_tanh", gelu_tanh)])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-14), ("float32", 1e-6)])
def test_activations_and_their_slopes(name, plain, dtype, tolerance):
    x = np.linspace(-4, 4, 999).reshape(3, 9, 37).astype(dtype)
    wide = x.astype("float64")
    y, found = getattr(F, f"{name}_with_slope")(x)
    np.testing.assert_allclose(getattr(F, name)(x), plain(wide), rtol=0, atol=tolerance)
    np.testing.assert_allclose(y, plain(wide), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found, slope(plain, wide), rtol=0, atol=max(tolerance, 1e-9))
    assert y.dtype == found.dtype == dtype


def test_the_gradient_of_an_activation_is_the_slope_times_that_of_its_result(rng):
    dy, slopes = rng.standard_normal((2, 3, 5))
    np.testing.assert_allclose(F.gelu_backward(dy, slopes), dy * slopes, rtol=1e-15)


# ---- softmax --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_softmax_along_each_axis(rng, axis):
    for x in (rng.standard_normal((3, 4, 5)), 100 * rng.standard_normal((3, 4, 5))):
        y, dy = F.softmax(x, axis), rng.standard_normal((3, 4, 5))
        np.testing.assert_allclose(y, softmax(x, axis), rtol=1e-12)
        expected = y * (dy - (dy * y).sum(axis, keepdims=True))
        np.testing.assert_allclose(F.softmax_backward(dy, y, axis), expected, rtol=1e-12)


def test_softmax_and_its_backward_take_the_last_axis_unless_told(rng):
    x, dy = rng.standard_normal((2, 3, 3, 3))
    assert np.array_equal(F.softmax(x), F.softmax(x, -1))
    assert np.array_equal(F.softmax_backward(dy, F.softmax(x)), F.softmax_backward(dy, F.softmax(x), -1))


@pytest.mark.parametrize("scale", [1, 30, 45, 79, 100, 1e4])
def test_softmax_of_many_scores_of_one_size_is_even(scale):
    """Also where their exponentials fit into float32 and the sum would not."""
    for sign in (1, -1):
        y = F.softmax(np.full((2, 20_000), sign * scale, np.float32))
        np.testing.assert_allclose(y, 1 / 20_000, rtol=1e-4)


def test_softmax_of_an_empty_array_is_empty():
    assert F.softmax(np.empty((0, 5))).shape == (0, 5)
    assert F.softmax_(np.empty((2, 0, 5), np.float32)).shape == (2, 0, 5)


def test_softmax_cross_entropy_is_minus_the_mean_log_and_its_gradient_the_difference_quotient(rng):
    x, target, total = rng.standard_normal((3, 5)), rng.random((3, 5)), 7.0
    loss, gradient = F.softmax_cross_entropy(x, target, total)
    np.testing.assert_allclose(loss, -(target * np.log(softmax(x))).sum() / total, rtol=1e-10)
    for place in np.ndindex(3, 5):
        h = np.zeros((3, 5))
        h[place] = 1e-6
        quotient = F.softmax_cross_entropy(x + h, target, total)[0] - F.softmax_cross_entropy(x - h, target, total)[0]
        np.testing.assert_allclose(gradient[place], quotient / 2e-6, atol=1e-8)


def test_log_softmax_is_the_logarithm_of_softmax(rng):
    for x in (rng.standard_normal((3, 4, 5)), 30 * rng.standard_normal((6, 5))):
        np.testing.assert_allclose(F.log_softmax(x), np.log(softmax(x)), rtol=1e-10)


# ---- attention ------------------------------------------------------------------------------------------------------

SHAPES = {  # of q, k and v
    "one head": [(4, 3), (6, 3), (6, 5)],
    "heads": [(2, 4, 3), (2, 6, 3), (2, 6, 5)],
    "batch and heads": [(3, 2, 4, 3), (3, 2, 6, 3), (3, 2, 6, 5)],
    "one query": [(3, 2, 1, 3), (3, 2, 6, 3), (3, 2, 6, 3)],
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
def test_attention_and_its_backward(rng, shapes, biased, masked):
    q, k, v = (rng.standard_normal(shape) for shape in SHAPES[shapes])
    scores = (*q.shape[:-1], k.shape[-2])
    bias = rng.standard_normal(scores) if biased else None
    keep = (rng.random(scores) > 0.3) / 0.7 if masked else None
    p = softmax(0.6 * np.einsum("...id,...jd->...ij", q, k) + (bias if biased else 0))
    w = p * keep if masked else p
    out, found = F.attention(q, k, v, 0.6, bias, keep)
    np.testing.assert_allclose(found, p, rtol=1e-11)
    np.testing.assert_allclose(out, np.einsum("...ij,...jd->...id", w, v), rtol=1e-11, atol=1e-13)
    dout = rng.standard_normal(out.shape)
    dp = np.einsum("...id,...jd->...ij", dout, v) * (keep if masked else 1)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    expected = {
        "dq": 0.6 * np.einsum("...ij,...jd->...id", ds, k),
        "dk": 0.6 * np.einsum("...ij,...id->...jd", ds, q),
        "dv": np.einsum("...ij,...id->...jd", w, dout),
        "ds": ds,
    }
    for name, array in zip(expected, F.attention_backward(dout, q, k, v, p, 0.6, keep)):
        np.testing.assert_allclose(array, expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_a_bias_of_attention_is_shared_by_what_it_does_not_name(rng):
    q, k, v = rng.standard_normal((3, 2, 3, 4, 5))
    bias = rng.standard_normal((3, 4, 4))
    expected, _ = F.attention(q, k, v, 0.5, np.broadcast_to(bias, (2, 3, 4, 4)).copy())
    np.testing.assert_allclose(F.attention(q, k, v, 0.5, bias)[0], expected, rtol=1e-13)


def test_heads_are_consecutive_parts_of_the_width_and_join_again(rng):
    x = rng.standard_normal((2, 3, 24))
    parts = F.split_heads(x, 3, 4)
    assert parts.shape == (3, 2, 4, 3, 2)
    assert np.array_equal(parts[1, :, 2], x[:, :, 8 + 4 : 8 + 6])
    assert np.array_equal(F.join_heads(list(parts)), x)
    assert np.array_equal(F.join_heads((parts[2],)), x[:, :, 16:])


@pytest.mark.parametrize("kernels", ["plain", "numpy"])
def test_gradients_of_attention_are_written_where_the_heads_are_joined(rng, kernels):
    (q, k, v, dout), p = rng.standard_normal((4, 2, 3, 5, 4)), rng.random((2, 3, 5, 5))
    joined = np.full((2, 5, 3 * 3 * 4), np.nan)
    with nv.kernels(kernels):
        *gradients, ds = F.attention_backward(dout, q, k, v, p, 0.5)
        *_, found = F.attention_backward(dout, q, k, v, p, 0.5, out=F.split_heads(joined, 3, 3))
    np.testing.assert_allclose(joined, F.join_heads(gradients), rtol=1e-12, atol=1e-13)
    assert np.array_equal(found, ds)


def test_the_result_of_attention_is_joined_without_a_copy(rng):
    """It is laid out for it: with features after tokens as well as before them."""
    x = rng.standard_normal((2, 5, 24))
    for array in (x, np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)):
        q, k, v = F.split_heads(array, 3, 4)
        out, _ = F.attention(q, k, v, 0.5)
        assert np.shares_memory(F.join_heads((out,)), out)


# ---- layer norm, dropout, patches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-6, 0.3])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 5, 8)], ids=str)
def test_layer_norm_and_its_backward(rng, shape, eps):
    x, dy = 3 + 2 * rng.standard_normal(shape), rng.standard_normal(shape)
    weight, bias = rng.standard_normal((2, 8))
    r = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    hat = (x - x.mean(-1, keepdims=True)) * r
    y, xhat, rstd = F.layer_norm(x, weight, bias, eps)
    np.testing.assert_allclose(y, weight * hat + bias, rtol=1e-11)
    np.testing.assert_allclose(xhat, hat, rtol=1e-11)
    np.testing.assert_allclose(rstd.ravel(), r.ravel(), rtol=1e-12)
    g = weight * dy
    dx, dweight, dbias = F.layer_norm_backward(dy, weight, xhat, rstd)
    expected = r * (g - g.mean(-1, keepdims=True) - hat * (g * hat).mean(-1, keepdims=True))
    np.testing.assert_allclose(dx, expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(dweight, (dy * hat).reshape(-1, 8).sum(0), rtol=1e-10)
    np.testing.assert_allclose(dbias, dy.reshape(-1, 8).sum(0), rtol=1e-10)


def test_a_dropout_mask_keeps_draws_from_the_rate_on():
    draws = [0.0, 0.125, 0.25, 0.375, 0.5, 0.999]
    mask = F.dropout_mask(Draws(draws), (2, 3), 0.25, np.float32)
    assert np.array_equal(mask, np.float32([[0, 0, 4 / 3], [4 / 3, 4 / 3, 4 / 3]])) and mask.dtype == np.float32
    assert np.array_equal(F.dropout_mask(Draws(draws), (6,), 0.0, np.float64), np.ones(6))
    assert np.array_equal(F.dropout_mask(Draws(draws), (6,), 1.0, np.float64), np.zeros(6))


def test_patches_are_cut_row_by_row_with_channels_first_inside(rng):
    x = rng.standard_normal((2, 3, 4, 6))
    patches = F.im2col(x, (2, 3))
    assert patches.shape == (2, 4, 18)
    for i in range(2):
        for j in range(2):
            patch = x[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            assert np.array_equal(patches[:, 2 * i + j], patch.reshape(2, 18))
    assert np.array_equal(F.col2im(patches, (2, 3), x.shape), x)


# ---- what all keep to -----------------------------------------------------------------------------------------------


def _calls(rng):
    """(name, arguments) of every function of the arithmetic on arrays; those whose name ends in _ work in place."""
    x, dy, y = rng.standard_normal((3, 2, 6, 8))
    weight, bias, gamma = rng.standard_normal((4, 8)), rng.standard_normal(4), rng.standard_normal(8)
    q, k, v, dout = rng.standard_normal((4, 2, 3, 6, 5))
    scores, keep = rng.standard_normal((2, 3, 6, 6)), np.ones((2, 3, 6, 6))
    images = rng.standard_normal((2, 3, 4, 6))
    yield from (("matmul", (x, y.swapaxes(-1, -2))), ("rows", (x,)))
    yield from (("linear", (x, weight)), ("linear", (x, weight, bias)), ("linear", (np.asfortranarray(x[0]), weight)))
    yield from (("linear_input_gradient", (dy[..., :4], weight)), ("linear_weight_gradient", (dy, x)))
    yield from ((name, (x,)) for name in ("sum_over_rows", "gelu", "gelu_with_slope"))
    yield from ((name, (x,)) for name in ("gelu_tanh", "gelu_tanh_with_slope", "softmax", "log_softmax"))
    yield from (("softmax", (100 * x, 1)), ("gelu_backward", (dy, x)), ("softmax_backward", (dy, y)))
    yield "softmax_cross_entropy", (x[0], np.abs(y[0]), 3.0)
    yield from (("attention", (q, k, v, 0.5)), ("attention", (q, k, v, 0.5, scores, keep)))
    yield from (("attention_backward", (dout, q, k, v, scores, 0.5, m)) for m in (None, keep))
    yield from (("split_heads", (x, 2, 2)), ("join_heads", ((q, k, v),)))
    yield from (
        ("sine_features", (x, 6)),
        ("sine_features_backward", (x, y[..., 0])),
    )
    yield from (("sigmoid", (x,)), ("sigmoid_backward", (dy, y)))
    yield "standardize", (x, 1e-6)
    yield "standardize_backward", (dy, y, np.abs(rng.standard_normal((2, 6, 1))))
    yield "layer_norm", (x, gamma, gamma, 1e-6)
    yield "layer_norm_backward", (dy, gamma, y, np.abs(rng.standard_normal((2, 6, 1))))
    kernel, places = rng.standard_normal((5, 3, 3, 3)), ((1, 2), (1, 0), (1, 1))
    maps = F.conv2d(images, kernel, None, *places)
    yield from (("conv2d", (images, kernel, dy[0, 0, :5], *places)), ("out_size", (images.shape, (3, 3), *places)))
    yield from (("conv2d_input_gradient", (maps, kernel, images.shape, p, (1, 1), (1, 1))) for p in ((1, 1), (1, 2)))
    yield "conv2d_weight_gradient", (maps, images, (3, 3), *places)
    pooled = F.max_pool2d(images, (3, 3), *places[:2])
    yield from (("max_pool2d", (images, (3, 3), *places[:2])), ("on_map", (bias,)))
    yield "max_pool2d_backward", (pooled, images, pooled, (3, 3), *places[:2])
    yield "group_norm", (images, gamma[:3], gamma[:3], 3, 1e-5)
    yield "group_norm_backward", (images, gamma[:3], images, np.abs(rng.standard_normal((2, 3, 1))))
    yield from (("im2col", (images, (2, 3))), ("col2im", (F.im2col(images, (2, 3)), (2, 3), images.shape)))


def _arrays(arguments):
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            yield argument
        elif isinstance(argument, (tuple, list)):
            yield from _arrays(argument)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_function_changes_an_array_it_was_given_or_its_type(rng, dtype):
    def converted(value):
        if isinstance(value, np.ndarray):
            return value.astype(dtype)
        return tuple(map(converted, value)) if isinstance(value, tuple) else value

    for name, arguments in _calls(rng):
        arguments = converted(arguments)
        before = [array.copy() for array in _arrays(arguments)]
        result = getattr(F, name)(*arguments)
        assert all(map(np.array_equal, before, _arrays(arguments))), f"{name} changed what it was given"
        assert all(array.dtype == dtype for array in _arrays([result])), f"{name} gives another type"


WINDOWS = set(vars(F.windows)) & set(F.__all__)  # rearrangements, with tests of their own
BOXES = set(vars(F.boxes)) & set(F.__all__)  # tested in test_boxes.py


def test_every_public_function_is_among_those_calls(rng):
    public = {
        name
        for name, value in vars(F).items()
        if callable(value) and getattr(value, "__module__", "").startswith(F.__name__) and name in F.__all__
    }
    in_place = {"softmax_", "adamw_"}  # the latter is tested in test_optim.py
    assert public - {name for name, _ in _calls(rng)} <= {"dropout_mask", "mask_bias"} | in_place | WINDOWS | BOXES
