"""The presets: sizes as published, preparation of images as in timm, and what a checkpoint remembers."""

import re

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import cli
from numpyvit.data import Preprocessing
from numpyvit.models import class_names, count_multiply_adds, count_parameters, rounded
from numpyvit.models.registry import Variant

# (width, depth, heads): Dosovitskiy et al. 2020, table 1; Touvron et al. 2020, table 1; timm for tiny and small
ARCHITECTURES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
# our own for small images: (image, patch, channels), (width, depth, heads), hidden width of the MLP
OWN = {
    "vit_micro_patch2_8": ((8, 2, 1), (64, 4, 4), 128),
    "vit_micro_patch7_28": ((28, 7, 1), (64, 4, 4), 256),
    "vit_micro_patch4_28": ((28, 4, 1), (64, 6, 4), 128),
    "vit_micro_patch4_32": ((32, 4, 3), (96, 6, 4), 192),
    "vit_mini_patch4_32": ((32, 4, 3), (192, 6, 3), 768),
}
PUBLISHED = [name for name in nv.list_models() if name not in OWN]


def sizes(model):
    """(image, patch, channels), (width, depth, heads), hidden width of the MLP."""
    embed, block = model.patch_embed, model.blocks[0]
    assert embed.img_size[0] == embed.img_size[1] and embed.patch_size[0] == embed.patch_size[1]
    width, channels = embed.proj.weight.data.shape[:2]
    images = embed.img_size[0], embed.patch_size[0], channels
    return images, (width, len(model.blocks), block.attn.num_heads), block.mlp.fc1.weight.data.shape[0]


@pytest.mark.parametrize("name", OWN)
def test_presets_for_small_images(name):
    model = nv.create_model(name)
    assert sizes(model) == OWN[name]
    assert model.num_classes == 10 and isinstance(model, nv.models.NarrowVisionTransformer)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.startswith(("swin", "resnet", "detr"))])
def test_published_presets_are_told_by_their_names(name):
    """Except for their depth, of which one block stands for all; count_parameters is held to the published figures."""
    size, patch, image = re.search(r"_(tiny|small|base|large|huge)_.*patch(\d+)_(?:reg4_)?(\d+|dinov2)", name).groups()
    width, depth, heads = ARCHITECTURES[size]
    model = nv.create_model(name, depth=1)
    image = 518 if image == "dinov2" else int(image)
    assert sizes(model) == ((image, int(patch), 3), (width, 1, heads), 4 * width)
    per_block = sum(p.data.size for _, p in model.blocks[0].named_parameters())
    assert count_parameters(name) - model.num_parameters() == (depth - 1) * per_block
    names = dict(model.named_parameters())
    assert model.num_classes == (0 if "dinov2" in name else 1000)
    assert ("head_dist.weight" in names) == ("distilled" in name)
    assert "blocks.0.attn.qkv.bias" in names
    gammas = {"deit3": 1e-6, "dinov2": 1e-5}
    gamma = next((value for part, value in gammas.items() if part in name), None)
    found = names.get("blocks.0.ls1.gamma")
    assert found is None if gamma is None else (abs(found.data / gamma - 1) < 1e-6).all()
    assert names["reg_token"].data.shape[1] == 4 if "reg4" in name else "reg_token" not in names
    places = (image // int(patch)) ** 2 + (0 if "deit3" in name or "reg4" in name else 1 + ("distilled" in name))
    assert model.pos_embed.data.shape == (1, places, width)


@pytest.mark.parametrize(
    "name, mean, std, crop",
    [
        ("vit_tiny_patch16_224", 0.5, 0.5, 0.9),
        ("deit_tiny_patch16_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9),
        ("deit_tiny_distilled_patch16_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9),
        ("vit_small_patch14_dinov2", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1.0),
        ("vit_base_patch16_384", 0.5, 0.5, 1.0),
        ("vit_micro_patch4_32", 0.5, 0.5, 1.0),
    ],
)
def test_images_are_prepared_as_in_timm(name, mean, std, crop):
    expected = {
        "mean": mean if isinstance(mean, tuple) else (mean,) * 3,
        "std": std if isinstance(std, tuple) else (std,) * 3,
        "interpolation": "bicubic",
        "crop_pct": crop,
        "classes": None,
    }
    assert nv.create_model(name, depth=1).pretrained_cfg == expected


def test_images_of_one_channel_are_prepared_with_one_mean():
    for name in ("vit_micro_patch2_8", "deit_tiny_patch16_224"):
        found = nv.create_model(name, depth=1, in_chans=1).pretrained_cfg
        assert found["mean"] == found["std"] == (0.5,)


def test_classes_are_named_by_the_checkpoint_and_then_by_number():
    model = nv.create_model("vit_micro_patch2_8", num_classes=4)
    assert class_names(model) == ["class 0", "class 1", "class 2", "class 3"]
    model.pretrained_cfg["classes"] = ["cat", "dog"]
    assert class_names(model) == ["cat", "dog", "class 2", "class 3"]


def test_options_of_a_preset_may_be_those_of_its_class_and_of_the_class_below():
    model = nv.create_model("deit3_small_patch16_224", depth=1, reg_tokens=2, qk_norm=True, drop_path_rate=0.1)
    assert model.num_prefix_tokens == 3 and "blocks.0.attn.q_norm.weight" in dict(model.named_parameters())
    for option in ("reg_tokens", "options", "args"):
        with pytest.raises(nv.errors.ConfigError, match=f"no option '{option}'"):
            nv.create_model("vit_tiny_patch16_224", **{option: 1})


def test_seed_type_and_checkpointing_reach_the_model():
    model = nv.create_model("vit_micro_patch2_8", seed=3, dtype="float64", grad_checkpointing=True)
    same = nv.models.NarrowVisionTransformer(8, 2, 1, 10, 64, 4, 4, 2.0, seed=3, dtype="float64")
    assert all((p.data == q.data).all() for (_, p), (_, q) in zip(model.named_parameters(), same.named_parameters()))
    assert model.pos_embed.data.dtype == "float64"
    tape = nv.Tape(model)
    model.forward(model.pos_embed.data[:, :8, :8][:, None], tape)
    assert sum("blocks" in layer.path or isinstance(layer, nv.Recompute) for layer, _ in tape.residuals()) == 4


@pytest.mark.parametrize(
    "name, options",
    [
        ("vit_micro_patch2_8", dict(qkv_bias=False, representation_size=5, global_pool="avg")),
        ("deit_tiny_distilled_patch16_224", dict(depth=1, img_size=(32, 16), representation_size=5)),
        ("deit3_small_patch16_224", dict(depth=2, init_values=None, qk_norm=True, pre_norm=True)),
        ("deit3_small_patch16_224", dict(depth=1, init_values=0.0, class_token=False, global_pool="avg")),
        ("vit_small_patch14_dinov2", dict(depth=1, class_token=False, global_pool="avg", reg_tokens=3)),
        ("vit_small_patch14_reg4_dinov2", dict(depth=1, no_embed_class=False, num_classes=4)),
        ("deit3_small_patch16_224", dict(depth=1, distilled=True)),
        ("deit3_small_patch16_224", dict(depth=1, distilled=True, no_embed_class=False, reg_tokens=2)),
        ("swin_micro_patch2_window4_32", dict(qkv_bias=False, head_dim=(8, 16, 24))),
        ("swin_micro_patch2_window4_32", dict(img_size=8, pad_first=True)),
        ("swin_micro_patch2_window4_32", dict(img_size=8, always_partition=True)),
        ("swin_micro_patch2_window4_32", dict(img_size=8)),
        ("swin_micro_patch2_window4_32", dict(img_size=(36, 24), window_size=(3, 5), num_classes=0)),
        ("resnet18", dict(width=8, img_size=(65, 40), num_classes=3)),
        ("resnet50", dict(width=8, img_size=(65, 90), replace_stride_with_dilation=(False, True, True), in_chans=1)),
        ("detr_resnet50", dict(img_size=(65, 90), backbone="resnet18", enc_layers=1, dec_layers=2, num_queries=7)),
        ("detr_resnet50_dc5", dict(img_size=64, enc_layers=1, dec_layers=1)),
        ("detr_micro_64", dict(img_size=(50, 64), enc_layers=0, num_classes=5)),
    ],
)
def test_every_option_is_counted(name, options):
    model = nv.create_model(name, **options)
    assert count_parameters(name, **options) == model.num_parameters()
    assert count_multiply_adds(name, **options) == model.multiply_adds()


def test_the_list_of_presets_leaves_no_cell_empty(capsys):
    assert cli.main(["models"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(nv.list_models()) and head.split("  ")[0] == "model"
    for line, name in zip(lines, nv.list_models()):
        cells = re.split("  +", line)
        assert cells[:2] == [name, f"{count_parameters(name):,}"] and len(cells) == 5, line
        assert cells[2] == rounded(count_multiply_adds(name)) and ("depth" in cells[4] or "encoder" in cells[4]), line


class Mean(nv.models.Model):
    """A family of one layer: the mean color through a Linear."""

    image_weight, class_layers = "stem.weight", ("fc",)

    def __init__(self, width, in_chans=3, num_classes=10, *, dtype="float32", seed=0):
        self.stem = nv.layers.PatchEmbed(4, 4, in_chans, width, dtype=dtype, seed=seed).proj
        self.fc = nv.layers.Linear(width, num_classes, dtype=dtype, seed=seed)
        self.num_classes = num_classes

    @property
    def input_shape(self):
        return self.stem.weight.data.shape[1], 4, 4

    def takes(self, image_shape):
        return image_shape[0] == self.input_shape[0]

    def forward(self, x, tape=nv.FORGET):
        return self.fc.forward(self.stem.forward(x, tape)[:, 0], tape)


@pytest.fixture
def family(monkeypatch):
    """A preset of another family, known by its row alone."""
    prepared = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", 0.8)
    monkeypatch.setitem(nv.models.VARIANTS, "mean_tiny", Variant(Mean, {"width": 6}, prepared))
    return prepared


def test_a_family_is_known_by_its_row(family, capsys):
    model = nv.create_model("mean_tiny", num_classes=4, seed=1)
    assert nv.list_models("mean*") == ["mean_tiny"] and model.preprocessing == family
    assert count_parameters("mean_tiny", num_classes=4) == model.num_parameters() == 6 * 49 + 4 * 7
    assert nv.models.preset_options("mean_tiny") == {"width": 6, "in_chans": 3, "num_classes": 10}
    assert model.multiply_adds() == 6 * 48 + 4 * 6
    assert nv.create_model("mean_tiny", in_chans=1).preprocessing.mean == (0.5,)
    with pytest.raises(nv.errors.ConfigError, match="no option 'zzz'; it takes width"):
        nv.create_model("mean_tiny", zzz=2)
    assert cli.main(["models", "mean_tiny"]) == 0
    assert "mean_tiny" in capsys.readouterr().out


def test_a_family_says_how_weights_fit_it(family, tmp_path):
    model = nv.create_model("mean_tiny", num_classes=4)
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", model)
    with pytest.warns(nv.weights.Notice, match="head for 4 classes was dropped"):
        gray = nv.create_model("mean_tiny", tmp_path / "w.safetensors", num_classes=5, in_chans=1)
    assert np.allclose(gray.stem.weight.data, model.stem.weight.data.sum(1, keepdims=True))
    same = nv.create_model("mean_tiny", tmp_path / "w.safetensors", num_classes=4, seed=3)
    assert np.array_equal(same.fc.weight.data, model.fc.weight.data)


def test_a_row_may_hold_a_function_that_makes_the_model(monkeypatch):
    def build(width=6, *, dtype="float32", seed=0, **options):
        return Mean(width, dtype=dtype, seed=seed, **options)

    monkeypatch.setitem(nv.models.VARIANTS, "made", Variant(build, {"num_classes": 3}))
    assert nv.create_model("made", width=2).num_parameters() == count_parameters("made", width=2) == 2 * 49 + 3 * 3


def test_a_model_says_how_it_was_made():
    model = nv.create_model("vit_micro_patch2_8", num_classes=np.int64(3), act_layer=nv.layers.Tanh)
    assert model.build_config == {
        "model": "vit_micro_patch2_8", "options": {"num_classes": 3}, "unsaved": ["act_layer"],
    }  # fmt: skip
    assert nv.layers.Linear(2, 2).build_config == {}


@pytest.mark.parametrize(
    "number, shown",
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (5_717_416, "5.717 M"),
        (1_254_000_000, "1.254 G"),
        (2 * 10**12, "2 T"),
        (3 * 10**15, "3000 T"),
    ],
)
def test_large_numbers_are_shown_in_thousands_and_their_powers(number, shown):
    assert rounded(number) == shown
