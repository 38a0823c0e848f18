"""Every layer of the case table against the same claims."""

from functools import partial

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.backend import to_host
from numpyvit.errors import ConfigError, DtypeError, ShapeError
from numpyvit.layers import (
    GELU,
    Attention,
    Block,
    Dropout,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    PatchEmbed,
    ReLU,
    Softmax,
    Tanh,
)
from numpyvit.testing import gradcheck, randomize, stand_in
from numpyvit.testing.cases import LAYERS, MODELS

ALL = [pytest.param(case, id=case.name.replace(" ", "-")) for case in LAYERS + MODELS]


def first(y):
    return y[0] if isinstance(y, tuple) else y


def same_shape(y, fill):
    return tuple(fill(part) for part in y) if isinstance(y, tuple) else fill(y)


def waves(y):
    """A gradient for y in which no two neighbors are alike."""
    return np.cos(np.arange(1.0, y.size + 1)).reshape(y.shape)


@pytest.mark.parametrize("case", ALL)
def test_a_dtype_that_layers_cannot_have_is_an_error(case):
    with pytest.raises(ConfigError, match="dtype must be 'float32' or 'float64', got 'float16'"):
        case.build(dtype="float16", seed=0)


@pytest.mark.parametrize("case", ALL)
def test_backward_agrees_with_differences(case):
    errors = gradcheck(case.layer("float64"), case.x("float64"), seed=0 if case.dropout else None, rtol=case.rtol)
    assert "input 0" in errors


@pytest.mark.parametrize("case", ALL)
def test_gradients_of_two_passes_add_up(case):
    """Two forwards, then their backwards in reverse: each pass has its own dx, and what parameters get is the sum."""
    layer, x = case.layer("float64"), case.x("float64")
    inputs, tape = (x, 0.5 * x[::-1]), nv.Tape(layer)
    outputs = [layer.forward(x, tape) for x in inputs]
    dx = [layer.backward(same_shape(y, waves), tape) for y in reversed(outputs)]
    alone = [nv.Tape(layer), nv.Tape(layer)]
    for x, found, own in zip(inputs, reversed(dx), alone):
        expected = layer.backward(same_shape(layer.forward(x, own), waves), own)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    for name, gradient in tape.gradients().items():
        both = sum(own.gradients()[name] for own in alone)
        np.testing.assert_allclose(gradient, both, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", ALL)
def test_input_and_output_gradient_are_left_alone(case):
    layer, x = case.layer(), case.x()
    tape, before = nv.Tape(layer, seed=0), x.copy()
    y = layer.forward(x, tape)
    dy = same_shape(y, np.ones_like)
    layer.backward(dy, tape)
    assert np.array_equal(x, before)
    assert (first(dy) == 1).all()


def arrays_inside(values):
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from arrays_inside(value)


@pytest.mark.parametrize("case", ALL)
def test_float32_stays_float32(case):
    layer, x = case.layer("float32"), case.x("float32")
    tape = nv.Tape(layer, seed=0)
    y = layer.forward(x, tape)
    assert first(y).dtype == np.float32
    for owner, residuals in tape.residuals():
        for array in arrays_inside(residuals):
            assert array.dtype.kind != "f" or array.dtype == np.float32, f"{owner.path} keeps {array.dtype}"
    dx = layer.backward(same_shape(y, np.ones_like), tape)
    assert dx.dtype == np.float32
    assert all(gradient.dtype == np.float32 for gradient in tape.gradients().values())


@pytest.mark.parametrize("case", ALL)
def test_with_and_without_a_tape_agree(case):
    layer, x = case.layer(), case.x()
    on_tape = layer.forward(x, nv.Tape(layer))
    expected = (on_tape[0] + on_tape[1]) / 2 if isinstance(on_tape, tuple) else on_tape
    assert np.array_equal(layer(x), expected)


@pytest.mark.parametrize("case", ALL)
def test_frozen_parameters_get_no_slot_and_the_others_keep_their_gradient(case):
    layer, x = case.layer("float64"), case.x("float64")
    names = [name for name, _ in layer.named_parameters()]
    tape = nv.Tape(layer)
    y = layer.forward(x, tape)
    dx = layer.backward(same_shape(y, np.ones_like), tape)
    expected = tape.gradients()
    for frozen in names[::2]:
        dict(layer.named_parameters())[frozen].trainable = False
    tape = nv.Tape(layer)
    layer.forward(x, tape)
    dx_frozen = layer.backward(same_shape(y, np.ones_like), tape)
    assert list(tape.gradients()) == names[1::2]
    assert np.array_equal(dx, dx_frozen)
    for name, gradient in tape.gradients().items():
        assert np.array_equal(gradient, expected[name])


class Adds(nv.Tape):
    """Tells what backward worked out."""

    def add(self, parameter, *gradient):
        self.added = [*getattr(self, "added", []), parameter]
        super().add(parameter, *gradient)


@pytest.mark.parametrize("build", [partial(Linear, 8, 6), partial(LayerScale, 8), partial(PatchEmbed, 4, 2, 3, 8)])
def test_no_gradient_is_worked_out_for_a_frozen_parameter(rng, build):
    layer, x = build(), rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    x = x if isinstance(layer, PatchEmbed) else x.reshape(2, 6, 8)
    parameters = [parameter for _, parameter in layer.named_parameters()]
    for frozen in parameters:
        layer.unfreeze()
        frozen.trainable = False
        tape = Adds(layer)
        layer.backward(layer.forward(x, tape), tape)
        assert getattr(tape, "added", []) == [p for p in parameters if p is not frozen]


@pytest.mark.parametrize("case", ALL)
def test_arrays_that_are_not_contiguous_give_the_same(case):
    layer, x = case.layer(), case.x()
    tape = nv.Tape(layer)
    y = layer.forward(x, tape)
    dy = same_shape(y, lambda part: waves(part).astype(part.dtype))
    dx = layer.backward(dy, tape)
    for view in (np.repeat(x, 2, axis=-1)[..., ::2], np.asfortranarray(x)):
        found = layer.forward(view, tape)
        np.testing.assert_allclose(first(found), first(y), rtol=1e-5, atol=1e-6)
        found = layer.backward(same_shape(dy, np.asfortranarray), tape)
        np.testing.assert_allclose(found, dx, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ALL)
def test_a_batch_of_one_gives_the_first_row(case):
    if "axis 1" in case.name:
        pytest.skip("works along the tokens")
    layer, x = case.layer("float64"), case.x("float64")
    np.testing.assert_allclose(layer(x[:1]), layer(x)[:1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", ALL)
def test_other_array_modules_agree(case, xp):
    layer, x = case.layer("float64"), case.x("float64")
    tape = nv.Tape(layer)
    y = layer.forward(x, tape)
    dx = layer.backward(same_shape(y, np.ones_like), tape)
    expected = {name: g.copy() for name, g in tape.gradients().items()}
    layer.to(xp)
    tape = nv.Tape(layer)
    y_there = layer.forward(xp.asarray(x), tape)
    dx_there = layer.backward(same_shape(y_there, xp.ones_like), tape)
    np.testing.assert_allclose(to_host(first(y_there)), first(y), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(to_host(dx_there), dx, rtol=1e-12, atol=1e-13)
    for name, gradient in tape.gradients().items():
        np.testing.assert_allclose(to_host(gradient), expected[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", [c for c in ALL if c.values[0].dropout and c.values[0].layer().num_parameters()])
def test_dropout_runs_where_nothing_may_be_read_on_the_host(case):
    layer, x = case.layer().to(stand_in), stand_in.asarray(case.x())
    tape = nv.Tape(layer, seed=3)
    y = layer.forward(x, tape)
    layer.backward(y, tape)
    again = layer.forward(x, nv.Tape(layer, seed=3))
    assert np.array_equal(to_host(y), to_host(again))
    assert not np.array_equal(to_host(y), to_host(layer.forward(x, nv.Tape(layer, seed=4))))


# ---- single layers --------------------------------------------------------------------------------------------------


def test_dropout_scales_by_keep(rng):
    layer, x = Dropout(0.25), np.ones((200, 200), np.float32)
    y = layer.forward(x, nv.Tape(layer, seed=0))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 0.02


def test_dropout_of_everything_gives_zeros():
    layer = Dropout(1.0)
    assert (layer.forward(np.ones((3, 3), np.float32), nv.Tape(layer, seed=0)) == 0).all()


def test_dropout_is_off_without_a_seed_and_at_inference(rng):
    layer, x = Dropout(0.5), rng.standard_normal((4, 4))
    assert np.array_equal(layer(x), x)
    assert np.array_equal(layer.forward(x, nv.Tape(layer)), x)


def test_one_dropout_at_two_sites_keeps_two_masks():
    class Twice(nv.Layer):
        def __init__(self):
            self.drop = Dropout(0.5)

        def forward(self, x, tape=nv.FORGET):
            return self.drop.forward(self.drop.forward(x, tape) * 3, tape)

        def backward(self, dy, tape):
            return self.drop.backward(self.drop.backward(dy, tape) * 3, tape)

    gradcheck(Twice(), np.ones((8, 8)), seed=0, rtol=1e-7)


def test_drop_path_drops_whole_samples():
    layer = DropPath(0.5)
    y = layer.forward(np.ones((64, 3, 2), np.float32), nv.Tape(layer, seed=0))
    assert all(len(np.unique(sample)) == 1 for sample in y)
    assert set(np.unique(y)) == {np.float32(0), np.float32(2)}


def test_layer_norm_keeps_its_digits_far_from_zero(rng):
    x = rng.standard_normal((4, 64))
    layer = LayerNorm(64)
    near, far = layer(x.astype(np.float32)), layer((x + 100).astype(np.float32))
    np.testing.assert_allclose(near, far, atol=1e-4)


def test_layer_norm_eps_is_the_one_of_timm():
    assert LayerNorm(4).eps == 1e-6


def test_softmax_of_large_numbers_is_finite_on_any_axis():
    x = np.array([[1e4, -1e4], [-1e4, 1e4], [0, 1e4]])
    for axis in (0, 1):
        y = Softmax(axis)(x)
        np.testing.assert_allclose(y.sum(axis), 1)


def test_attention_does_not_see_a_shift_of_the_keys(rng):
    layer = Attention(8, 2, qkv_bias=True, dtype="float64")
    x = rng.standard_normal((2, 5, 8))
    before = layer(x)
    layer.qkv.bias.data[8:16] += 3.0
    np.testing.assert_allclose(layer(x), before, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("tokens", [1, 2, 5, 9])
@pytest.mark.parametrize(
    "build",
    [partial(Block, qkv_bias=True), Block, partial(Block, init_values=0.5), partial(Block, qk_norm=True)],
    ids=str,
)
def test_a_block_that_gives_its_first_tokens_gives_what_the_whole_block_gives_there(rng, build, tokens):
    block = randomize(build(8, 2, dtype="float64"))
    x, dy = rng.standard_normal((3, 5, 8)), rng.standard_normal((3, 5, 8))
    dy[:, tokens:] = 0
    whole, short = nv.Tape(block), nv.Tape(block)
    y, y_short = block.forward(x, whole), block.forward(x, short, tokens)
    assert y_short.shape[1] == min(tokens, 5)
    np.testing.assert_allclose(y_short, y[:, :tokens], rtol=1e-12)
    np.testing.assert_allclose(block.backward(dy[:, :tokens], short), block.backward(dy, whole), atol=1e-12)
    np.testing.assert_allclose(short.flat, whole.flat, atol=1e-12)
    assert short.pending == 0


def test_attention_treats_tokens_as_a_set(rng):
    layer = Attention(8, 2, dtype="float64")
    x, order = rng.standard_normal((2, 5, 8)), np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(layer(x[:, order]), layer(x)[:, order], rtol=1e-12)


def test_patch_embed_is_a_convolution(rng):
    layer = PatchEmbed((4, 6), (2, 3), 2, 5, dtype="float64")
    x = rng.standard_normal((3, 2, 4, 6))
    weight, bias = layer.proj.weight.data, layer.proj.bias.data
    for i in range(2):
        for j in range(2):
            patch = x[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            expected = np.einsum("bchw,dchw->bd", patch, weight) + bias
            np.testing.assert_allclose(layer(x)[:, 2 * i + j], expected, rtol=1e-12)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Attention(10, 3), "embed_dim=10 must be divisible by num_heads=3"),
        (lambda: PatchEmbed(30, 16), "must be divisible by patch_size"),
        (lambda: PatchEmbed((1, 2, 3), 1), "img_size must be"),
        (lambda: Dropout(1.5), "must lie in 0..1"),
        (lambda: Linear(2, 2, dtype="float16"), "float32"),
        (lambda: Linear(2, 2, dtype="nonsense"), "nonsense"),
        (lambda: GELU(dtype="float16"), "float32"),
        (lambda: DropPath(-0.1), "must lie in 0..1"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_shape_error_names_the_layer_by_its_path(rng):
    model = nv.create_model("vit_micro_patch2_8")
    with pytest.raises(ShapeError, match=r"blocks\.1\.mlp\.fc1 \(Linear\).*expected \(\.\.\., 64\)"):
        model.blocks[1].mlp(np.zeros((1, 17, 63), np.float32))
    with pytest.raises(ShapeError, match=r"patch_embed.*expected \(batch, 1, 8, 8\)"):
        model(np.zeros((1, 3, 8, 8), np.float32))


def test_a_block_by_itself_names_its_layers_too():
    with pytest.raises(ShapeError, match=r"norm1 \(LayerNorm\)"):
        Block(8, 2)(np.zeros((1, 3, 7), np.float32))


def test_a_tape_on_a_part_leaves_the_models_names_alone():
    model = nv.create_model("vit_micro_patch2_8")
    nv.Tape(model.blocks[1])
    assert model.blocks[1].attn.qkv.path == "blocks.1.attn.qkv (QKV)"


def test_layers_in_tuples_are_found_and_in_dicts_refused():
    class Holder(nv.Layer):
        def __init__(self, parts):
            self.parts = parts

    assert len(list(Holder((Linear(2, 2), Linear(2, 2))).named_parameters())) == 4
    with pytest.raises(ConfigError, match="use a list"):
        list(Holder({"a": Linear(2, 2)}).named_parameters())


def test_a_backward_without_a_tape_is_explained():
    with pytest.raises(nv.errors.TapeError, match="kept nothing"):
        Linear(2, 2).backward(np.ones((1, 2)), nv.FORGET)


@pytest.mark.parametrize("case", [pytest.param(*case.values, id=case.id) for case in ALL if case.id != "Identity"])
def test_integer_arrays_are_refused_by_every_layer(case):
    with pytest.raises(DtypeError, match="int64, expected floating point"):
        case.layer()(case.x().astype(np.int64))


@pytest.mark.parametrize("axes", [(1,), (2, 0)], ids=["fewer axes", "no batch of images"])
@pytest.mark.parametrize(
    "case", [pytest.param(*case.values, id=case.id) for case in ALL if len(case.values[0].shape) == 4]
)
def test_what_is_no_batch_of_maps_is_refused_by_every_layer_of_maps(case, axes):
    x = case.x()
    with pytest.raises(ShapeError, match=r"got .*shape \("):
        case.layer()(x[(0,) * len(axes)])


def test_integer_arrays_are_refused():
    with pytest.raises(DtypeError, match=r"int64.*float"):
        Linear(3, 3)(np.zeros((2, 3), np.int64))
    for layer in (GELU(), Softmax(), Dropout(0.5), Tanh(), ReLU()):
        with pytest.raises(DtypeError, match="floating point"):
            layer(np.arange(6).reshape(2, 3))
        with pytest.raises(DtypeError, match="expected an array"):
            layer([1.0, 2.0])
    with pytest.raises(DtypeError, match="uint8"):
        nv.create_model("vit_micro_patch2_8")(np.zeros((1, 1, 8, 8), np.uint8))


def test_every_layer_takes_dtype_and_seed():
    for layer in (
        GELU(dtype="float64", seed=1),
        DropPath(0.1, dtype="float64", seed=1),
        Softmax(dtype="float64", seed=1),
    ):
        assert isinstance(layer, nv.Layer)
    first, again, other = (Block(8, 2, seed=seed).attn.qkv.weight.data for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
