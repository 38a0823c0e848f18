"""The check itself, tested with wrong layers: each must be caught."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.errors import GradientError
from numpyvit.layers import Block, LayerNorm, Linear, Mlp, Softmax
from numpyvit.testing import gradcheck, gradcheck_loss, randomize


class DoubledBias(Linear):
    def backward(self, dy, tape):
        tape.add(self.bias, F.sum_over_rows(dy))
        return super().backward(dy, tape)


class TransposedWeightGradient(Linear):
    def backward(self, dy, tape):
        (x,) = tape.pop(self)
        tape.add(self.weight, F.linear_weight_gradient(dy, x).T)
        tape.add(self.bias, F.sum_over_rows(dy))
        return F.linear_input_gradient(dy, self.weight.data)


class OneEntryOff(Linear):
    def backward(self, dy, tape):
        dx = super().backward(dy, tape)
        tape.gradient(self.weight)[2, 3] *= 1.01
        return dx


class NoMean(LayerNorm):
    def backward(self, dy, tape):
        xhat, rstd = tape.pop(self)
        tape.add(self.weight, F.sum_over_rows(dy * xhat))
        tape.add(self.bias, F.sum_over_rows(dy))
        g = dy * self.weight.data
        return rstd.reshape(*dy.shape[:-1], 1) * (g - xhat * (g * xhat).mean(-1, keepdims=True))


class SwappedOrder(Block):
    def backward(self, dy, tape):
        dy = dy + self.norm1.backward(self.attn.backward(self.drop_path1.backward(dy, tape), tape), tape)
        return dy + self.norm2.backward(self.mlp.backward(self.drop_path2.backward(dy, tape), tape), tape)


class WrongSoftmaxAxis(Softmax):
    def forward(self, x, tape=nv.FORGET):
        e = np.exp(x - x.max(0, keepdims=True))
        y = e / e.sum(-1, keepdims=True)
        tape.push(self, y)
        return y


class ForgottenBias(Linear):
    def backward(self, dy, tape):
        (x,) = tape.pop(self)
        tape.add(self.weight, F.linear_weight_gradient(dy, x))
        return F.linear_input_gradient(dy, self.weight.data)


class ChangesTheGradientItWasGiven(Linear):
    def backward(self, dy, tape):
        dx = super().backward(dy, tape)
        dy *= 2
        return dx


class ChangesItsInput(Linear):
    def forward(self, x, tape=nv.FORGET):
        x += 1
        return super().forward(x, tape)


class LeavesResiduals(Linear):
    def forward(self, x, tape=nv.FORGET):
        tape.push(self, x)
        return super().forward(x, tape)


class SkippedLayer(Mlp):
    def backward(self, dy, tape):
        return self.fc1.backward(dy, tape)


MUTANTS = [
    (DoubledBias(8, 6), "bias"),
    (TransposedWeightGradient(8, 8), "weight"),
    (OneEntryOff(8, 6), "weight"),
    (NoMean(8), "input 0"),
    (ForgottenBias(8, 6), "bias"),
    (ChangesTheGradientItWasGiven(8, 6), "changed the gradient"),
    (ChangesItsInput(8, 6), "changed in place"),
    (LeavesResiduals(8, 6), "left the residuals"),
    (WrongSoftmaxAxis(), "input 0"),
]


@pytest.mark.parametrize("layer, named", MUTANTS, ids=[type(layer).__name__ for layer, _ in MUTANTS])
def test_a_wrong_layer_is_caught_and_the_array_named(rng, layer, named):
    with pytest.raises(GradientError, match=named):
        gradcheck(randomize(layer), rng.standard_normal((3, 5, 8)))


@pytest.mark.parametrize("layer", [SwappedOrder(8, 2), SkippedLayer(8, 8)])
def test_a_backward_out_of_order_is_caught_by_the_tape(rng, layer):
    with pytest.raises(nv.errors.TapeError, match="mirror forward"):
        gradcheck(randomize(layer), rng.standard_normal((2, 3, 8)))


def test_one_entry_off_in_a_large_matrix_is_caught(rng):
    with pytest.raises(GradientError, match="weight"):
        gradcheck(randomize(OneEntryOff(64, 64)), rng.standard_normal((8, 64)))


def test_a_gradient_off_by_the_number_of_tokens_is_caught(rng):
    def mean_over_tokens(logits):
        return (logits * logits).sum() / 5, 2 * logits

    with pytest.raises(GradientError):
        gradcheck_loss(mean_over_tokens, rng.standard_normal((3, 5)))


def test_a_wrong_loss_gradient_names_the_second_head(rng):
    def loss(heads):
        a, b = heads
        return (a * b).sum(), (b, b)

    with pytest.raises(GradientError, match="input 1"):
        gradcheck_loss(loss, tuple(rng.standard_normal((2, 3, 4))))


def test_the_callers_layer_and_input_are_left_alone(rng):
    layer, x = Linear(4, 4), rng.standard_normal((2, 4)).astype(np.float32)
    before, x_before = layer.weight.data.copy(), x.copy()
    gradcheck(layer, x)
    assert layer.weight.data.dtype == np.float32
    assert np.array_equal(layer.weight.data, before)
    assert np.array_equal(x, x_before)


def test_default_weights_pass_too(rng):
    """Published initial values, as small as 1e-6 for the class token, leave the check its digits."""
    model = nv.create_model("vit_micro_patch2_8", dtype="float64", depth=2, drop_path_rate=0.2)
    errors = gradcheck(model, rng.standard_normal((4, 1, 8, 8)), seed=1)
    assert {"cls_token", "pos_embed", "blocks.1.attn.qkv.bias"} <= errors.keys()


def test_the_key_bias_whose_gradient_is_zero_passes(rng):
    layer = randomize(nv.layers.Attention(8, 2, qkv_bias=True, dtype="float64"))
    tape, x = nv.Tape(layer), rng.standard_normal((2, 5, 8))
    layer.backward(layer.forward(x, tape), tape)
    assert np.abs(tape.gradients()["qkv.bias"][8:16]).max() < 1e-12
    gradcheck(layer, x, rtol=1e-7)


def test_the_output_gradient_is_not_the_input_that_a_caller_draws():
    """With dy = x the gradient of a norm by x is exactly 0, and a wrong one could hide."""
    x = np.random.default_rng(0).standard_normal((2, 5, 8))

    class Keeps(Linear):
        def backward(self, dy, tape):
            assert not np.allclose(dy[:2], x[:2])
            return super().backward(dy, tape)

    gradcheck(Keeps(8, 8), x)
