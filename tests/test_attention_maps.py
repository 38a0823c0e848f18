"""What the image_folder of attention are made of."""

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import functional as F
from numpyvit import viz
from numpyvit.errors import ConfigError, NonFiniteError, ShapeError
from numpyvit.layers.attention import Attention
from numpyvit.testing import randomize

TINY = dict(img_size=(8, 12), patch_size=4, in_chans=3, num_classes=5, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2.0)


def tiny(**options):
    return randomize(nv.VisionTransformer(**{**TINY, **options}, dtype="float64"), seed=5)


@pytest.fixture
def image(rng):
    return rng.standard_normal((3, 8, 12))


def test_maps_are_probabilities_of_every_block_and_head(image):
    maps = viz.attention_maps(tiny(), image)
    assert maps.shape == (2, 2, 7, 7)
    np.testing.assert_allclose(maps.sum(-1), 1)
    assert viz.attention_maps(tiny(distilled=True), image[None]).shape == (2, 2, 8, 8)


def test_rollout_is_the_product_over_blocks(image):
    maps = viz.attention_maps(tiny(), image)
    first, second = ((heads.mean(0) + np.eye(7)) / 2 for heads in maps)
    np.testing.assert_allclose(viz.attention_rollout(maps), second @ first)
    np.testing.assert_allclose(viz.attention_rollout(maps).sum(-1), 1)


@pytest.mark.parametrize("distilled", [False, True])
def test_gradient_attention_agrees_with_differences(image, distilled, monkeypatch):
    """∂logit/∂A by differences of the attention itself, entry by entry, put through the formula."""
    model, k, eps = tiny(distilled=distilled), 3, 1e-6
    maps = viz.attention_maps(model, image)
    plain = F.attention

    def logit(block, bump):
        calls = iter(range(2))

        def bumped(q, k, v, scale, bias=None, keep=None):
            out, p = plain(q, k, v, scale, bias, keep)
            return (out, p) if next(calls) != block else ((p + bump) @ v, p + bump)

        with monkeypatch.context() as patch:
            patch.setattr(F, "attention", bumped)
            return np.mean(model.forward(image[None], nv.Tape(model, record_all=True)), axis=tuple(range(distilled)))[
                0, k
            ]

    relevance = np.eye(maps.shape[-1])
    for block, p in enumerate(maps):
        gradient = np.zeros_like(p)
        for index in np.ndindex(*p.shape):
            bump = np.zeros((1, *p.shape))
            bump[(0, *index)] = eps
            gradient[index] = (logit(block, bump) - logit(block, -bump)) / (2 * eps)
        relevance = relevance + np.maximum(gradient * p, 0).mean(0) @ relevance
    np.testing.assert_allclose(viz.gradient_attention(model, image, k), relevance, rtol=1e-5, atol=1e-8)


def test_position_similarity_and_filters():
    model = tiny()
    similarity = viz.pos_embed_similarity(model)
    assert similarity.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(np.einsum("ijij->ij", similarity), 1)
    filters = viz.patch_filters(model, 4)
    assert filters.shape == (4, 3, 4, 4) and filters.min() == 0 and filters.max() == 1


def test_filters_and_positions_of_a_model_without_patches():
    model = nv.create_model("resnet18", width=8)
    assert viz.patch_filters(model, 4).shape == (4, 3, 7, 7)
    with pytest.raises(ConfigError, match="a ResNet has no position embedding"):
        viz.pos_embed_similarity(model)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_the_sheet_is_drawn_at_any_size(tmp_path, rng, in_chans):
    model = tiny(in_chans=in_chans)
    pixels = rng.integers(0, 256, (in_chans, 8, 12), dtype=np.uint8)
    viz.draw_attention(model, pixels / 255, pixels, tmp_path / "sheet.png", "title")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 600 and len(set(sheet.convert("L").tobytes())) > 50


def test_bad_images_and_classes_are_refused(image):
    with pytest.raises(ShapeError, match="one image"):
        viz.attention_maps(tiny(), np.stack([image, image]))
    with pytest.raises(ConfigError, match=r"0\.\.4"):
        viz.gradient_attention(tiny(), image, 5)
    with pytest.raises(ConfigError, match=r"block 2 .* 0\.\.1"):
        viz.draw_attention_map(tiny(), image, np.zeros((3, 8, 12), np.uint8), "never.png", layer=2)
    with pytest.raises(ConfigError, match=r"head -3 .* 0\.\.1"):
        viz.draw_attention_map(tiny(), image, np.zeros((3, 8, 12), np.uint8), "never.png", head=-3)


def test_attention_that_is_not_finite_is_refused(image):
    model = tiny()
    model.blocks[1].attn.qkv.weight.data[0] = np.nan
    with pytest.raises(NonFiniteError, match="weights"):
        viz.attention_maps(model, image)


@pytest.mark.parametrize("layer", [Attention(8, 2, dtype="float64"), Attention(8, 2, qk_norm=True, dtype="float64")])
def test_values_and_probabilities_are_those_that_forward_used(layer, rng):
    x = rng.standard_normal((2, 5, 8))
    tape = nv.Tape(layer)
    y = layer.forward(x, tape)
    ((_, kept),) = [pair for pair in tape.residuals() if pair[0] is layer]
    v, p = layer.values_and_probabilities(kept)
    joined = (p @ v).transpose(0, 2, 1, 3).reshape(2, 5, 8)
    np.testing.assert_allclose(joined @ layer.proj.weight.data.T + layer.proj.bias.data, y)


def test_the_caption_names_the_most_probable_class_with_its_probability(image):
    model = tiny()
    model.pretrained_cfg = {"classes": list("abcde")}
    p = F.softmax(model(image[None]))[0]
    assert viz.attention.caption(model, image, "x.png") == f"x.png: {'abcde'[p.argmax()]}, {p.max():.1%}"
    assert viz.attention.caption(tiny(num_classes=0), image, "x.png") == "x.png"


def test_maps_are_multiples_of_an_even_share(image, tmp_path, monkeypatch):
    """So that 1 is what the token would get, in every model and block, if attention were spread evenly."""
    drawn = []
    monkeypatch.setattr(viz.attention, "draw_sheet", lambda pixels, tiles, *rest, **options: drawn.extend(tiles))
    viz.draw_attention(tiny(), image, None, tmp_path / "sheet.png")
    viz.draw_attention_map(tiny(), image, None, tmp_path / "sheet.png", layer=0, head=1)
    maps = viz.attention_maps(tiny(), image)[:, :, 0, 1:].reshape(2, 2, 2, 3) * 7  # the class token's; six patches
    tiles = {tile.name: tile.values for tile in drawn}
    for name, expected in {
        "block 2, head 1": maps[1, 0],
        "block 2, head 2": maps[1, 1],
        "block 1, mean of heads": maps[0].mean(0),
        "block 2, mean of heads": maps[1].mean(0),
        "block 1, head 2": maps[0, 1],
    }.items():
        np.testing.assert_allclose(tiles[name], expected)
    assert sum(tile.own_scale for tile in drawn) == 2 and len(drawn) == 3 + 2 + 2 + 2


def test_a_model_without_classes_has_a_sheet_too(image, tmp_path):
    viz.draw_attention(tiny(num_classes=0), image, np.zeros((3, 8, 12), np.uint8), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_model_without_attention_over_all_tokens_says_so():
    model = nv.create_model("swin_micro_patch2_window4_32")
    with pytest.raises(ConfigError, match=r"Swin.* choose a ViT"):
        viz.attention_maps(model, np.zeros((3, 32, 32), np.float32))
    with pytest.raises(ConfigError, match="a Linear has no attention to show"):
        viz.attention_grids(nv.layers.Linear(2, 2), np.zeros((3, 32, 32), np.float32))
    with pytest.raises(ConfigError, match="class token of a ViT alone"):
        viz.draw_attention(model, np.zeros((3, 32, 32), np.float32), None, "never.png", class_index=3)


def test_a_vits_grids_are_rows_of_its_maps_the_class_tokens_or_a_patchs(image):
    maps = viz.attention_maps(tiny(), image)
    for grids, token in (
        (viz.attention_grids(tiny(), image), 0),
        (viz.attention_grids(tiny(), image, (1, 2)), 6),
    ):
        np.testing.assert_allclose(grids, maps[:, :, token, 1:].reshape(2, 2, 2, 3) * 7)
    for patch in ((2, 0), (0, 3), (-1, 0), (1,)):
        with pytest.raises(ConfigError, match="outside the grid of 2 rows and 3 columns"):
            viz.attention_grids(tiny(), image, patch)


def test_without_a_class_token_the_grids_are_means_over_the_patches(image, tmp_path, monkeypatch):
    model = randomize(
        nv.ModernVisionTransformer(
            **TINY, class_token=False, reg_tokens=1, no_embed_class=True, global_pool="avg", dtype="float64"
        )
    )
    maps = viz.attention_maps(model, image)
    np.testing.assert_allclose(viz.attention_grids(model, image), maps[:, :, 1:, 1:].mean(2).reshape(2, 2, 2, 3) * 7)
    drawn = []
    monkeypatch.setattr(viz.attention, "draw_sheet", lambda pixels, tiles, *rest, **options: drawn.extend(tiles))
    viz.draw_attention(model, image, None, tmp_path / "sheet.png")
    assert not any("rollout" in tile.name or "gradient" in tile.name for tile in drawn)


def test_the_sheet_of_an_image_of_another_size_has_its_grid(rng, tmp_path, monkeypatch):
    model = randomize(nv.ModernVisionTransformer(**TINY, dynamic_img_size=True, dtype="float64"))
    drawn = []
    monkeypatch.setattr(viz.attention, "draw_sheet", lambda pixels, tiles, *rest, **options: drawn.extend(tiles))
    viz.draw_attention(model, rng.standard_normal((3, 16, 8)), None, tmp_path / "sheet.png")
    assert {tile.values.shape for tile in drawn if tile.values is not None} == {(4, 2)}
