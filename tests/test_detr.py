"""DETR: its outputs, its gradient with the loss, its presets and files, and that it learns."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.backend import to_host
from numpyvit.errors import ConfigError, ShapeError
from numpyvit.models import AnchorDETR, count_parameters
from numpyvit.models.detr import DETR
from numpyvit.testing import gradcheck, randomize, stand_in
from numpyvit.weights.detr import is_detr, to_official

SMALL = dict(hidden_dim=16, nheads=2, enc_layers=2, dec_layers=2, dim_feedforward=20, dropout=0.0)
TARGETS = [
    {"labels": [0, 2], "boxes": [[0.5, 0.5, 0.2, 0.3], [0.2, 0.3, 0.2, 0.1]]},
    {"labels": [1], "boxes": [[0.3, 0.6, 0.3, 0.2]]},
]


def small(kind=DETR, **options):
    return kind(3, 5, (8, 16), **{**SMALL, **options})


def batch(rng, dtype="float64"):
    """Two images of different sizes, the second padded, and their mask."""
    images, mask = rng.standard_normal((2, 3, 16, 24)).astype(dtype), np.zeros((2, 16, 24), bool)
    mask[1, 10:], mask[1, :, 15:] = True, True
    images[np.broadcast_to(mask[:, None], images.shape)] = 0
    return images, mask


def copies(groups=2):
    return nv.losses.denoising_queries(TARGETS, 3, rng=1, groups=groups)


def scaled(gradient, by):
    if isinstance(gradient, dict):
        return {name: scaled(part, by) for name, part in gradient.items()}
    return [scaled(part, by) for part in gradient] if isinstance(gradient, list) else gradient * by


class WithLoss(nv.Layer):
    """A detector and its loss, matched as it is at first: matching again is not smooth."""

    def __init__(self, detector, mask, denoising=()):
        self.detector, self._mask, self._denoising, self._pairs = detector, mask, denoising, None

    def forward(self, images, tape=nv.FORGET):
        out = self.detector.forward((images, self._mask, *self._denoising), tape)
        self._pairs = self._pairs or nv.losses.match(out, TARGETS)
        loss, dout = nv.losses.detection(out, TARGETS, pairs=self._pairs)
        tape.push(self, dout)
        return np.asarray(loss)

    def backward(self, dloss, tape):
        (dout,) = tape.pop(self)
        return self.detector.backward(scaled(dout, dloss), tape)


OPTIONS = {
    "post-norm": {},
    "pre-norm": dict(pre_norm=True),
    "learned positions": dict(position_embedding="learned", dec_layers=3),
    "without auxiliary losses": dict(aux_loss=False, enc_layers=0),
}


# image, widths of the stem, width, MLP, queries, heads, layers of the encoder and of the decoder
PRESETS = {
    "detr_micro_64": (64, [32, 64, 64], 64, 128, 16, 4, 2, 3),
    "detr_mini_160": (160, [32, 64, 128], 128, 256, 60, 4, 2, 3),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_to_be_trained_from_nothing(name):
    model = nv.create_model(name)
    stem = [layer.weight.data.shape[0] for layer in model.backbone[0].body if isinstance(layer, nv.layers.Conv2d)]
    encoder, decoder = model.transformer.encoder, model.transformer.decoder
    hidden, width = encoder.layers[0].linear1.weight.data.shape
    heads = {layer.num_heads for _, layer in model.named_layers() if isinstance(layer, nv.layers.MultiheadAttention)}
    sizes = width, hidden, model.num_queries, *heads, encoder.depth, len(decoder.layers)
    assert (model.img_size[0], stem, *sizes) == PRESETS[name]
    assert model.num_classes == 20 and model.backbone[1].temperature == model.queries.temperature == 20
    assert not any(layer.p for _, layer in model.named_layers() if isinstance(layer, nv.layers.Dropout))


@pytest.mark.parametrize("options", [{}, {"pre_norm": True}])
def test_its_norms_are_those_of_pytorch(options):
    model = nv.create_model("detr_micro_64", **options)
    norms = [layer.eps for _, layer in model.transformer.named_layers() if isinstance(layer, nv.layers.LayerNorm)]
    assert len(norms) == 2 * 2 + 3 * 3 + 1 + bool(options) and set(norms) == {1e-5}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_gradient_of_detr_and_its_loss_agrees_with_differences(rng, name):
    images, mask = batch(rng)
    errors = gradcheck(WithLoss(randomize(small(**OPTIONS[name])), mask), images, rtol=1e-6)
    assert "input 0" in errors and "detector.query_embed.weight" in errors


@pytest.mark.parametrize(
    "options", [{}, dict(groups=3), dict(groups=2, pre_norm=True, aux_loss=False)], ids=["one group", "groups", "pre"]
)
@pytest.mark.parametrize("denoising", [False, True], ids=["plain", "denoising"])
def test_the_gradient_of_anchors_and_their_loss_agrees_with_differences(rng, options, denoising):
    images, mask = batch(rng)
    detector = randomize(small(AnchorDETR, denoising=denoising, **options))
    errors = gradcheck(WithLoss(detector, mask, (copies(),) if denoising else ()), images, rtol=1e-6)
    assert "detector.refpoint_embed.weight" in errors and ("detector.label_embed.weight" in errors) == denoising


def test_outputs_are_logits_and_boxes_and_on_a_tape_those_of_earlier_layers(rng):
    model, (images, mask) = small(dec_layers=3), batch(rng, "float32")
    out = model((images, mask))
    assert out.keys() == {"pred_logits", "pred_boxes"}
    assert out["pred_logits"].shape == (2, 5, 4) and out["pred_boxes"].shape == (2, 5, 4)
    assert all(array.dtype == np.float32 for array in out.values())
    assert ((out["pred_boxes"] > 0) & (out["pred_boxes"] < 1)).all()
    trained = model.forward((images, mask), nv.Tape(model))
    assert len(trained["aux_outputs"]) == 2 and trained["aux_outputs"][0].keys() == out.keys()
    np.testing.assert_allclose(trained["pred_boxes"], out["pred_boxes"], rtol=1e-5)


def test_images_without_padding_need_no_mask(rng):
    model, (images, mask) = small(dtype="float64"), batch(rng)
    for found, expected in zip(model(images).values(), model((images, np.zeros_like(mask))).values()):
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.abs(model(images)["pred_boxes"] - model((images, mask))["pred_boxes"])[1].max() > 1e-6


def test_one_image_gives_what_it_gives_in_a_batch(rng):
    model, (images, mask) = randomize(small(dtype="float64")), batch(rng)
    both, second = model((images, mask)), model((images[1:], mask[1:]))
    np.testing.assert_allclose(second["pred_boxes"], both["pred_boxes"][1:], rtol=1e-10)


def test_queries_of_other_groups_and_denoising_ones_change_nothing(rng):
    images, mask = batch(rng)
    model = randomize(small(AnchorDETR, groups=3, dtype="float64"))
    alone = model((images, mask))
    out = model.forward((images, mask, copies()), nv.Tape(model))
    np.testing.assert_allclose(out["pred_logits"], alone["pred_logits"], rtol=1e-10)
    assert len(out["groups"]) == 2 and out["groups"][0]["pred_boxes"].shape == (2, 5, 4)
    assert out["denoising"]["pred_boxes"].shape == (2, 2 * 2, 4)
    shifted = copies()
    shifted["boxes"][:, 1] += 0.1
    again = model.forward((images, mask, shifted), nv.Tape(model))["denoising"]
    np.testing.assert_allclose(again["pred_boxes"][:, :2], out["denoising"]["pred_boxes"][:, :2], rtol=1e-10)
    assert np.abs(again["pred_boxes"][:, 2:] - out["denoising"]["pred_boxes"][:, 2:]).max() > 1e-6
    shifted = copies()
    shifted["boxes"][1, :, 1] += 0.1  # padding: the second image has one box
    again = model.forward((images, mask, shifted), nv.Tape(model))["denoising"]
    np.testing.assert_allclose(again["pred_boxes"][1, ::2], out["denoising"]["pred_boxes"][1, ::2], rtol=1e-10)


def test_denoising_boxes_at_the_borders_give_finite_boxes(rng):
    images, mask = batch(rng)
    at_borders = copies()
    at_borders["boxes"] = np.broadcast_to(np.array([0.0, 1.0, 1.0, 0.0]), at_borders["boxes"].shape)
    model = small(AnchorDETR)
    tape = nv.Tape(model)
    out = model.forward((images, mask, at_borders), tape)
    _, dout = nv.losses.detection(out, TARGETS)
    model.backward(dout, tape)
    nearest = [0.001, 0.999, 0.999, 0.001]  # a new model moves no box
    assert abs(out["denoising"]["pred_boxes"] / nearest - 1).max() < 1e-6
    assert all(np.isfinite(gradient).all() for gradient in tape.gradients().values())


@pytest.mark.parametrize("options", [{}, {"pre_norm": True}])
def test_each_norm_of_a_decoder_layer_is_a_norm_and_each_dropout_one(options):
    (layer, *_) = nv.create_model("detr_micro_64", **options).transformer.decoder.layers
    for number in (1, 2, 3):
        assert type(getattr(layer, f"norm{number}")) is nv.layers.LayerNorm
        assert type(getattr(layer, f"dropout{number}")) is nv.layers.Dropout


def test_denoising_boxes_stay_within_the_image():
    targets = [{"labels": np.array([0]), "boxes": np.array([[0.95, 0.05, 0.9, 0.98]])}]
    boxes = nv.losses.denoising_queries(targets, 5, rng=0, groups=400)["boxes"]
    assert boxes.min() == 0 and boxes.max() == 1


def test_denoising_queries_are_the_boxes_with_bounded_noise():
    targets = [{"labels": np.array([2, 0]), "boxes": np.array([[0.5, 0.5, 0.2, 0.4], [0.3, 0.3, 0.1, 0.1]])}] * 2
    targets += [{"labels": np.array([], int), "boxes": np.zeros((0, 4))}]
    found = nv.losses.denoising_queries(targets, 5, rng=0, groups=400, label_noise=0.5, box_noise=0.4)
    assert found["labels"].shape == found["targets"].shape == (3, 400, 2) and found["boxes"].dtype == np.float32
    assert (found["targets"][:2] == [0, 1]).all() and (found["targets"][2] == -1).all()
    off = np.abs(found["boxes"][0, :, 0] - targets[0]["boxes"][0]).max(0)
    np.testing.assert_allclose(off, [0.04, 0.08, 0.08, 0.16], rtol=0.03)  # at most, and nearly that in 400 draws
    kept = (found["labels"][:2] == [2, 0]).mean()
    assert abs(kept - (0.5 + 0.5 / 5)) < 0.04
    exact = nv.losses.denoising_queries(targets, 5, rng=0, label_noise=0, box_noise=0)
    np.testing.assert_allclose(exact["boxes"][0, 3], targets[0]["boxes"], rtol=1e-6)
    assert nv.losses.denoising_queries(targets[2:], 5)["labels"].shape == (1, 5, 0)


def test_a_batch_without_boxes_has_no_denoising_outputs(rng):
    model, (images, mask) = small(AnchorDETR), batch(rng, "float32")
    none = [{"labels": [], "boxes": np.zeros((0, 4))}] * 2
    out = model.forward((images, mask, nv.losses.denoising_queries(none, 3)), nv.Tape(model))
    assert "denoising" not in out and np.isfinite(nv.losses.detection(out, none)[0])


def test_a_frozen_backbone_gets_no_gradient_and_changes_no_other(rng):
    model, (images, mask) = randomize(small(dtype="float64")), batch(rng)

    def gradients():
        tape = nv.Tape(model, input_gradient=False)
        out = model.forward((images, mask), tape)
        _, dout = nv.losses.detection(out, TARGETS)
        assert model.backward(dout, tape) is None and tape.pending == 0
        return tape.gradients()

    expected = gradients()
    for patterns in (["backbone.*"], ["input_proj*"], ["transformer.encoder*"], ["transformer.decoder*"]):
        model.freeze(*patterns)
        found = gradients()
        assert 0 < len(found) < len(expected) and not any(n.startswith(patterns[0].rstrip("*")) for n in found)
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-15)


def test_checkpointing_gives_the_same_gradients(rng):
    images, mask = batch(rng)
    flat = []
    for enable in (False, True):
        model = small(dropout=0.2, dtype="float64")
        model.set_grad_checkpointing(enable)
        tape = nv.Tape(model, seed=3)
        _, dout = nv.losses.detection(model.forward((images, mask), tape), TARGETS)
        model.backward(dout, tape)
        flat.append(tape.flat.copy())
    assert np.array_equal(*flat)


@pytest.mark.parametrize("kind", [DETR, AnchorDETR])
def test_it_runs_where_nothing_may_be_read_on_the_host(rng, kind):
    model, (images, mask) = small(kind, dtype="float64"), batch(rng)
    inputs = (images, mask, copies())[: 2 if kind is DETR else 3]

    def run(convert):
        tape = nv.Tape(model)
        moved = tuple({k: convert(v) for k, v in x.items()} if isinstance(x, dict) else convert(x) for x in inputs)
        out = model.forward(moved, tape)
        loss, dout = nv.losses.detection(out, TARGETS)
        model.backward(dout, tape)
        return to_host(loss), to_host(tape.flat)

    expected = run(lambda x: x)
    model.to(stand_in)
    loss, gradients = run(stand_in.asarray)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-10)
    np.testing.assert_allclose(gradients, expected[1], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: small(position_embedding="fourier"), "'sine' or 'learned', got 'fourier'"),
        (lambda: DETR(3, 5, "resnet51", **SMALL), "resnet50.*got 'resnet51'"),
        (lambda: small(hidden_dim=10, nheads=5), "width 10 must be divisible by 4"),
        (lambda: small(dec_layers=0), "dec_layers must be at least 1"),
        (lambda: small(AnchorDETR, groups=0), "groups be at least 1"),
        (lambda: small()((np.zeros((2, 3, 16, 24), "f4"), None, copies())), "take no denoising ones"),
        (
            lambda: small(AnchorDETR, denoising=False)((np.zeros((2, 3, 16, 24), "f4"), None, copies())),
            "denoising=False",
        ),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_bad_inputs_are_named(rng):
    model, (images, mask) = small(), batch(rng, "float32")
    for wrong in (images[:, :2], images[0]):
        with pytest.raises(ShapeError, match=r"expected \(batch, 3, height, width\)"):
            model(wrong)
    for wrong in (mask[:1], mask.astype(int), mask[:, :5]):
        with pytest.raises(ShapeError, match=r"expected bool of shape \(2, 16, 24\), True at padding"):
            model((images, wrong))


# ---- presets and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detr_resnet50", "detr_resnet50_dc5"])
def test_official_presets_have_the_published_sizes_and_names(name):
    model = nv.create_model(name)
    assert model.num_parameters() == count_parameters(name) == 41_524_768
    assert sum(p.data.size for _, p in model.named_parameters() if p.trainable) == 41_302_368
    names = model.state_dict().keys()
    assert len(names) == 458
    assert {
        "transformer.encoder.layers.0.self_attn.in_proj_weight",
        "transformer.decoder.layers.5.multihead_attn.out_proj.bias",
        "transformer.decoder.layers.0.linear1.weight",
        "transformer.decoder.norm.weight",
        "backbone.0.body.layer1.0.conv1.weight",
        "backbone.0.body.bn1.running_var",
        "input_proj.weight",
        "query_embed.weight",
        "class_embed.weight",
        "bbox_embed.layers.2.bias",
    } <= names
    assert model.class_embed.weight.data.shape == (92, 256)
    assert isinstance(model, nv.DETR)


def test_parameters_are_counted_without_making_them():
    for name in nv.list_models("detr_m*"):
        for options in ({}, dict(num_classes=4), dict(groups=3, pre_norm=True), dict(position_embedding="learned")):
            assert count_parameters(name, **options) == nv.create_model(name, **options).num_parameters()
    assert (
        count_parameters("detr_micro_64", denoising=False)
        == nv.create_model("detr_micro_64", denoising=False).num_parameters()
    )


def test_a_checkpoint_makes_the_same_model_again(tmp_path, rng):
    model = nv.create_model("detr_micro_64", num_classes=3, seed=5)
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", model)
    again = nv.create_model("detr_micro_64", num_classes=3, pretrained=tmp_path / "w.safetensors")
    images = rng.standard_normal((1, 3, 64, 64)).astype(np.float32)
    assert np.array_equal(model(images)["pred_boxes"], again(images)["pred_boxes"])


def test_another_number_of_classes_drops_the_class_head_and_says_so(tmp_path):
    model = nv.create_model("detr_micro_64", num_classes=3)
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", model)
    with pytest.warns(nv.weights.Notice, match="head for 3 classes was dropped; that for 7"):
        other = nv.create_model("detr_micro_64", num_classes=7, pretrained=tmp_path / "w.safetensors")
    assert other.class_embed.weight.data.shape == (8, 64)
    assert np.array_equal(other.bbox_embed.layers[0].weight.data, model.bbox_embed.layers[0].weight.data)


def hugging_faces_names(arrays):
    """The official names as Hugging Face's files have them, for a backbone of timm's names."""
    theirs = {}
    for name, array in arrays.items():
        name = name.replace("backbone.0.body.", "model.backbone.conv_encoder.model.")
        name = name.replace("transformer.decoder.norm", "model.decoder.layernorm").replace("transformer.", "model.")
        name = name.replace("query_embed.", "model.query_position_embeddings.")
        name = name.replace("input_proj.", "model.input_projection.")
        name = name.replace("class_embed", "class_labels_classifier").replace("bbox_embed", "bbox_predictor")
        name = name.replace("linear", "fc").replace("multihead_attn", "encoder_attn")
        last = "norm3" if ".decoder." in name else "norm2"
        name = name.replace("." + last, ".final_layer_norm").replace(".norm1", ".self_attn_layer_norm")
        name = name.replace(".norm2", ".encoder_attn_layer_norm")
        if "in_proj_" in name:
            thirds = np.split(array, 3)
            theirs |= {name.replace("in_proj_", f"{part}_proj."): third for part, third in zip("qkv", thirds)}
        else:
            theirs[name] = array
    return theirs


def test_hugging_faces_names_become_the_official_ones(tmp_path):
    own = {name: array for name, array in small().state_dict().items() if ".body." not in name}
    theirs = hugging_faces_names(own)
    assert not own.keys() & theirs.keys() and is_detr(theirs) and is_detr(own)
    for given in (theirs, own):
        found = to_official(given)
        assert found.keys() == own.keys() and all(np.array_equal(found[name], own[name]) for name in own)
    name = "model.decoder.layers.0.self_attn.k_proj.bias"
    with pytest.raises(nv.errors.CheckpointError, match="there is only q, v of query, key and value"):
        to_official({key: array for key, array in theirs.items() if key != name})
    with pytest.raises(nv.errors.CheckpointError, match="which differ"):
        to_official({**theirs, name: np.zeros(3)})


# ---- learning -------------------------------------------------------------------------------------------------------


def drawn(rng, size=32):
    """One image of one to three circles and squares, and where they are."""
    image, labels, boxes = np.full((3, size, size), -0.5, np.float32), [], []
    rows, columns = np.mgrid[:size, :size] + 0.5
    for _ in range(rng.integers(1, 4)):
        label, radius = int(rng.integers(0, 2)), rng.uniform(3, 7)
        x, y = rng.uniform(radius, size - radius, 2)
        across, down = np.abs(columns - x), np.abs(rows - y)
        inside = across**2 + down**2 <= radius**2 if label else np.maximum(across, down) <= radius
        image[:, inside] = rng.uniform(0, 1, (3, 1))
        labels.append(label)
        boxes.append([x / size, y / size, 2 * radius / size, 2 * radius / size])
    return image, {"labels": np.array(labels), "boxes": np.array(boxes)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DETR, AnchorDETR])
def test_it_learns_eight_images_by_heart(kind):
    rng, steps, lr = np.random.default_rng(0), 300, 2e-3
    images, targets = zip(*[drawn(rng) for _ in range(8)])
    images, mask = np.stack(images), np.zeros((8, 32, 32), bool)
    sizes = dict(hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, dim_feedforward=64, dropout=0.0)
    model = kind(2, 6, (16, 32, 32), **sizes)
    optimizer, tape = nv.optim.AdamW(model, lr=lr, weight_decay=1e-4), nv.Tape(model, input_gradient=False)
    for step in range(steps):
        known = [nv.losses.denoising_queries(targets, 2, rng=(0, step))] if kind is AnchorDETR else []
        out = model.forward((images, mask, *known), tape)
        _, dout = nv.losses.detection(out, targets)
        model.backward(dout, tape)
        nv.optim.clip_global_norm(tape, 1.0)
        optimizer.lr = lr * min(1, 2 * (1 - step / steps))
        optimizer.step(tape)
        tape.zero()
    _, _, parts = nv.losses.detection(model(images), targets, return_parts=True)
    assert parts["ce"] < 0.15 and parts["bbox"] < 0.03 and parts["giou"] < 0.1
