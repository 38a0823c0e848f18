"""How images are prepared: one type for the data, the models and the files."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import data
from numpyvit.data import Preprocessing
from numpyvit.errors import ConfigError

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9)


def test_a_model_has_that_of_its_pretrained_cfg():
    model = nv.create_model("deit_tiny_patch16_224", depth=1)
    assert model.preprocessing == IMAGENET
    assert model.pretrained_cfg == {**IMAGENET.as_dict(), "classes": None}
    model.pretrained_cfg["crop_pct"] = 1.0
    assert model.preprocessing.crop_pct == 1 and model.preprocessing.mean == IMAGENET.mean
    bare = nv.VisionTransformer(img_size=8, patch_size=4, in_chans=1, embed_dim=8, depth=1, num_heads=1)
    assert bare.preprocessing == Preprocessing((0.5,), (0.5,))


def test_other_channels_have_a_half_and_a_single_mean_is_repeated():
    assert IMAGENET.for_channels(3) == IMAGENET
    assert IMAGENET.for_channels(1) == Preprocessing((0.5,), (0.5,), crop_pct=0.9)
    assert Preprocessing((0.3,), (0.2,)).for_channels(3) == Preprocessing((0.3,) * 3, (0.2,) * 3)


def test_reading_and_normalizing_are_those_of_the_functions(image_folder):
    path = sorted(image_folder.rglob("*.png"))[0]
    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), "bilinear", 0.8)
    pixels = preprocessing.read(path, (3, 8, 6))
    assert np.array_equal(pixels, data.read_image(path, (8, 6), 3, 0.8, "bilinear"))
    expected = (pixels / 255 - np.reshape([0.4, 0.5, 0.6], (3, 1, 1))) / np.reshape([0.1, 0.2, 0.3], (3, 1, 1))
    np.testing.assert_allclose(preprocessing.normalize(pixels), expected, atol=1e-5)
    assert preprocessing.normalize(pixels).dtype == np.float32


def test_a_folder_is_read_as_it_says_and_its_parts_too(image_folder):
    preprocessing = Preprocessing((0.4,) * 3, (0.2,) * 3, "bilinear", 0.5)
    folder = data.load(str(image_folder), img_size=(8, 6))[0]
    prepared = folder.prepared(preprocessing)
    assert folder.preprocessing == Preprocessing() and prepared.take([1]).preprocessing == preprocessing
    assert prepared.mean == (0.4,) * 3 and prepared.std == (0.2,) * 3
    expected = preprocessing.read(folder.paths[1], (3, 8, 6))
    assert np.array_equal(prepared.batch([1])[0], expected) and not np.array_equal(folder.batch([1])[0], expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": "abc"},
        {"mean": (0.5, None)},
        {"std": (0.5, 0.0)},
        {"std": (float("nan"),)},
        {"interpolation": "cubic"},
        {"interpolation": []},
        {"crop_pct": 0},
        {"crop_pct": 1.5},
        {"crop_pct": "1"},
    ],
)
def test_values_that_cannot_be_are_named(wrong):
    with pytest.raises(ConfigError, match=f"'{next(iter(wrong))}' cannot be"):
        Preprocessing(**wrong)


def test_notes_of_other_kinds_are_left_out():
    notes = {"mean": [0.1, 0.2, 0.3], "crop_pct": None, "classes": ["a"], "recipe": {}}
    assert Preprocessing.of(notes) == Preprocessing((0.1, 0.2, 0.3))
