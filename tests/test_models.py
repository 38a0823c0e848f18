from functools import partial

import numpy as np
import pytest
from conftest import TINY, tiny

import numpyvit as nv
from numpyvit.errors import ConfigError, InputError, ShapeError
from numpyvit.models import count_parameters
from numpyvit.testing.cases import MODELS

PUBLISHED = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_large_patch32_224": 306_535_400,
    "vit_large_patch16_224": 304_326_632,
    "vit_huge_patch14_224": 632_045_800,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_patch16_224": 22_050_664,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_patch16_224": 86_567_656,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_distilled_patch16_384": 87_630_032,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    assert count_parameters(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", [n for n in nv.list_models() if count_parameters(n) < 30e6])
def test_the_count_is_that_of_the_model_itself(name):
    assert nv.create_model(name).num_parameters() == count_parameters(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in nv.list_models() if count_parameters(n) >= 30e6])
def test_the_count_is_that_of_the_model_itself_for_large_ones(name):
    assert nv.create_model(name).num_parameters() == count_parameters(name)


def test_names_are_timms():
    names = [name for name, _ in tiny(distilled=True).named_parameters()]
    for name in ("cls_token", "dist_token", "pos_embed", "patch_embed.proj.weight", "blocks.1.norm2.bias"):
        assert name in names
    for name in ("blocks.0.attn.qkv.weight", "blocks.0.attn.proj.bias", "blocks.0.mlp.fc2.weight", "head_dist.weight"):
        assert name in names
    assert "pre_logits.fc.weight" in tiny(representation_size=5).state_dict()
    assert "fc_norm.weight" in tiny(global_pool="avg").state_dict()
    assert "norm.weight" not in tiny(global_pool="avg").state_dict()


def test_shapes_are_pytorchs():
    state = tiny(patch_size=(2, 4), representation_size=5).state_dict()
    assert state["patch_embed.proj.weight"].shape == (8, 1, 2, 4)
    assert state["blocks.0.attn.qkv.weight"].shape == (24, 8)
    assert state["blocks.0.mlp.fc1.weight"].shape == (32, 8)
    assert state["pre_logits.fc.weight"].shape == (5, 8)
    assert state["head.weight"].shape == (3, 5)
    assert state["pos_embed"].shape == (1, 1 + 4 * 2, 8)


def test_create_model_takes_overrides():
    model = nv.create_model(
        "vit_tiny_patch16_224", num_classes=10, img_size=32, patch_size=4, in_chans=3, depth=1, seed=0, dtype="float64"
    )
    assert model(np.zeros((2, 3, 32, 32))).shape == (2, 10)
    assert model.head.weight.data.dtype == np.float64


def test_one_seed_gives_one_model_in_either_dtype():
    a, b, c = tiny(seed=1).state_dict(), tiny(seed=1, dtype="float64").state_dict(), tiny(seed=2).state_dict()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["pos_embed"], c["pos_embed"])


def test_list_models_filters_and_sorts():
    assert nv.list_models("deit*distilled*224") == [
        "deit_base_distilled_patch16_224",
        "deit_small_distilled_patch16_224",
        "deit_tiny_distilled_patch16_224",
    ]
    assert nv.list_models() == sorted(nv.list_models())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nv.create_model("vit_tiny_patch16_225"), "did you mean vit_tiny_patch16_224"),
        (lambda: nv.create_model("zzz"), "list_models"),
        (lambda: nv.create_model("vit_tiny_patch16_224", drop_rates=0.1), "did you mean drop_rate"),
        (lambda: tiny(embed_dim=9), "divisible by num_heads"),
        (lambda: tiny(img_size=9), "divisible by patch_size"),
        (lambda: tiny(global_pool="max"), "'token', or 'avg'"),
        (lambda: tiny(global_pool="avg", distilled=True), "not distilled"),
        (lambda: tiny(depth=0), "depth must be an int of at least 1"),
        (lambda: tiny(representation_size=-1), "representation_size must be an int of at least 1"),
        (lambda: tiny(embed_dim=0), "embed_dim must be an int of at least 1"),
        (lambda: tiny(in_chans=1.5), "in_chans must be an int of at least 1"),
        (lambda: tiny(num_classes=-1), "num_classes must be an int of at least 0"),
        (lambda: tiny(mlp_ratio=0.1), "mlp_ratio must leave"),
        (lambda: tiny(act_layer="relu"), r"layers\.ReLU, got 'relu'"),
        (lambda: tiny(norm_layer="bn"), r"layers\.LayerNorm, got 'bn'"),
        (lambda: tiny(drop_rate=-0.1), "0..1"),
    ],
)
def test_bad_options_are_explained(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_distilled_model_returns_the_pair_on_a_tape_and_its_mean_without(rng):
    model, x = tiny(distilled=True, dtype="float64"), rng.standard_normal((2, 1, 8, 8))
    logits, logits_dist = model.forward(x, nv.Tape(model))
    assert not np.allclose(logits, logits_dist)
    np.testing.assert_allclose(model(x), (logits + logits_dist) / 2)


def test_representation_size_is_ignored_when_distilled():
    assert "pre_logits.fc.weight" not in tiny(distilled=True, representation_size=5).state_dict()


def test_without_classes_the_model_returns_features(rng):
    model = tiny(num_classes=0)
    assert model(rng.standard_normal((2, 1, 8, 8)).astype(np.float32)).shape == (2, 8)


def test_drop_path_rises_linearly():
    rates = [block.drop_path1.p for block in tiny(depth=5, drop_path_rate=0.4).blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])


def test_every_parameter_is_trained(rng):
    model, x = tiny(distilled=True, dtype="float64"), rng.standard_normal((4, 1, 8, 8))
    tape = nv.Tape(model)
    y = model.forward(x, tape)
    model.backward(tuple(rng.standard_normal(part.shape) for part in y), tape)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradients().values())


def test_the_gradient_of_the_images_is_left_out_on_request(rng):
    model, x = tiny(), rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
    tape = nv.Tape(model, input_gradient=False)
    assert model.backward(model.forward(x, tape), tape) is None
    tape = nv.Tape(model)
    assert model.backward(model.forward(x, tape), tape).shape == x.shape


def test_images_of_the_wrong_kind_are_refused():
    model = tiny()
    for shape in ((2, 1, 8, 4), (2, 3, 8, 8), (1, 8, 8)):
        with pytest.raises(ShapeError, match=r"expected \(batch, 1, 8, 8\)"):
            model(np.zeros(shape, np.float32))
    with pytest.raises(InputError, match="empty batch"):
        model(np.zeros((0, 1, 8, 8), np.float32))
    x = np.zeros((2, 1, 8, 8), np.float32)
    for bad in (np.nan, np.inf):
        x[1, 0, 3, 3] = bad
        with pytest.raises(InputError, match="NaN"):
            model(x)


def test_images_of_another_float_type_are_taken(rng):
    model, x = tiny(), rng.standard_normal((2, 1, 8, 8))
    assert model(x).dtype == np.float32
    np.testing.assert_allclose(model(x), model(x.astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_each_layer_of_a_new_model_knows_its_dotted_name(case):
    for name, layer in case.build().named_layers():
        kind = type(layer).__name__
        if kind != "Identity":  # one may stand in two places and has the name of the first
            assert layer.path == (f"{name} ({kind})" if name else kind)


def test_a_norm_of_ones_own_stands_at_every_place():
    own = partial(nv.layers.LayerNorm, eps=1e-3)
    options = dict(norm_layer=own, pre_norm=True, qk_norm=True)
    for pool in ("token", "avg"):
        model = nv.ModernVisionTransformer(**TINY, **options, global_pool=pool)
        norms = {name: layer.eps for name, layer in model.named_layers() if isinstance(layer, nv.layers.LayerNorm)}
        assert {"norm_pre", "norm" if pool == "token" else "fc_norm", "blocks.1.norm2"} <= norms.keys()
        assert {eps for name, eps in norms.items() if not name.endswith(("q_norm", "k_norm"))} == {1e-3}


def test_an_activation_of_ones_own_stands_in_every_block():
    model = tiny(act_layer=nv.layers.ReLU)
    assert all(isinstance(block.mlp.act, nv.layers.ReLU) for block in model.blocks)


def test_a_dynamic_model_resizes_its_position_embedding_to_the_images(rng):
    model = nv.ModernVisionTransformer(**TINY, dynamic_img_size=True, dtype="float64", seed=1)
    x = rng.standard_normal((2, 1, 8, 12))
    fixed = nv.ModernVisionTransformer(**{**TINY, "img_size": (8, 12)}, dtype="float64")
    state = model.state_dict()
    resized = nv.functional.resample.resize_pos_embed(state["pos_embed"], 1, (2, 2), (2, 3), "timm")
    fixed.load_state_dict({**state, "pos_embed": resized})
    np.testing.assert_allclose(model(x), fixed(x), rtol=1e-10)


# ---- frozen parts, features -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "patterns, trained, stays",
    [
        (["[!h]*"], ["head"], {"head.weight", "head.bias"}),
        (["patch_embed*", "*_token", "pos_embed", "blocks.0.*"], ["blocks.1", "head"], None),
        (["patch_embed*"], ["embed", "blocks.0", "blocks.1", "head"], None),
        (["blocks.*"], ["embed", "blocks.0", "blocks.1", "head"], None),
    ],
)
def test_stages_below_the_first_trained_cost_nothing_and_the_rest_keeps_its_gradient(rng, patterns, trained, stays):
    x, model = rng.standard_normal((3, 1, 8, 8)), tiny(dtype="float64")
    whole = nv.Tape(model, seed=1)
    y = model.forward(x, whole)
    model.backward(y, whole)
    expected = whole.gradients()
    model.freeze(*patterns)
    tape = nv.Tape(model, seed=1, input_gradient=False)
    parts = {name: layer for name, layer in model.named_layers() if name in ("embed", "blocks.0", "blocks.1", "head")}
    assert [name for name, layer in parts.items() if tape.reaches(layer)] == trained
    assert np.array_equal(model.forward(x, tape), y)
    kept = {id(layer) for layer, _ in tape.residuals()}
    for name, part in parts.items():
        assert name in trained or not any(id(layer) in kept for _, layer in part.named_layers())
    assert model.backward(y, tape) is None and tape.pending == 0
    assert stays is None or tape.gradients().keys() == stays
    for name, gradient in tape.gradients().items():
        assert np.array_equal(gradient, expected[name])


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"named like 'block\.0\*'"):
        tiny().freeze("block.0*")


def test_features_and_intermediates_are_the_tokens(rng):
    model, x = tiny(dtype="float64"), rng.standard_normal((2, 1, 8, 8))
    features = model.forward_features(x)
    assert features.shape == (2, 5, 8)
    np.testing.assert_allclose(model.head(features[:, 0]), model(x))
    first, last = model.forward_intermediates(x, [0, -1])
    np.testing.assert_allclose(model.norm(last), features)
    np.testing.assert_allclose(model.blocks[1](first), last)
    np.testing.assert_allclose(model.forward_intermediates(x, norm=True)[1], features)
    with pytest.raises(ConfigError, match=r"blocks 0\.\.1"):
        model.forward_intermediates(x, [2])


@pytest.mark.parametrize("case", [c for c in MODELS if "Vision" in c.name], ids=lambda case: case.name)
def test_the_shortcut_of_the_last_block_is_exact(case):
    """Logits and every gradient are those of the whole block, the images' included."""
    if case.dropout:
        pytest.skip("the masks of fewer tokens are other masks")
    model, x = case.layer("float64"), case.x("float64")
    short, whole = nv.Tape(model), nv.Tape(model, record_all=True)
    logits, expected = model.forward(x, short), model.forward(x, whole)
    tokens = model.classifier.reads
    widths = [r[0].shape[1] for layer, r in short.residuals() if layer is model.blocks[-1].mlp.fc1]
    assert widths == [tokens] if tokens else widths[0] > 2
    np.testing.assert_allclose(np.array(logits), np.array(expected), atol=1e-12)
    dy = tuple(np.ones_like(head) for head in logits) if isinstance(logits, tuple) else np.ones_like(logits)
    np.testing.assert_allclose(model.backward(dy, short), model.backward(dy, whole), atol=1e-12)
    np.testing.assert_allclose(short.flat, whole.flat, atol=1e-12)


def test_features_and_maps_still_show_every_token(rng):
    model = nv.create_model("vit_micro_patch2_8")
    x = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
    assert model.forward_features(x).shape == (2, 17, 64)
    assert nv.viz.attention_maps(model, x[0]).shape == (4, 4, 17, 17)


def test_a_checkpointed_model_gives_the_same_gradients_and_shows_the_same_maps(rng):
    options = dict(drop_rate=0.1, drop_path_rate=0.2)
    plain, saving = (nv.create_model("vit_micro_patch2_8", grad_checkpointing=on, **options) for on in (False, True))
    x, found = rng.standard_normal((4, 1, 8, 8)).astype(np.float32), []
    for model in (plain, saving):
        tape = nv.Tape(model, seed=1)
        logits = model.forward(x, tape)
        found.append((logits, len(tape.residuals()), model.backward(np.ones_like(logits), tape), tape.flat))
    (logits, many, dx, flat), (logits_again, few, dx_again, flat_again) = found
    assert few < many / 4
    assert np.array_equal(logits, logits_again)
    assert np.array_equal(dx, dx_again) and np.array_equal(flat, flat_again)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in saving.named_parameters()]
    assert np.array_equal(nv.viz.attention_maps(plain, x[0]), nv.viz.attention_maps(saving, x[0]))
    assert np.array_equal(nv.viz.gradient_attention(plain, x[0]), nv.viz.gradient_attention(saving, x[0]))
    saving.set_grad_checkpointing(False)
    tape = nv.Tape(saving)
    saving.forward(x, tape)
    assert len(tape.residuals()) == many


def test_checkpointing_follows_blocks_that_are_replaced(rng):
    model = nv.create_model("vit_micro_patch2_8", grad_checkpointing=True)
    x = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
    model.blocks = model.blocks[:1]
    expected = model(x)
    model.set_grad_checkpointing(False)
    assert np.array_equal(model(x), expected)


@pytest.mark.parametrize("images", [[[1.0]], None, "image.png", np.ma.zeros((1, 1, 8, 8))], ids=str)
def test_what_is_no_array_of_images_is_refused_with_what_to_do(images):
    with pytest.raises(nv.errors.DtypeError, match=r"^patch_embed \(PatchEmbed\): got a \w+, .*numpy\.asarray"):
        tiny()(images)


def test_every_public_name_is_listed_before_it_is_used():
    assert {"fit", "evaluate", "viz", "testing", "load_checkpoint", "data", "weights", "training"} <= set(dir(nv))
    assert all(getattr(nv, name) is not None for name in nv.__all__)
