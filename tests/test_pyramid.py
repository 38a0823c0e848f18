"""The maps of all stages with a gradient at each: what a detector's neck or a segmentation head stands on."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.errors import ConfigError, TapeError
from numpyvit.layers import Linear, Sequence
from numpyvit.testing import gradcheck, randomize

SIZES = dict(img_size=16, patch_size=2, in_chans=2, num_classes=3, embed_dim=4, depths=(2, 1, 1), num_heads=(1, 2, 2))


def model_of(**options):
    return randomize(
        nv.SwinTransformer(**SIZES | dict(window_size=3, drop_path_rate=0, dtype="float64") | options), seed=3
    )


def gradients_by_stage(model, x, dlevels, **options):
    """One backward of the whole pyramid -> dx, the gradients, and the tape."""
    tape = nv.Tape(model, **options)
    model.pyramid(x, tape, stages=len(dlevels))
    return model.pyramid_backward(dlevels, tape), tape


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 2, 16, 16))


@pytest.fixture
def dlevels(rng):
    return [rng.standard_normal((2, 4 * 2**i, 8 // 2**i, 8 // 2**i)) for i in range(3)]


def test_the_levels_are_the_maps_after_each_stage(x):
    model = model_of()
    levels, tape = model.pyramid(x), nv.Tape(model)
    assert [level.shape for level in levels] == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2)]
    for level, same, again in zip(levels, model.forward_intermediates(x), model.pyramid(x, tape), strict=True):
        assert np.array_equal(level, same) and np.array_equal(level, again)
    np.testing.assert_array_equal(levels[-1].transpose(0, 2, 3, 1), model.features(x))
    assert [level.shape for level in model.pyramid(x, stages=2)] == [(2, 4, 8, 8), (2, 8, 4, 4)]


class Pyramid(nv.Layer):
    """The pyramid as a layer with several outputs, for gradcheck."""

    def __init__(self, model, stages=None):
        self.model, self.stages = model, stages

    def forward(self, x, tape):
        return tuple(self.model.pyramid(x, tape, self.stages))

    def backward(self, dy, tape):
        return self.model.pyramid_backward(dy, tape)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_gradient_at_every_stage_agrees_with_differences(x, checkpointing):
    model = model_of(drop_path_rate=0.3, proj_drop_rate=0.2)
    model.set_grad_checkpointing(checkpointing)
    model.freeze("norm*", "head*")
    gradcheck(Pyramid(model), x, seed=4)
    model.freeze("layers.2*")
    gradcheck(Pyramid(model, 2), x, seed=4)


def test_gradients_of_all_stages_add_up(x, dlevels):
    model = model_of()
    dx, tape = gradients_by_stage(model, x, dlevels)
    alone = [gradients_by_stage(model, x, [None] * i + [dlevels[i]]) for i in range(3)]
    np.testing.assert_allclose(dx, sum(part for part, _ in alone))
    np.testing.assert_allclose(tape.flat, sum(part.flat for _, part in alone), atol=1e-12)
    assert tape.pending == 0


def test_the_gradients_that_were_given_stay_as_they_are(x, dlevels):
    given = [dlevel.copy() for dlevel in dlevels]
    gradients_by_stage(model_of(), x, given)
    assert all(np.array_equal(a, b) for a, b in zip(given, dlevels))


def test_frozen_stages_keep_nothing_and_the_others_keep_their_gradients(x, dlevels):
    model = model_of()
    _, whole = gradients_by_stage(model, x, dlevels)
    model.freeze("patch_embed*", "layers.0*")
    tape = nv.Tape(model, input_gradient=False)
    model.pyramid(x, tape)
    frozen = {id(layer) for _, layer in model.layers[0].named_layers()}
    assert tape.pending and not any(id(layer) in frozen for layer, _ in tape.residuals())
    assert model.pyramid_backward(dlevels, tape) is None and tape.pending == 0
    found = tape.gradients()
    assert any(name.startswith("layers.1") for name in found)
    assert all(np.array_equal(gradient, whole.gradients()[name]) for name, gradient in found.items())


def test_recomputation_gives_the_same_gradients(x, dlevels):
    model = model_of(drop_path_rate=0.3, proj_drop_rate=0.2)
    dx, plain = gradients_by_stage(model, x, dlevels, seed=2)
    model.set_grad_checkpointing()
    again, tape = gradients_by_stage(model, x, dlevels, seed=2)
    assert np.array_equal(dx, again) and np.array_equal(plain.flat, tape.flat)


def test_a_sequence_gives_every_output_and_takes_a_gradient_at_each(rng):
    layers = Sequence(Linear(3, 3, dtype="float64", seed=i) for i in range(3))
    x, dys = rng.standard_normal((2, 3)), list(rng.standard_normal((3, 2, 3)))
    tape = nv.Tape(layers)
    outputs = layers.outputs(x, tape)
    assert len(outputs) == 3 and np.array_equal(outputs[-1], layers(x))
    dx = layers.outputs_backward(dys, tape)
    expected = 0
    for layer, dy in zip(reversed(list(layers)), reversed(dys)):
        expected = (expected + dy) @ layer.weight.data
    np.testing.assert_allclose(dx, expected)


def test_wrong_counts_are_refused(x, dlevels):
    model = model_of()
    for count in (0, 4, -1):
        with pytest.raises(ConfigError, match=r"layers \(Sequence\): got count=.*expected 1\.\.3"):
            model.pyramid(x, stages=count)
    with pytest.raises(TapeError, match="no gradient for the last output"):
        gradients_by_stage(model, x, [dlevels[0], None])
    tape = nv.Tape(model)
    model.pyramid(x, tape)
    with pytest.raises(TapeError, match="mirror forward"):
        model.pyramid_backward(dlevels[:2], tape)
