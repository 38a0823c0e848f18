"""What the queries of a detector look at, the depth of its parameters, and the names of published classes."""

import importlib.util
import pathlib
import runpy

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import functional as F
from numpyvit import viz
from numpyvit.cli import main
from numpyvit.core.observe import observing_calls
from numpyvit.errors import ConfigError, NonFiniteError, ShapeError
from numpyvit.models import DETR, AnchorDETR, class_names
from numpyvit.optim import layer_decay
from numpyvit.testing import randomize, stand_in
from numpyvit.weights.adapt import coco_classes

SMALL = dict(hidden_dim=16, nheads=2, enc_layers=2, dec_layers=3, dim_feedforward=20, dropout=0.0)
KINDS = {
    "learned": (DETR, {}),
    "pre-norm": (DETR, dict(pre_norm=True)),
    "anchors": (AnchorDETR, {}),
    "groups": (AnchorDETR, dict(groups=3)),
    "no encoder": (DETR, dict(enc_layers=0)),
}


def small(name="learned", **options):
    kind, own = KINDS[name]
    return randomize(kind(3, 5, (8, 16), **{**SMALL, "dtype": "float64", **own, **options}), seed=1)


def padded(rng):
    """Two images, the second with padding, their mask, and the padding on the grid of 4 rows and 6 columns."""
    images, mask = rng.standard_normal((2, 3, 16, 24)), np.zeros((2, 16, 24), bool)
    mask[1, 8:], mask[1, :, 16:] = True, True
    images[np.broadcast_to(mask[:, None], images.shape)] = 0
    return images, mask, mask[:, ::4, ::4]


def looked(model, x):
    """What the model answers of a pass: [(B, heads, Q, rows, columns), …]."""
    tape = nv.Tape(model, record_all=True)
    model.forward(x, tape)
    return model.query_attention_on_grid(tape)


# ---- the maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_map_sums_to_1_over_the_image_and_is_0_at_its_padding(rng, name):
    images, mask, gone = padded(rng)
    maps = looked(small(name), (images, mask))
    assert [m.shape for m in maps] == [(2, 2, 5, 4, 6)] * 3
    for m in maps:
        np.testing.assert_allclose(m.sum((-2, -1)), 1, rtol=1e-12)
        assert not m[1][..., gone[1]].any() and m[1][..., ~gone[1]].all() and m[0].all()


@pytest.mark.parametrize("name", KINDS)
def test_a_map_is_the_softmax_of_the_querys_products_with_the_keys(rng, name):
    model, (images, mask, gone) = small(name), padded(rng)
    names, calls = [f"transformer.decoder.layers.{i}.multihead_attn" for i in range(3)], {}

    def keep(name, layer, inputs, output):
        calls[name] = inputs

    with observing_calls(model, keep):
        model((images, mask))  # without a tape: what is looked at in use
    for maps, name, layer in zip(looked(model, (images, mask)), names, model.cross_attention_layers, strict=True):
        query, key = calls[name][:2]
        weights, biases = np.split(layer.in_proj_weight.data, 3), np.split(layer.in_proj_bias.data, 3)
        q, k = (x @ w.T + b for x, w, b in zip((query, key), weights, biases))
        for image, head, i in np.ndindex(2, 2, 5):
            own = slice(8 * head, 8 * head + 8)
            scores = np.exp(k[image, :, own] @ q[image, i, own] / np.sqrt(8))
            scores[gone[image].ravel()] = 0
            np.testing.assert_allclose(maps[image, head, i].ravel(), scores / scores.sum(), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("name", KINDS)
def test_from_python_come_maps_boxes_and_scores_of_each_query(rng, name):
    model, image = small(name), rng.standard_normal((3, 16, 24))
    found, outputs, maps = viz.query_attention(model, image), model(image[None]), viz.query_attention_maps(model, image)
    p = F.softmax(outputs["pred_logits"][0])[:, :3]
    assert maps.shape == (3, 2, 5, 4, 6) and found.maps.shape == (5, 4, 6)
    np.testing.assert_allclose(found.maps, maps[-1].mean(0))
    np.testing.assert_allclose(found.boxes, outputs["pred_boxes"][0])
    np.testing.assert_allclose(found.scores, p.max(1))
    assert np.array_equal(found.labels, p.argmax(1))
    one = viz.query_attention(model, image[None], layer=1, head=-1)
    assert np.array_equal(one.maps, maps[1, 1]) and one.shown == "decoder layer 2, head 2"


def test_the_maps_are_the_same_of_frozen_recomputed_models_and_on_a_device(rng):
    model, image = small("anchors"), rng.standard_normal((3, 16, 24))
    expected = viz.query_attention_maps(model, image)
    model.freeze()
    model.set_grad_checkpointing()
    assert np.array_equal(viz.query_attention_maps(model, image), expected)
    found = viz.query_attention(model.to(stand_in), stand_in.asarray(image))
    np.testing.assert_allclose(found.maps, expected[-1].mean(0), rtol=1e-9)


def test_the_best_queries_are_those_that_found_something_best_first():
    def best(*scores, **options):
        found = viz.QueryAttention(np.ones((len(scores), 1, 1)), np.zeros((len(scores), 4)), None, np.array(scores), "")
        return found.best(**options)

    assert best(0.6, 0.2, 0.9, 0.5, 0.4) == [2, 0, 3] and best(0.6, 0.2, 0.9, 0.5, most=2) == [2, 0]
    assert best(0.1, 0.3, 0.2) == [1]  # where nothing was found


def test_an_overview_has_the_image_and_the_map_of_each_best_query_in_frames(rng):
    model, x = small(), rng.standard_normal((3, 16, 24))
    pixels = np.full((3, 16, 24), 128, np.uint8)
    found = viz.query_attention(model, x)
    drawn = viz.query_overview(model, x, pixels, "abc", most=2, tile_size=48)
    assert [name.split(":")[0] for name, _ in drawn] == ["image", *(f"query {i + 1}" for i in found.best(2))]
    assert all(image.size == (48, 32) for _, image in drawn)
    colors = {color for _, color in drawn[0][1].getcolors()}
    assert colors == {(128, 128, 128), (0, 0, 0), (255, 255, 255)}
    with pytest.raises(ConfigError, match="no queries"):
        viz.query_overview(nv.create_model("vit_micro_patch2_8"), np.zeros((1, 8, 8)), pixels, "abc")


def test_a_frame_around_the_whole_image_is_seen():
    from numpyvit.viz.sheet import outlined

    image = Image.new("RGB", (20, 10), "red")
    framed = np.asarray(outlined(image, [(0, 0, 1, 1)]))
    assert (framed[[0, -1]] == 255).all() and (framed[:, [0, -1]] == 255).all() and (framed[5, 10] == (255, 0, 0)).all()
    assert (np.asarray(image) == (255, 0, 0)).all()


def test_what_cannot_be_shown_is_explained(rng):
    model, image = small(), rng.standard_normal((3, 16, 24))
    with pytest.raises(ConfigError, match=r"decoder layer 3 .* 0\.\.2"):
        viz.query_attention(model, image, layer=3)
    with pytest.raises(ConfigError, match=r"head 2 .* 0\.\.1"):
        viz.query_attention(model, image, head=2)
    with pytest.raises(ConfigError, match=r"query 5 .* 0\.\.4"):
        viz.draw_query_attention(
            viz.query_attention(model, image), np.zeros((3, 16, 24), np.uint8), "x.png", "abc", query=5
        )
    with pytest.raises(ConfigError, match="a ResNet has no queries"):
        viz.query_attention(nv.create_model("resnet18", width=8), image)
    with pytest.raises(ConfigError, match="a DETR has no attention to show"):
        viz.attention_grids(model, image)
    with pytest.raises(ShapeError, match="expected one image"):
        viz.query_attention(model, np.stack([image, image]))
    model.cross_attention_layers[0].in_proj_weight.data[:] = np.nan
    with pytest.raises(NonFiniteError, match="weights"):
        viz.query_attention(model, image)


# ---- the figure -----------------------------------------------------------------------------------------------------


def attention_of(scores, boxes):
    """Queries with maps of one bright corner, in a row of places."""
    maps = np.full((len(scores), 4, 4), 0.01)
    maps[:, 0, 0] = 0.85
    return viz.QueryAttention(maps, np.array(boxes), np.zeros(len(scores), int), np.array(scores), "decoder layer 1")


def test_each_box_is_outlined_on_the_map_of_its_query_and_all_on_the_image(tmp_path):
    boxes = [[0.25, 0.5, 0.3, 0.4], [0.75, 0.5, 0.3, 0.4]]
    found, gray = attention_of([0.7, 0.9], boxes), np.full((3, 64, 64), 99, np.uint8)
    viz.draw_query_attention(found, gray, tmp_path / "queries.png", ["cat"])
    with Image.open(tmp_path / "queries.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    top = 12 + 24 + 12  # below the title
    tiles = [pixels[top : top + 224, x : x + 224] for x in range(12, 12 + 3 * 236, 236)]

    def outlined(tile):
        """Which of the two boxes have a black side at their left."""
        sides = [tile[90:130, round((x - w / 2) * 224) - 2 : round((x - w / 2) * 224) + 3] for x, _, w, _ in boxes]
        return [bool((side == 0).all(-1).any(1).all()) for side in sides]

    assert [outlined(tile) for tile in tiles] == [[True, True], [False, True], [True, False]]  # best first


def test_a_token_is_drawn_where_its_convolutions_are_centered(tmp_path):
    found, gray = attention_of([0.9], [[0.5, 0.5, 0, 0]]), np.full((3, 64, 64), 99, np.uint8)
    found.maps[0] = np.roll(found.maps[0], (1, 2), (0, 1))  # row 1, column 2 of 4, of 16 pixels each
    viz.draw_query_attention(found, gray, tmp_path / "queries.png", ["cat"], query=0)
    with Image.open(tmp_path / "queries.png") as sheet:
        tile = np.asarray(sheet.convert("RGB")).astype(int)[48 : 48 + 448, 472 : 472 + 448]
    rows, columns = np.nonzero(tile[..., 0] - tile[..., 1] > 80)
    assert rows.mean() == pytest.approx(448 / 4, abs=8) and columns.mean() == pytest.approx(448 / 2, abs=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A detector's weights and a wide photo."""
    folder = tmp_path_factory.mktemp("queries")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    model = nv.create_model("detr_micro_64", num_classes=3, num_queries=6)
    model.class_embed.bias.data[1] = 3  # every query finds the second class
    nv.weights.save_checkpoint(folder / "best.safetensors", model, classes=["cat", "dog", "cow"])
    nv.weights.save_checkpoint(folder / "vit.safetensors", nv.create_model("vit_micro_patch2_8"))
    return folder


def attention(run, *args, checkpoint=None):
    return main(["attention", *map(str, (run / "photo.png", "--checkpoint", checkpoint or run, *args))])


def test_the_command_draws_the_sheet_and_single_queries(run, tmp_path, capsys):
    drawings = set()
    choices = (
        (),
        ("--layer", 1),
        ("--head", 2),
        ("--layer", 1, "--head", 2),
        ("--query", 6),
        ("--query", 6, "--layer", 2),
    )
    for args in choices:
        assert attention(run, "--out", tmp_path / "map.png", *args) == 0
        assert "map.png: photo.png: 6 boxes" in capsys.readouterr().out
        drawings.add((tmp_path / "map.png").read_bytes())
    assert len(drawings) == len(choices)


def test_the_command_writes_the_numbers_that_are_drawn(run, tmp_path):
    def written(*args):
        assert attention(run, "--npy", "--out", tmp_path / "maps.npy", *args) == 0
        return np.load(tmp_path / "maps.npy")

    maps = written()
    assert maps.shape == (3, 4, 6, 8, 14)  # of 64 × 106 pixels
    np.testing.assert_allclose(maps.sum((-2, -1)), 1, rtol=1e-5)
    for args, expected in (
        (("--layer", 2), maps[1]),
        (("--head", 4), maps[2, 3]),
        (("--query", 5), maps[:, :, 4]),
        (("--layer", 1, "--head", 1, "--query", 6), maps[0, 0, 5]),
    ):
        assert np.array_equal(written(*args), expected)
    assert written("--img-size", 96).shape == (3, 4, 6, 12, 20)


@pytest.mark.parametrize(
    "args, message",
    [
        (("--layer", 4), "--layer 4: the model has 3"),
        (("--head", 5), "--head 5: block 3 has 4"),
        (("--query", 7), "--query 7: the model has 6"),
        (("--patch", 1, 1), "a detector has --query"),
        (("--class-index", 1), "a detector has --query"),
        (("--query", 1, "--checkpoint", "vit.safetensors"), "a NarrowVisionTransformer has no queries"),
    ],
)
def test_the_command_names_what_does_not_fit(run, capsys, monkeypatch, args, message):
    monkeypatch.chdir(run)
    assert attention(run, "--out", "never.png", *args) == 2
    assert message in capsys.readouterr().err and not (run / "never.png").exists()


# ---- depth of parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone, first", [((8, 16), 2), ("resnet18", 9)])
def test_depth_rises_from_the_backbone_over_encoder_and_decoder_to_the_heads(backbone, first):
    model = DETR(3, 5, backbone, **SMALL, pre_norm=True, position_embedding="learned")
    depths = {
        "input_proj.weight": first,
        "backbone.1.row_embed.weight": first,
        "transformer.encoder.layers.0.linear1.weight": first,
        "transformer.encoder.layers.1.self_attn.in_proj_weight": first + 1,
        "transformer.encoder.norm.bias": first + 2,
        "transformer.decoder.layers.0.norm3.weight": first + 2,
        "transformer.decoder.layers.2.multihead_attn.out_proj.bias": first + 4,
        "transformer.decoder.norm.weight": first + 5,
        "query_embed.weight": first + 5,
        "class_embed.bias": first + 5,
        "bbox_embed.layers.2.weight": first + 5,
    }
    assert {name: model.parameter_depth(name) for name in depths} == depths
    body = [model.parameter_depth(name) for name, _ in model.named_parameters() if ".body." in name]
    assert body == sorted(body) and {*body} == {*range(first)}
    factors = layer_decay(model, 0.5)
    assert factors["input_proj.weight"] == 0.5**5 and "class_embed.bias" not in factors


def test_without_encoder_what_precedes_the_decoder_is_as_deep_as_its_first_layer():
    model = AnchorDETR(3, 5, (8, 16), **{**SMALL, "enc_layers": 0})
    names = (
        "input_proj.bias",
        "transformer.decoder.layers.0.norm1.bias",
        "refpoint_embed.weight",
        "label_embed.weight",
    )
    assert [model.parameter_depth(name) for name in names] == [2, 2, 5, 5]


# ---- names of published classes -------------------------------------------------------------------------------------


def test_cocos_classes_are_those_of_91_with_holes():
    names = coco_classes()
    assert len(names) == 91 and names.count("N/A") == 11 and len({*names}) == 81
    assert [names[i] for i in (0, 1, 17, 18, 62, 90)] == ["N/A", "person", "cat", "dog", "chair", "toothbrush"]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
@pytest.mark.parity
def test_cocos_classes_are_torchvisions():
    package = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
    theirs = runpy.run_path(package / "models" / "_meta.py")["_COCO_CATEGORIES"]
    assert coco_classes()[1:] == theirs[1:]  # the first is "__background__" there


@pytest.mark.parametrize("classes, expected", [(91, coco_classes()), (90, None)])
def test_weights_for_91_classes_that_do_not_name_them_know_cocos(tmp_path, classes, expected):
    options = dict(num_classes=classes, num_queries=4)
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", nv.create_model("detr_micro_64", **options))
    model = nv.create_model("detr_micro_64", pretrained=tmp_path / "w.safetensors", **options)
    assert model.pretrained_cfg["classes"] == expected


def test_names_in_the_file_and_another_head_leave_cocos_out(tmp_path):
    own = [f"kind {i}" for i in range(91)]
    model = nv.create_model("detr_micro_64", num_classes=91, num_queries=4)
    nv.weights.save_checkpoint(tmp_path / "own.safetensors", model, classes=own)
    again = nv.create_model("detr_micro_64", num_classes=91, num_queries=4, pretrained=tmp_path / "own.safetensors")
    assert class_names(again) == own
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", model)
    with pytest.warns(nv.weights.Notice, match="head for 91 classes was dropped"):
        other = nv.create_model("detr_micro_64", num_classes=3, num_queries=4, pretrained=tmp_path / "w.safetensors")
    assert class_names(other) == ["class 0", "class 1", "class 2"]
