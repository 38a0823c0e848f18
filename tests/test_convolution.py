"""Convolution, pooling and the norms of maps: by their definitions, with bounded memory, with errors that help."""

import tracemalloc

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.errors import ConfigError, DtypeError, ShapeError
from numpyvit.layers import Conv2d, FrozenBatchNorm2d, GroupNorm, MaxPool2d
from numpyvit.layers.batch_norm import conv_norm, conv_norm_backward

PLACES = {  # kernel, stride, padding, dilation
    "same": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "strided": ((3, 2), (2, 3), (1, 0), (1, 1)),
    "dilated": ((2, 3), (1, 2), (2, 4), (3, 2)),
    "one pixel": ((1, 1), (2, 1), (0, 0), (1, 1)),
    "one pixel, padded": ((1, 1), (1, 1), (0, 1), (1, 1)),
    "one row": ((1, 2), (1, 1), (0, 0), (1, 1)),
    "one column": ((2, 1), (1, 1), (0, 0), (1, 1)),
    "padded beyond the kernel": ((2, 2), (1, 1), (3, 2), (1, 1)),
}


def windows(x, kernel, stride, padding, dilation, outside=0.0):
    """(row, column, pixels under the kernel (B, C, kh, kw)) for each y, one by one."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=outside)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    for h, top in enumerate(range(0, x.shape[2] - spans[0] + 1, stride[0])):
        for w, left in enumerate(range(0, x.shape[3] - spans[1] + 1, stride[1])):
            yield h, w, x[:, :, top : top + spans[0] : dilation[0], left : left + spans[1] : dilation[1]]


@pytest.mark.parametrize("chosen", ["plain", "numpy"])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_convolution_is_the_sum_over_the_pixels_under_the_kernel(rng, places, chosen):
    kernel, stride, padding, dilation = places
    x, weight, bias = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, *kernel)), rng.standard_normal(4)
    with nv.kernels(chosen):
        y = F.conv2d(x, weight, bias, stride, padding, dilation)
    count = 0
    for h, w, pixels in windows(x, *places):
        np.testing.assert_allclose(y[:, :, h, w], np.einsum("bcij,ocij->bo", pixels, weight) + bias, atol=1e-12)
        count += 1
    assert count == y.shape[2] * y.shape[3]
    assert y.shape[2:] == F.out_size(x.shape, *places)


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_its_gradients_are_its_adjoint(rng, places):
    """⟨dy, conv(x, W)⟩ = ⟨dx, x⟩ = ⟨dW, W⟩, the convolution being linear in both."""
    kernel, *rest = places
    x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, *kernel))
    y = F.conv2d(x, weight, None, *rest)
    dy = rng.standard_normal(y.shape)
    expected = (dy * y).sum()
    assert (F.conv2d_input_gradient(dy, weight, x.shape, *rest) * x).sum() == pytest.approx(expected, rel=1e-10)
    assert (F.conv2d_weight_gradient(dy, x, kernel, *rest) * weight).sum() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("places", [((3, 3), (2, 2), (1, 1)), ((2, 3), (2, 1), (0, 1)), ((2, 2), (3, 3), (0, 0))])
def test_pooling_takes_the_largest_pixel_and_its_gradient_the_first_of_equal_ones(rng, places):
    layer, x = MaxPool2d(*places), rng.integers(-9, -5, (2, 3, 7, 8)).astype(np.float64)
    tape = nv.Tape(layer)
    y = layer.forward(x, tape)
    dy, expected = rng.standard_normal(y.shape), np.zeros((2, 3, 9, 10))
    kernel, stride, padding = places
    for h, w, pixels in windows(x, *places, (1, 1), outside=-np.inf):
        assert np.array_equal(y[:, :, h, w], pixels.max((2, 3)))
        first = pixels.reshape(2, 3, -1).argmax(-1)
        for b, c in np.ndindex(2, 3):
            i, j = divmod(int(first[b, c]), kernel[1])
            expected[b, c, h * stride[0] + i, w * stride[1] + j] += dy[b, c, h, w]
    inside = expected[:, :, padding[0] : padding[0] + 7, padding[1] : padding[1] + 8]
    np.testing.assert_allclose(layer.backward(dy, tape), inside, atol=1e-12)


def test_pooling_by_two_needs_no_stride():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    assert MaxPool2d(2)(x).tolist() == [[[[5, 7], [13, 15]]]]


def test_group_norm_normalizes_each_group_of_each_image(rng):
    layer = GroupNorm(2, 6, dtype="float64")
    x = 5 + 3 * rng.standard_normal((2, 6, 5, 4))
    y = layer(x).reshape(2, 2, -1)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(-1), 1, rtol=1e-4)
    layer.weight.data[:], layer.bias.data[:] = np.arange(6), 1
    np.testing.assert_allclose(layer(x)[:, 3], 3 * y.reshape(x.shape)[:, 3] + 1)


def frozen_norm(rng, channels, dtype="float64"):
    norm = FrozenBatchNorm2d(channels, dtype=dtype)
    for _, buffer in norm.named_buffers():
        buffer.data[:] = rng.uniform(0.5, 2, channels)
    return norm


def test_a_frozen_batch_norm_uses_its_statistics_and_is_never_trained(rng):
    norm, x = frozen_norm(rng, 4), rng.standard_normal((2, 4, 3, 5))
    state = {name: array[:, None, None] for name, array in norm.state_dict().items()}
    assert [*state] == ["weight", "bias", "running_mean", "running_var"]
    scale = state["weight"] / np.sqrt(state["running_var"] + 1e-5)
    np.testing.assert_allclose(norm(x), (x - state["running_mean"]) * scale + state["bias"], atol=1e-12)
    assert not nv.Tape(norm).gradients() and norm.num_parameters() == 0
    assert norm.astype("float32")(x.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("bias", [True, False])
def test_a_frozen_batch_norm_behind_a_convolution_becomes_part_of_it(rng, bias):
    conv, norm = Conv2d(3, 4, 3, 2, 1, bias=bias, dtype="float64"), frozen_norm(rng, 4)
    x, tape = rng.standard_normal((2, 3, 7, 6)), nv.Tape(conv)
    y = conv_norm(conv, norm, x, tape)
    np.testing.assert_allclose(y, norm(conv(x)), atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx = conv_norm_backward(conv, norm, dy, tape)
    apart = nv.Tape(conv)
    conv.forward(x, apart)
    np.testing.assert_allclose(dx, conv.backward(norm.backward(dy, apart), apart), atol=1e-12)
    for name, gradient in tape.gradients().items():
        np.testing.assert_allclose(gradient, apart.gradients()[name], atol=1e-11)


def test_a_convolution_works_in_pieces_whatever_the_size_of_the_batch():
    weight = np.ones((16, 16, 3, 3), np.float32)
    places = ((1, 1), (1, 1), (1, 1))

    def beyond_its_result(images, rows):
        x = np.ones((images, 16, rows, 64), np.float32)
        calls = [
            lambda: F.conv2d(x, weight, None, *places),
            lambda: F.conv2d_input_gradient(x, weight, x.shape, *places),
            lambda: F.conv2d_weight_gradient(x, x, (3, 3), *places),
        ]
        peaks = []
        for call in calls:
            tracemalloc.start()
            kept = call()
            peaks.append(tracemalloc.get_traced_memory()[1] - kept.nbytes)
            tracemalloc.stop()
        return max(peaks)

    image, columns = 16 * 64 * 64 * 4, 9 * 16 * 64 * 64 * 4
    assert beyond_its_result(1, 64) < image + columns
    assert beyond_its_result(16, 64) < image + columns  # im2col at once would take 16 times the columns
    assert beyond_its_result(1, 1024) < 16 * image + columns  # and the padded image


def test_the_first_convolution_computes_no_gradient_of_images_that_nobody_wants(rng, monkeypatch):
    layer, x = Conv2d(3, 4, 3, dtype="float64"), rng.standard_normal((2, 3, 6, 5))
    expected = nv.Tape(layer)
    y = layer.forward(x, expected)
    assert layer.backward(np.ones_like(y), expected).shape == x.shape
    tape = nv.Tape(layer, input_gradient=False)
    layer.forward(x, tape)
    monkeypatch.setattr(F, "conv2d_input_gradient", None)
    assert layer.backward(np.ones_like(y), tape) is None
    assert np.array_equal(tape.flat, expected.flat)


def test_initial_values_are_uniform_within_the_root_of_the_pixels_under_the_kernel():
    """As PyTorch's: ±1/√(C·kh·kw) for weight and bias."""
    layer, bound = Conv2d(6, 4096, (3, 2)), 1 / 6
    for values in (layer.weight.data, layer.bias.data):
        assert 0.99 * bound < values.max() <= bound and -bound <= values.min() < -0.99 * bound
        assert abs(values.std() / (bound / 3**0.5) - 1) < 5 / values.size**0.5


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: Conv2d(3, 4, 3)(np.ones((2, 4, 8, 8))),
            ShapeError,
            r"Conv2d: got .*\(2, 4, 8, 8\), expected \(batch, 3,",
        ),
        (lambda: Conv2d(3, 4, 3)(np.ones((3, 8, 8))), ShapeError, r"expected \(batch, 3, rows, columns\)"),
        (lambda: Conv2d(3, 4, 3)(np.ones((2, 3, 8, 8), int)), DtypeError, "expected floating point"),
        (lambda: Conv2d(3, 4, 3, dilation=4)(np.ones((2, 3, 8, 8))), ShapeError, "8x8 pixels, .* larger images"),
        (lambda: Conv2d(3, 4, (1, 9))(np.ones((2, 3, 9, 8))), ShapeError, "9x8 pixels"),
        (lambda: Conv2d(3, 4, (9, 1))(np.ones((2, 3, 8, 9))), ShapeError, "8x9 pixels"),
        (lambda: MaxPool2d(3)(np.ones((2, 3, 2, 8))), ShapeError, "2x8 pixels"),
        (lambda: MaxPool2d(3)(np.ones((3, 8, 8))), ShapeError, r"MaxPool2d: got .*\(3, 8, 8\), expected \(batch, "),
        (lambda: MaxPool2d(3)(np.ones((2, 3, 8, 8), int)), DtypeError, "expected floating point"),
        (lambda: Conv2d(3, 4, 0), ConfigError, "kernel_size must be a positive int"),
        (lambda: Conv2d(3, 4, 3, stride=0), ConfigError, "stride must be a positive int"),
        (lambda: Conv2d(3, 4, 3, padding=-1), ConfigError, "padding must be an int of at least 0"),
        (lambda: Conv2d(3, 4, 3, dilation=(1, 2, 3)), ConfigError, "dilation must be a positive int"),
        (lambda: Conv2d(0, 4, 3), ConfigError, "in_chans must be an int of at least 1, got 0"),
        (lambda: Conv2d(3, 1.5, 3), ConfigError, "out_chans must be an int of at least 1, got 1.5"),
        (lambda: MaxPool2d(2, padding=2), ConfigError, "at most half of kernel_size=2"),
        (lambda: GroupNorm(4, 6), ConfigError, "num_channels=6 must be divisible by num_groups=4"),
        (lambda: GroupNorm(2, 6)(np.ones((2, 4, 8, 8))), ShapeError, r"expected \(batch, 6, rows, columns\)"),
        (lambda: FrozenBatchNorm2d(6)(np.ones((2, 4, 8, 8))), ShapeError, r"expected \(batch, 6, rows, columns\)"),
    ],
)
def test_errors_say_what_was_given_and_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()
