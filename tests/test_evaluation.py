"""How a set is scored: classes found by name, top-1 and top-5, class by class."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.core import FORGET, Layer, Parameter
from numpyvit.data import Dataset
from numpyvit.errors import ConfigError, NumpyvitError
from numpyvit.metrics import label_ranks
from numpyvit.training.class_names import imagenet_wnids, match_classes
from numpyvit.weights.adapt import Notice, imagenet_classes

ANIMALS = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]


class Reading(Layer):
    """Reads its logits off the image, a pixel for each class."""

    def __init__(self, classes=None):
        self.weight, self.num_classes = Parameter(np.zeros(1, np.float32)), len(ANIMALS)
        self.pretrained_cfg = {"classes": classes}

    def forward(self, x, tape=FORGET):
        return x[:, :, 0, 0]


def images_of(order):
    """An image for each row of class names, from the most probable to the least likely for `Reading`."""
    images = np.zeros((len(order), len(ANIMALS), 1, 1), np.uint8)
    for image, names in zip(images, order):
        for place, name in enumerate(names):
            image[ANIMALS.index(name)] = 255 - place
    return images


def dataset(images, names, classes):
    labels = np.array([classes.index(name) for name in names])
    return Dataset(images, labels, tuple(classes), (0.0,) * images.shape[1], (1.0,) * images.shape[1])


IMAGES = images_of([["fox"], ["fox", "bee"], ["bee"], ["dog"]])
ARE = ["fox", "bee", "bee", "dog"]  # the second is mistaken for a fox


@pytest.mark.parametrize("classes", [ANIMALS, ANIMALS[::-1], ["fox", "dog", "bee"], ["Dog", "BEE", "fox"]])
def test_classes_are_matched_by_name_in_any_order_and_number(classes):
    names = [next(c for c in classes if c.casefold() == name) for name in ARE]
    scores = nv.evaluate(Reading(ANIMALS), dataset(IMAGES, names, classes))
    assert scores["accuracy"] == 0.75 and scores["top5_accuracy"] == 1 and scores["left_out"] == []
    assert scores["loss"] == nv.evaluate(Reading(ANIMALS), dataset(IMAGES, ARE, ANIMALS))["loss"]


def test_a_model_without_names_takes_labels_by_number():
    assert nv.evaluate(Reading(), dataset(IMAGES, ARE, ANIMALS))["accuracy"] == 0.75
    stale = Reading(["cat", "dog"])  # names of a head for another number of classes
    assert nv.evaluate(stale, dataset(IMAGES, ARE, ANIMALS))["accuracy"] == 0.75
    with pytest.raises(ConfigError, match="num_classes=8"):
        nv.evaluate(Reading(), dataset(IMAGES, ARE, [*ANIMALS, "yak"]))


def test_what_the_model_does_not_know_is_left_out_and_said():
    with pytest.warns(Notice, match="left out 2 of 4 images.*wasp") as caught:
        scores = nv.evaluate(Reading(ANIMALS), dataset(IMAGES, ["fox", "wasp", "wasp", "dog"], ["wasp", "dog", "fox"]))
    assert scores["images"] == 2 and scores["accuracy"] == 1 and scores["left_out"] == ["wasp"]
    assert caught[0].filename == __file__  # the line that called evaluate


def test_a_class_without_images_is_not_left_out():
    scores = nv.evaluate(Reading(ANIMALS), dataset(IMAGES, ARE, ["wasp", *ANIMALS]))
    assert scores["images"] == 4 and scores["left_out"] == []


def test_the_loss_is_the_mean_over_all_images():
    logits = IMAGES[:, :, 0, 0] / 255
    labels = [ANIMALS.index(name) for name in ARE]
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(4), labels]
    scores = nv.evaluate(Reading(ANIMALS), dataset(IMAGES, ARE, ANIMALS), batch_size=3)
    assert scores["loss"] == pytest.approx(expected.mean(), rel=1e-6) and scores["images"] == 4


def test_a_set_of_other_classes_is_refused():
    with pytest.raises(
        ConfigError, match=r"no class of the data \(oak, elm\) is a class of the model \(ant, .* 7 in all"
    ):
        nv.evaluate(Reading(ANIMALS), dataset(IMAGES, ["oak", "elm", "oak", "elm"], ["oak", "elm"]))


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(NumpyvitError, match="labels go from 0 to 5"):
        Dataset(IMAGES, np.array([0, 1, 0, 5]), ("fox", "bee"), (0.0,) * 7, (1.0,) * 7)


def test_top_5_holds_the_five_most_probable():
    order = [ANIMALS, ANIMALS]
    scores = nv.evaluate(Reading(ANIMALS), dataset(images_of(order), ["elk", "fox"], ANIMALS))
    assert scores["accuracy"] == 0 and scores["top5_accuracy"] == 0.5  # fifth and sixth


def test_what_the_model_says_of_each_image_with_its_row():
    """The wasp in the second row is left out; numbers are those of the model's outputs."""
    with pytest.warns(Notice):
        scores = nv.evaluate(
            Reading(ANIMALS),
            dataset(IMAGES, ["fox", "wasp", "bee", "elk"], ["wasp", "elk", "bee", "fox"]),
            per_image=True,
        )
    said, logits = scores["per_image"], IMAGES[:, :, 0, 0] / 255
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert said["image"].tolist() == [0, 2, 3] and said["label"].tolist() == [5, 1, 4]
    assert said["predicted"].tolist() == [5, 1, 3]
    np.testing.assert_allclose(said["probability"], p[[0, 2, 3], [5, 1, 3]], rtol=1e-5)
    np.testing.assert_allclose(said["label_probability"], p[[0, 2, 3], [5, 1, 4]], rtol=1e-5)


def test_figures_of_each_class_say_what_it_is_mistaken_for():
    scores = nv.evaluate(
        Reading(ANIMALS), dataset(IMAGES, ["FOX", *ARE[1:]], ["FOX", "bee", "dog", "elk"]), per_class=True
    )
    fox, bee, dog = scores["per_class"]  # there is no image of an elk
    assert fox == {
        "class": "FOX", "model_class": "fox", "images": 1, "accuracy": 1.0, "top5_accuracy": 1.0, "mistaken_for": None
    }  # fmt: skip
    assert bee["images"] == 2 and bee["accuracy"] == 0.5 and bee["mistaken_for"] == "fox"
    assert dog["accuracy"] == 1


def test_of_equal_logits_the_first_is_likelier_and_nan_is_never_right(rng):
    logits = rng.integers(0, 3, (200, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    ranks = label_ranks(logits, labels)
    assert np.array_equal(np.take_along_axis(order, ranks[:, None], 1)[:, 0], labels)
    assert np.array_equal(ranks == 0, logits.argmax(1) == labels)
    assert label_ranks(np.full((2, 4), np.nan), np.array([0, 3])).min() > 0
    assert label_ranks(np.array([[1.0, np.nan]]), np.array([0])) == 1


def test_imagenets_classes_are_found_by_name_and_by_wordnet_id():
    names, ids = imagenet_classes(), imagenet_wnids()
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    assert match_classes(names, ids) == list(range(1000))
    assert match_classes(names, names) == list(range(1000))
    assert match_classes(names, ["n02124075", "Egyptian_cat", "golden retriever", "tench"]) == [285, 285, 207, 0]
    assert match_classes(["espresso", "Egyptian cat"], ["n02124075", "n07920052"]) == [1, 0]
    assert match_classes(["n07920052", "n02124075"], ["Egyptian cat"]) == [1]
    assert match_classes(names, ["crane", "n02012849", "n03126707"]) == [None, 134, 517]  # the bird, the machine


def test_names_are_found_exactly_before_they_are_found_loosely():
    assert match_classes(["Cardigan", "cardigan"], ["cardigan", "Cardigan", "CARDIGAN"]) == [1, 0, None]
    assert match_classes(["a b", "c"], ["C", "A_B", "d"]) == [1, 0, None]
    assert match_classes(["a", "a"], ["a", "a"]) == [0, 1]  # the same list, as of a set that the model was trained on
    assert match_classes(["a", "a", "b"], ["a", "b"]) == [None, 2]
    assert match_classes([7, 8], ("8", "9", 7)) == [1, None, 0]  # names may be numbers


def test_fit_gives_the_model_the_names_of_its_training_set(tmp_path):
    train, test = (part.take(slice(0, 64)) for part in nv.data.load("digits"))
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    model.pretrained_cfg["classes"] = [f"letter {c}" for c in "abcdefghij"]  # of a checkpoint, say, for other data
    records = nv.fit(model, train, test, epochs=1, progress=False, out=tmp_path / "run")
    again = nv.create_model(
        "vit_micro_patch2_8", tmp_path / "run" / "last.safetensors", embed_dim=16, depth=1, num_heads=2
    )
    for fitted in (model, again):
        assert nv.evaluate(fitted, test)["accuracy"] == records[-1]["val_accuracy"]
        cfg = fitted.pretrained_cfg
        assert cfg["classes"] == list("0123456789") and list(cfg["mean"]) == list(train.mean) and cfg["crop_pct"] == 1


def test_validation_finds_its_classes_in_another_order():
    train, test = (part.take(slice(0, 64)) for part in nv.data.load("digits"))
    options = dict(epochs=1, progress=False, batch_size=16, warmup_steps=0)
    backwards = Dataset(test.images, 9 - test.labels, test.classes[::-1], test.mean, test.std)
    records = []
    for val in (test, backwards):
        model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
        records += nv.fit(model, train, val, **options)
        assert model.pretrained_cfg["classes"] == list("0123456789")
    assert records[0]["val_loss"] == records[1]["val_loss"]


@pytest.mark.parametrize(
    "build",
    [
        lambda **size: nv.ModernVisionTransformer(**size, in_chans=1, embed_dim=8, depth=1, num_heads=2),
        lambda **size: nv.SwinTransformer(
            **size, in_chans=1, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=2
        ),
    ],
    ids=["ViT", "Swin"],
)
def test_images_of_other_sizes_are_scored_where_the_model_takes_them(build):
    images = Dataset.from_arrays(np.random.default_rng(0).random((4, 12, 16)), np.arange(4))
    model = build(img_size=8, patch_size=4, num_classes=4, dynamic_img_size=True)
    assert model.input_shape == (1, 8, 8) and model.takes((1, 12, 16)) and not model.takes((1, 12, 15))
    assert not model.takes((3, 12, 16)) and not model.takes((1, 0, 16))
    assert nv.evaluate(model, images)["images"] == 4
    nv.fit(model, images, images, epochs=1, progress=False)
    fixed = build(img_size=8, patch_size=4, num_classes=4)
    assert fixed.takes((1, 8, 8)) and not fixed.takes((1, 12, 16))
    for run in (lambda: nv.evaluate(fixed, images), lambda: nv.fit(fixed, images, images, progress=False)):
        with pytest.raises(ConfigError, match=r"shape \(1, 12, 16\), the model takes \(1, 8, 8\)"):
            run()
