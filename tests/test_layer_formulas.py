"""Layers and whole models against their formulas, written out with NumPy alone in float64."""

import math
from functools import partial

import numpy as np
import pytest
from scipy.special import erf

import numpyvit as nv
from numpyvit import layers
from numpyvit.layers import (
    Attention,
    Block,
    Dropout,
    DropPath,
    DynamicPatchEmbed,
    LayerNorm,
    LayerScale,
    Linear,
    Mlp,
    PatchEmbed,
    ReLU,
)
from numpyvit.testing import randomize

SIZES = dict(img_size=(4, 6), patch_size=2, in_chans=2, num_classes=3, embed_dim=8, depth=2, num_heads=2)


class Plain:
    """The formulas, with the weights of a layer by their dotted names."""

    def __init__(self, layer, heads=2, scale=None):
        self.w, self.heads, self.scale = layer.state_dict(), heads, scale

    def linear(self, x, name):
        return x @ self.w[f"{name}weight"].T + self.w.get(f"{name}bias", 0)

    def norm(self, x, name, eps=1e-6):
        if f"{name}weight" not in self.w:
            return x
        hat = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return hat * self.w[f"{name}weight"] + self.w[f"{name}bias"]

    def attention(self, x, name=""):
        d = x.shape[-1] // self.heads
        scale = self.scale or 1 / math.sqrt(d)
        qkv, out = self.linear(x, f"{name}qkv."), []
        for head in range(self.heads):
            q, k, v = (qkv[..., part * x.shape[-1] + head * d :][..., :d] for part in range(3))
            q, k = self.norm(q, f"{name}q_norm."), self.norm(k, f"{name}k_norm.")
            e = np.exp(scale * q @ k.swapaxes(1, 2))
            out.append(e / e.sum(-1, keepdims=True) @ v)
        return self.linear(np.concatenate(out, -1), f"{name}proj.")

    def mlp(self, x, name=""):
        h = self.linear(x, f"{name}fc1.")
        return self.linear(h * (1 + erf(h / math.sqrt(2))) / 2, f"{name}fc2.")

    def block(self, x, name=""):
        x = x + self.w.get(f"{name}ls1.gamma", 1) * self.attention(self.norm(x, f"{name}norm1."), f"{name}attn.")
        return x + self.w.get(f"{name}ls2.gamma", 1) * self.mlp(self.norm(x, f"{name}norm2."), f"{name}mlp.")

    def patches(self, x, name=""):
        weight, bias = self.w[f"{name}proj.weight"], self.w.get(f"{name}proj.bias", 0)
        ph, pw = weight.shape[2:]
        cells = [(i, j) for i in range(0, x.shape[2], ph) for j in range(0, x.shape[3], pw)]
        tokens = [np.einsum("bchw,dchw->bd", x[:, :, i : i + ph, j : j + pw], weight) + bias for i, j in cells]
        return self.norm(np.stack(tokens, 1), f"{name}norm.")

    def features(self, x, depth=2, placed=True):
        """The tokens after the last block, before the norm."""
        tokens = [self.w[name] for name in ("cls_token", "dist_token", "reg_token") if name in self.w]
        y = [np.broadcast_to(token, (len(x), *token.shape[1:])) for token in tokens]
        y = np.concatenate([*y, self.patches(x, "patch_embed.")], 1)
        y[:, 0 if placed else sum(token.shape[1] for token in tokens) :] += self.w["pos_embed"]
        y = self.norm(y, "norm_pre.")
        for i in range(depth):
            y = self.block(y, f"blocks.{i}.")
        return y


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def made(build, *args, **options):
    return randomize(build(*args, dtype="float64", **options))


# ---- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 4, 7)], ids=str)
def test_linear_norm_scale_and_mlp(rng, shape):
    x = rng.standard_normal(shape)
    for layer in (made(Linear, 7, 5), made(Linear, 7, 5, bias=False)):
        close(layer(x), Plain(layer).linear(x, ""))
    for eps in (1e-6, 0.5):
        layer = made(LayerNorm, 7, eps)
        close(layer(x), Plain(layer).norm(x, "", eps))
    layer = made(LayerScale, 7)
    close(layer(x), x * layer.gamma.data)
    for layer in (made(Mlp, 7), made(Mlp, 7, 12), made(Mlp, 7, 12, 5), made(Mlp, 7, None, 5)):
        close(layer(x), Plain(layer).mlp(x))


def test_the_widths_of_an_mlp_are_those_of_its_input_unless_told():
    assert [Mlp(4).fc1.weight.data.shape, Mlp(4).fc2.weight.data.shape] == [(4, 4), (4, 4)]
    assert [Mlp(4, 6).fc1.weight.data.shape, Mlp(4, 6).fc2.weight.data.shape] == [(6, 4), (4, 6)]
    assert [Mlp(4, 6, 5).fc1.weight.data.shape, Mlp(4, 6, 5).fc2.weight.data.shape] == [(6, 4), (5, 6)]


def test_activations_are_their_formulas_and_relu_is_flat_at_0():
    x = np.array([-2.0, -1, 0, 1, 2])
    close(layers.Tanh()(x), np.tanh(x))
    close(layers.GELU()(x), x * (1 + erf(x / math.sqrt(2))) / 2)
    close(layers.GELUTanh()(x), x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    close(ReLU()(x), [0, 0, 0, 1, 2])
    layer = ReLU()
    tape = nv.Tape(layer)
    layer.forward(x, tape)
    close(layer.backward(np.ones(5), tape), [0, 0, 0, 1, 1])


@pytest.mark.parametrize("heads, qkv_bias, scale", [(2, False, None), (2, True, None), (2, False, 0.3), (4, True, 2.0)])
@pytest.mark.parametrize("kind", [Attention, partial(Attention, qk_norm=True)])
def test_attention(rng, kind, heads, qkv_bias, scale):
    layer, x = made(kind, 8, heads, qkv_bias, scale), rng.standard_normal((3, 5, 8))
    assert (layer.qkv.bias is not None) == qkv_bias
    close(layer(x), Plain(layer, heads, scale).attention(x))
    for tokens in (1, 3, 4):
        close(layer(x, first=tokens), layer(x)[:, :tokens])


@pytest.mark.parametrize("kind", [Block, partial(Block, init_values=1e-5)])
@pytest.mark.parametrize("options", [{}, {"qkv_bias": True, "mlp_ratio": 1.5}, {"qk_scale": 0.3}], ids=str)
def test_block(rng, kind, options):
    layer, x = made(kind, 8, 2, **options), rng.standard_normal((3, 5, 8))
    assert layer.mlp.fc1.weight.data.shape[0] == int(8 * options.get("mlp_ratio", 4))
    assert (layer.attn.qkv.bias is not None) == options.get("qkv_bias", False)
    close(layer(x), Plain(layer, 2, options.get("qk_scale")).block(x))


@pytest.mark.parametrize("norm_layer", [None, LayerNorm])
@pytest.mark.parametrize("image, patch", [((4, 6), (2, 3)), ((6, 4), (2, 2)), (6, 3)], ids=str)
def test_patch_embedding(rng, image, patch, norm_layer):
    layer = made(PatchEmbed, image, patch, 3, 8, norm_layer=norm_layer)
    height, width = image if isinstance(image, tuple) else (image, image)
    ph, pw = patch if isinstance(patch, tuple) else (patch, patch)
    assert layer.img_size == (height, width) and layer.patch_size == (ph, pw)
    assert layer.grid_size == (height // ph, width // pw) and layer.num_patches == height // ph * (width // pw)
    x = rng.standard_normal((2, 3, height, width))
    close(layer(x), Plain(layer).patches(x))
    tape = nv.Tape(layer, input_gradient=False)
    layer.forward(x, tape)
    assert layer.backward(np.ones((2, layer.num_patches, 8)), tape) is None
    assert all(gradient.any() for gradient in tape.gradients().values())


def test_a_dynamic_patch_embedding_takes_any_size_that_its_patches_divide(rng):
    layer = made(DynamicPatchEmbed, 8, (2, 4), 1, 8)
    for height, width in ((8, 8), (2, 4), (6, 12)):
        x = rng.standard_normal((2, 1, height, width))
        close(layer(x), Plain(layer).patches(x))
    for height, width in ((7, 8), (8, 6)):
        with pytest.raises(nv.errors.ShapeError, match=r"expected \(batch, 1, 8, 8\)"):
            layer(rng.standard_normal((2, 1, height, width)))


# ---- dropout: which numbers it acts on ------------------------------------------------------------------------------


def test_dropout_multiplies_by_a_mask_and_backward_by_the_same(rng):
    x, dy = rng.standard_normal((2, 6, 5, 4))
    for layer, shape in ((Dropout(0.3), (6, 5, 4)), (DropPath(0.3), (6, 1, 1))):
        tape, again = nv.Tape(layer, seed=7), nv.Tape(layer, seed=7)
        mask = np.where(again.random.random(shape) >= 0.3, 1 / 0.7, 0)
        np.testing.assert_allclose(layer.forward(x, tape), x * mask, rtol=1e-6)
        np.testing.assert_allclose(layer.backward(dy, tape), dy * mask, rtol=1e-6)


def test_without_a_rate_nothing_is_drawn(rng):
    x = rng.standard_normal((6, 5))
    for layer in (Dropout(0.0), DropPath()):
        tape, untouched = nv.Tape(layer, seed=7), nv.Tape(layer, seed=7)
        assert layer.forward(x, tape) is x and layer.backward(x, tape) is x
        assert np.array_equal(tape.random.random((4,)), untouched.random.random((4,)))


def on_tape(layer, x):
    return layer.forward(x, nv.Tape(layer, seed=0))


def test_each_rate_of_attention_and_mlp_acts_where_it_says(rng):
    """At rate 1 all that a dropout stands behind is 0, so that what remains tells where it stands."""
    x = rng.standard_normal((3, 5, 8))
    layer = made(Attention, 8, 2, attn_drop=1.0)
    close(on_tape(layer, x), np.broadcast_to(layer.proj.bias.data, x.shape))
    assert not on_tape(made(Attention, 8, 2, proj_drop=1.0), x).any()
    layer = made(Mlp, 8, 12, drop=1.0)
    assert not on_tape(layer, x).any()
    layer.drop2.p = 0.0
    close(on_tape(layer, x), np.broadcast_to(layer.fc2.bias.data, x.shape))


@pytest.mark.parametrize("kind", [Block, partial(Block, init_values=1e-5)])
def test_each_rate_of_a_block_acts_where_it_says(rng, kind):
    x = rng.standard_normal((3, 5, 8))
    close(on_tape(made(kind, 8, 2, drop_path=1.0), x), x)
    layer = made(kind, 8, 2, drop=0.1, attn_drop=0.2, drop_path=0.3)
    assert (layer.attn.attn_drop.p, layer.attn.proj_drop.p) == (0.2, 0.1)
    assert (layer.mlp.drop1.p, layer.mlp.drop2.p) == (0.1, 0.1)
    assert (layer.drop_path1.p, layer.drop_path2.p) == (0.3, 0.3)
    layer = made(kind, 8, 2, drop_path=1.0)
    layer.drop_path2.p = 0.0
    plain = Plain(layer)
    close(on_tape(layer, x), x + plain.w.get("ls2.gamma", 1) * plain.mlp(plain.norm(x, "norm2."), "mlp."))


def test_each_rate_of_a_vision_transformer_acts_where_it_says(rng):
    model = nv.VisionTransformer(**{**SIZES, "depth": 3}, drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.4)
    assert model.pos_drop.p == 0.1
    for block, rate in zip(model.blocks, (0, 0.2, 0.4)):
        assert (block.attn.attn_drop.p, block.attn.proj_drop.p, block.mlp.drop1.p) == (0.2, 0.1, 0.1)
        assert block.drop_path1.p == block.drop_path2.p == pytest.approx(rate)
    model = made(nv.VisionTransformer, **SIZES)
    model.pos_drop.p = 1.0
    logits = on_tape(model, rng.standard_normal((3, 2, 4, 6)))
    plain = Plain(model)
    zeros = np.zeros((3, 7, 8))
    for i in range(2):
        zeros = plain.block(zeros, f"blocks.{i}.")
    close(logits, plain.linear(plain.norm(zeros, "norm.")[:, 0], "head."))


# ---- models ---------------------------------------------------------------------------------------------------------

POOLED = {"token": {}, "avg": {"global_pool": "avg"}}


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("options", [{}, {"qkv_bias": False, "mlp_ratio": 2}, {"qk_scale": 0.4, "depth": 1}], ids=str)
def test_a_vision_transformer(rng, options, pool):
    model, x = made(nv.VisionTransformer, **{**SIZES, **options, **POOLED[pool]}), rng.standard_normal((3, 2, 4, 6))
    plain = Plain(model, 2, options.get("qk_scale"))
    tokens = plain.features(x, options.get("depth", 2))
    pooled = plain.norm(tokens, "norm.")[:, 0] if pool == "token" else plain.norm(tokens[:, 1:].mean(1), "fc_norm.")
    close(model(x), plain.linear(pooled, "head."))
    close(model.forward(x, nv.Tape(model)), plain.linear(pooled, "head."))
    close(model.forward_features(x), plain.norm(tokens, "norm."))


def test_a_vision_transformer_with_a_hidden_layer_before_its_head(rng):
    model, x = made(nv.VisionTransformer, **SIZES, representation_size=5), rng.standard_normal((3, 2, 4, 6))
    plain = Plain(model)
    hidden = np.tanh(plain.linear(plain.norm(plain.features(x), "norm.")[:, 0], "pre_logits.fc."))
    close(model(x), plain.linear(hidden, "head."))
    assert model.num_features == 5


def test_a_distilled_vision_transformer(rng):
    model, x = made(nv.VisionTransformer, **SIZES, distilled=True), rng.standard_normal((3, 2, 4, 6))
    plain = Plain(model)
    tokens = plain.norm(plain.features(x), "norm.")
    expected = plain.linear(tokens[:, 0], "head."), plain.linear(tokens[:, 1], "head_dist.")
    for found, wanted in zip(model.forward(x, nv.Tape(model)), expected):
        close(found, wanted)
    close(model(x), (expected[0] + expected[1]) / 2)


@pytest.mark.parametrize(
    "options",
    [
        {"init_values": 0.1},
        {"qk_norm": True},
        {"qk_norm": True, "init_values": 0.1},
        {"reg_tokens": 2},
        {"reg_tokens": 2, "no_embed_class": True},
        {"no_embed_class": True},
        {"pre_norm": True},
        {"class_token": False, "global_pool": "avg"},
        {"class_token": False, "global_pool": "avg", "reg_tokens": 3},
        {"global_pool": "avg", "reg_tokens": 3},
        {"dynamic_img_size": True},
    ],
    ids=lambda options: " ".join(options),
)
def test_a_modern_vision_transformer(rng, options):
    model, x = made(nv.ModernVisionTransformer, **SIZES, **options), rng.standard_normal((3, 2, 4, 6))
    plain = Plain(model)
    tokens = plain.features(x, placed=not options.get("no_embed_class", False))
    if "global_pool" in options:
        extra = options.get("class_token", True) + options.get("reg_tokens", 0)
        pooled = plain.norm(tokens[:, extra:].mean(1), "fc_norm.")
    else:
        pooled = plain.norm(tokens, "norm.")[:, 0]
    close(model(x), plain.linear(pooled, "head."))


def test_a_model_without_classes_gives_what_its_head_would_read(rng):
    x = rng.standard_normal((3, 2, 4, 6))
    model = made(nv.VisionTransformer, **{**SIZES, "num_classes": 0})
    plain = Plain(model)
    close(model(x), plain.norm(plain.features(x), "norm.")[:, 0])


def test_the_tokens_after_each_block(rng):
    model, x = made(nv.VisionTransformer, **{**SIZES, "depth": 3}), rng.standard_normal((3, 2, 4, 6))
    plain = Plain(model)
    expected = [plain.features(x, depth) for depth in (1, 2, 3)]
    for found, wanted in zip(model.forward_intermediates(x), expected, strict=True):
        close(found, wanted)
    for index, found in zip((2, 0), model.forward_intermediates(x, [-1, 0], norm=True), strict=True):
        close(found, plain.norm(expected[index], "norm."))
