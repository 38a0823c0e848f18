"""nv.Predictor: as the model, made ready once."""

import gc
import itertools
import weakref

import numpy as np
import pytest
from conftest import TINY, call_in_threads, tiny

import numpyvit as nv
from numpyvit.errors import ConfigError, NumpyvitError, ShapeError
from numpyvit.models.folding import folded
from numpyvit.testing.cases import MODELS
from numpyvit.training.nested import arrays, join

pytestmark = pytest.mark.usefixtures("little_work_is_shared")


def _model(case, dtype="float32"):
    """With norms and statistics as after training, not ones and zeros."""
    model = case.layer(dtype)
    return getattr(model, "detector", model)


def _check(found, expected, tolerance):
    """Differences relative to the largest number of each output."""
    for y, z in zip(arrays(found), arrays(expected), strict=True):
        assert y.shape == z.shape and y.dtype == z.dtype
        np.testing.assert_allclose(y, z, rtol=0, atol=tolerance * np.abs(z).max())


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_a_predictor_gives_what_its_model_gives(case):
    model, x = _model(case, "float64"), case.x("float64", 5)
    predictor = nv.Predictor(model, threads=2)
    expected = model(x)
    _check(predictor(x), expected, 1e-12)
    _check(join([predictor(x[i : i + 1]) for i in range(5)]), expected, 1e-12)


def _as_after_training(model):
    """Norms, LayerScale and statistics that are not ones and zeros."""
    rng = np.random.default_rng(0)
    for name, array in [*model.named_parameters(), *model.saved_buffers()]:
        if array.data.ndim == 1:
            positive = name.endswith(("weight", "gamma", "running_var"))
            array.data[...] = rng.uniform(0.3, 1.7, array.data.shape) - (0 if positive else 1)
    return model


FAMILIES = {
    "vit_micro_patch7_28": {},
    "vit_micro_patch4_32": dict(representation_size=32),
    "vit_tiny_patch16_224": dict(img_size=64),
    "deit_tiny_distilled_patch16_224": dict(img_size=64),
    "deit3_small_patch16_224": dict(img_size=64, depth=4),
    "vit_small_patch14_dinov2": dict(img_size=56, depth=4),
    "vit_small_patch14_reg4_dinov2": dict(img_size=56, depth=4, num_classes=9, dynamic_img_size=True),
    "swin_micro_patch2_window4_32": {},
    "resnet18": dict(img_size=64),
    "detr_micro_64": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_in_float32_it_is_off_by_the_last_digits_alone(name, rng):
    model = _as_after_training(nv.create_model(name, **FAMILIES[name]))
    x = rng.standard_normal((3, *model.input_shape), np.float32)
    _check(nv.Predictor(model)(x), model(x), 1e-6)


def _vit(**options):
    return _as_after_training(tiny(**options))


def _images(rng, batch=6):
    return rng.standard_normal((batch, 1, 8, 8), np.float32)


@pytest.mark.parametrize("batch", [1, 6])
def test_it_follows_the_model_only_when_told(batch, rng):
    model, x = _vit(), _images(rng, batch)
    predictor, before = nv.Predictor(model), model(x)
    for _, parameter in model.named_parameters():
        parameter.data[...] *= 1.5
    _check(predictor(x), before, 1e-6)
    assert np.abs(model(x) - before).max() > 1e-2
    predictor.refresh()
    _check(predictor(x), model(x), 1e-6)


def test_it_follows_a_model_that_got_other_parts(rng):
    model, x = _vit(), _images(rng)
    predictor = nv.Predictor(model)
    model.head = nv.layers.Linear(8, 5, seed=3)
    assert predictor(x).shape == (6, 3)
    predictor.refresh()
    _check(predictor(x), model(x), 1e-6)


def test_it_needs_the_model_no_more(rng):
    model, x = _vit(), _images(rng)
    predictor, expected, gone = nv.Predictor(model), model(x), weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    predictor.refresh()
    _check(predictor(x), expected, 1e-6)


def test_the_model_stays_as_it_is(rng):
    model, x = _vit(), _images(rng)
    arrays_before, state, expected = [p.data for _, p in model.named_parameters()], model.state_dict(), model(x)
    predictor = nv.Predictor(model)
    predictor(x)
    predictor.refresh()
    assert all(p.data is array for (_, p), array in zip(model.named_parameters(), arrays_before, strict=True))
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())
    assert np.array_equal(model(x), expected)


@pytest.mark.parametrize("batch", [1, 6])
def test_results_are_the_callers_own(batch, rng):
    predictor, x = nv.Predictor(_vit()), _images(rng, batch)
    first = predictor(x)
    kept, given = first.copy(), x.copy()
    second = predictor(x + 1)
    assert np.array_equal(first, kept) and not np.shares_memory(first, second)
    first[...] = 0
    assert np.array_equal(predictor(x), kept) and np.array_equal(x, given)


def test_many_callers_at_once_get_what_one_gets(rng):
    predictor, x = nv.Predictor(_vit(), threads=2), _images(rng, 16)
    expected = predictor(x), predictor(x[:1])
    found = call_in_threads(4, lambda: [(predictor(x), predictor(x[:1])) for _ in range(5)])
    assert all(np.array_equal(a, b) for results in found for pair in results for a, b in zip(pair, expected))


def test_callers_meanwhile_get_the_former_weights_or_the_new_ones(rng):
    model, x = _vit(), _images(rng, 1)
    predictor, turns = nv.Predictor(model, threads=1), itertools.count()
    before = predictor(x)
    for _, parameter in model.named_parameters():
        parameter.data[...] *= 1.5
    after = nv.Predictor(model, threads=1)(x)

    def work():
        if next(turns) == 0:
            return [predictor.refresh() for _ in range(5)] and []
        return [predictor(x) for _ in range(20)]

    found = [y for results in call_in_threads(3, work) for y in results]
    assert len(found) == 40 and all(np.array_equal(y, before) or np.array_equal(y, after) for y in found)


def test_the_result_of_a_batch_does_not_depend_on_threads(rng):
    model, x = _vit(), _images(rng, 16)
    expected = nv.Predictor(model, threads=1)(x)
    assert all(np.array_equal(nv.Predictor(model, threads)(x), expected) for threads in (2, 3, 8, None))


def test_errors_are_the_models(rng):
    model = _vit()
    predictor = nv.Predictor(model)
    for wrong in (np.zeros((1, 1, 8, 9), np.float32), np.zeros((1, 8), np.float32), np.zeros((2, 1, 8, 8), int)):
        with pytest.raises(NumpyvitError) as expected:
            model(wrong)
        with pytest.raises(type(expected.value), match=r"^patch_embed \(PatchEmbed\): ") as found:
            predictor(wrong)
        assert str(found.value) == str(expected.value)
    with pytest.raises(ConfigError, match="threads must be an int of at least 1, got 0"):
        nv.Predictor(model, threads=0)


def test_an_error_inside_names_the_layer(rng):
    model = _vit()
    model.blocks[1].mlp.fc2 = nv.layers.Linear(9, 8)
    with pytest.raises(ShapeError, match=r"^blocks\.1\.mlp\.fc2 \(Linear\): "):
        nv.Predictor(model)(_images(rng))


def test_compiled_kernels_give_the_same(rng):
    pytest.importorskip("numba")
    for name in ("vit_micro_patch7_28", "swin_micro_patch2_window4_32"):
        model = _as_after_training(nv.create_model(name))
        x = rng.standard_normal((3, *model.input_shape), np.float32)
        expected = model(x)
        with nv.kernels("fast"):
            predictor = nv.Predictor(model)
            _check(predictor(x), expected, 2e-6)
            _check(predictor(x[:1]), expected[:1], 2e-6)


# ---- what is folded, and what is not --------------------------------------------------------------------------------


def _kinds(model):
    return [type(layer).__name__ for _, layer in folded(model).named_layers()]


def test_no_norm_scales_or_shifts_in_front_of_a_product():
    assert _kinds(_vit()).count("Standardize") == 5
    assert not {"LayerNorm", "GELU"} & {*_kinds(_vit())}
    kinds = _kinds(nv.create_model("swin_micro_patch2_window4_32"))
    assert kinds.count("LayerNorm") == 1  # behind the patches, where the residual stream begins
    assert not {"FrozenBatchNorm2d"} & {*_kinds(nv.create_model("resnet18"))}
    assert not {"LayerScale"} & {*_kinds(nv.create_model("deit3_small_patch16_224", depth=1))}


def test_the_biases_of_keys_and_values_are_gone():
    attention = folded(_vit()).blocks[0].attn
    assert attention.scale == 1 and attention.qkv.bias.data.shape == (8,)


class _Head(nv.layers.Linear):
    """One's own layer, which looks at its input in another way."""

    def forward(self, x, tape=nv.FORGET):
        return super().forward(x * x, tape)


class _Qkv(nv.layers.QKV):
    def forward(self, x, tape=nv.FORGET, first=None):
        return super().forward(x + 1, tape, first)


class _Block(nv.layers.Block):
    """Reads a part of its attention, not the whole."""

    takes_first = False

    def forward(self, x, tape=nv.FORGET):
        return x + self.attn.qkv.forward(self.norm1.forward(x, tape), tape)[..., 8:16]


class _Reader(nv.VisionTransformer):
    """One's own model, which reads a norm's result elsewhere too."""

    def forward(self, x, tape=nv.FORGET):
        return self.forward_features(x).sum(1)


def test_layers_of_ones_own_are_run_as_they_are(rng):
    model, x = _vit(), _images(rng)
    model.head, model.blocks[0].attn.qkv = _Head(8, 3, seed=1), _Qkv(8)
    model.blocks[1] = _Block(8, 2, qkv_bias=True, seed=2)
    _as_after_training(model)
    _check(nv.Predictor(model)(x), model(x), 1e-6)


def test_a_model_of_ones_own_is_run_as_it_is(rng):
    model, x = _as_after_training(_Reader(**TINY)), _images(rng)
    assert np.array_equal(nv.Predictor(model, threads=1)(x), nv.infer(model, x, threads=1))


def test_what_stands_in_two_places_is_not_folded_twice(rng):
    model, x = _vit(depth=3), _images(rng)
    first, _, third = model.blocks
    model.blocks[1] = first  # the whole block
    third.mlp.fc1 = first.mlp.fc1  # a layer of it
    third.norm1.weight = third.norm2.weight  # an array
    _check(nv.Predictor(model)(x), model(x), 1e-6)


def test_a_checkpointed_model_is_folded(rng):
    model, x = _vit(), _images(rng)
    model.set_grad_checkpointing()
    _check(nv.Predictor(model)(x), model(x), 1e-6)


def test_who_observes_the_model_does_not_observe_the_predictor(rng):
    model, x, seen = _vit(), _images(rng), []
    expected = model(x)
    with nv.core.observing(model, lambda name, layer, y: seen.append(name)):
        predictor = nv.Predictor(model)
        _check(predictor(x), expected, 1e-6)
    assert not seen


def test_convolutions_are_laid_out_as_they_are_multiplied():
    for _, layer in folded(nv.create_model("resnet18", img_size=32)).named_layers():
        if isinstance(layer, nv.layers.Conv2d):
            assert layer.weight.data.transpose(2, 0, 3, 1).flags.c_contiguous
