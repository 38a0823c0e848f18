"""Initial values: a wrong scale trains badly and passes every check of gradients."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

import numpyvit as nv
from numpyvit.layers import Attention, LayerNorm, LayerScale, Linear, Mlp, PatchEmbed

SIZES = dict(img_size=16, patch_size=4, in_chans=3, num_classes=200, embed_dim=128, depth=2, num_heads=4)


def weights(layer):
    return {name: parameter.data for name, parameter in layer.named_parameters()}


def check_normal(values, std):
    """Mean, deviation and the share within one deviation of a normal distribution, each at five standard errors."""
    n = values.size
    assert abs(values.mean()) < 5 * std / math.sqrt(n)
    assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * n)
    assert abs((np.abs(values) < std).mean() - 0.6827) < 5 * 0.466 / math.sqrt(n)


def test_matrices_of_linear_layers_have_deviation_002_and_biases_are_0():
    layer = Linear(512, 512)
    check_normal(layer.weight.data, 0.02)
    assert abs(layer.weight.data.std() / 0.02 - 1) < 0.005
    assert not layer.bias.data.any()


@pytest.mark.parametrize("build", [lambda: Attention(256, 4, qkv_bias=True), lambda: Mlp(256)])
def test_attention_and_mlp_start_as_linear_layers(build):
    for name, values in weights(build()).items():
        if name.endswith("bias"):
            assert not values.any()
        else:
            check_normal(values, 0.02)


def test_norms_start_as_1_and_0_and_scales_at_their_initial_value():
    norm = LayerNorm(5)
    assert (norm.weight.data == 1).all() and (norm.bias.data == 0).all()
    assert (LayerScale(5).gamma.data == np.float32(1e-5)).all()
    assert (LayerScale(5, 0.25).gamma.data == 0.25).all()


def check_uniform(values, bound):
    """Range, mean and deviation of a uniform distribution, the last two at five standard errors."""
    assert 0.99 * bound < values.max() <= bound and -bound <= values.min() < -0.99 * bound
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)
    assert abs(values.std() / (bound / math.sqrt(3)) - 1) < 5 / math.sqrt(values.size)


@pytest.mark.parametrize("channels, patch", [(3, (4, 4)), (1, (2, 6)), (2, (5, 3))])
def test_patches_start_uniform_within_the_root_of_their_numbers(channels, patch):
    """As PyTorch's convolutions: ±1/√(C·Ph·Pw) for weight and bias."""
    bound = 1 / math.sqrt(channels * patch[0] * patch[1])
    layer = PatchEmbed((patch[0] * 2, patch[1] * 2), patch, channels, 2048)
    for values in weights(layer).values():
        check_uniform(values, bound)


def test_matrices_of_a_detectors_transformer_start_uniform_as_glorots():
    """±√(6/(in + out)), as in the official code, where the three of attention count as one matrix (3D, D)."""
    model = nv.layers.Transformer(128, 4, 1, 1, 256)
    matrices = [values for values in weights(model).values() if values.ndim == 2]
    assert len(matrices) == 2 * 3 + 2 * 2
    for values in matrices:
        check_uniform(values, math.sqrt(6 / sum(values.shape)))


def test_a_vision_transformer_starts_as_timms():
    model = nv.VisionTransformer(**{**SIZES, "embed_dim": 512, "img_size": 32}, distilled=True, representation_size=256)
    state = weights(model)
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight", "head.weight", "head_dist.weight"):
        check_normal(state[name], 0.02)
    check_normal(state["pos_embed"], 0.02)
    check_normal(state["dist_token"], 0.02)
    check_normal(state["cls_token"], 1e-6)
    assert all(values.any() == name.startswith("patch_embed") for name, values in state.items() if "bias" in name)
    assert abs(state["pos_embed"].std() / 0.02 - 1) < 0.01


def test_the_hidden_layer_before_the_head_starts_as_a_linear_layer():
    state = weights(nv.VisionTransformer(**SIZES, representation_size=300))
    check_normal(state["pre_logits.fc.weight"], 0.02)
    assert not state["pre_logits.fc.bias"].any()


def test_register_tokens_start_near_0():
    state = weights(nv.ModernVisionTransformer(**SIZES, reg_tokens=64))
    check_normal(state["reg_token"], 1e-6)
    assert abs(state["reg_token"].std() / 1e-6 - 1) < 0.05


def test_layer_scale_starts_at_the_value_given_in_every_block():
    state = weights(nv.ModernVisionTransformer(**SIZES, init_values=0.125))
    scales = [values for name, values in state.items() if "gamma" in name]
    assert len(scales) == 4 and all((values == 0.125).all() for values in scales)


@pytest.mark.parametrize("name", [name for name in nv.list_models("vit_m*") if not name.endswith("224")])
def test_narrow_models_start_with_matrices_of_one_over_root_of_width(name):
    model = nv.create_model(name)
    for parameter_name, values in weights(model).items():
        if parameter_name.startswith("blocks.") and values.ndim == 2:
            check_normal(values, values.shape[1] ** -0.5)
        elif parameter_name.startswith("blocks.") and "norm" in parameter_name:
            assert (values == (1 if parameter_name.endswith("weight") else 0)).all()
    check_normal(model.pos_embed.data, 1)
    check_normal(model.head.weight.data, 0.02)


def test_draws_beyond_2_are_drawn_again():
    """An absolute bound, as in torch.nn.init.trunc_normal_: it shows where the deviation is not small."""
    from numpyvit.layers.init import trunc_normal

    values = trunc_normal(np.random.default_rng(0), (100_000,), 1.5, "float64")
    assert values.dtype == np.float64
    assert 1.99 < values.max() <= 2 and -2 <= values.min() < -1.99
    share = np.histogram(values, [-2, -1, 0, 1, 2])[0] / values.size
    expected = np.diff(ndtr(np.array([-2, -1, 0, 1, 2]) / 1.5))
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.006)


@pytest.mark.parametrize(
    "kind, options",
    [
        (nv.VisionTransformer, {"distilled": True}),
        (nv.VisionTransformer, {"representation_size": 7}),
        (nv.ModernVisionTransformer, {"reg_tokens": 3, "qk_norm": True, "init_values": 0.1}),
    ],
)
def test_one_stream_draws_the_parameters_in_the_order_of_their_names(kind, options):
    """So one seed gives one model, number by number."""
    rng = np.random.default_rng(5)
    for name, values in weights(kind(**SIZES, **options, seed=5)).items():
        if name.startswith("patch_embed."):
            expected = (2 * rng.random(values.shape, dtype=np.float32) - 1) / math.sqrt(3 * 4 * 4)
        elif values.ndim > 1:
            std = 1e-6 if name in ("cls_token", "reg_token") else 0.02
            expected = std * rng.standard_normal(values.shape, dtype=np.float32)
        else:
            expected = 0.1 if "gamma" in name else float("norm" in name and name.endswith("weight"))
        np.testing.assert_allclose(values, expected, rtol=1e-5, err_msg=name)


def test_no_two_parameters_start_alike_and_another_seed_changes_each_that_is_drawn():
    first, other = (weights(nv.VisionTransformer(**SIZES, distilled=True, seed=seed)) for seed in (0, 1))
    drawn = {name: values for name, values in first.items() if values.std() > 0}
    flat = {tuple(values.ravel()[:8]) for values in drawn.values()}
    assert len(flat) == len(drawn)
    assert all(not np.array_equal(values, other[name]) for name, values in drawn.items())


def test_convolutions_of_a_resnet_have_the_deviation_for_what_leaves_them():
    """√(2/(out·kernel²)), He et al. 2015, eq. 14."""
    model = nv.create_model("resnet18", num_classes=0, depths=(1, 2, 1, 1))
    for _, layer in model.named_layers():
        if isinstance(layer, nv.layers.Conv2d):
            out, _, kernel, _ = layer.weight.data.shape
            check_normal(layer.weight.data, math.sqrt(2 / (out * kernel**2)))


def test_embeddings_have_the_deviation_asked_for():
    check_normal(nv.layers.Embedding(200, 500).weight.data, 1.0)
    check_normal(nv.layers.Embedding(200, 500, 0.02).weight.data, 0.02)
