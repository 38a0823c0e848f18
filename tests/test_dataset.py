"""Sets in memory and from arrays, and the batches made of them."""

import dataclasses

import numpy as np
import pytest

from numpyvit import data
from numpyvit.data import Dataset
from numpyvit.errors import ConfigError, DtypeError, InputError, NumpyvitError, ShapeError


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 3, 8, 10), dtype=np.uint8)


LABELS = np.array([0, 1, 2, 0, 1, 2])
STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


# ---- what a Dataset holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda i: {"images": (i / 255).astype("f4")}, DtypeError, "float32.*uint8 pixels.*from_arrays"),
        (lambda i: {"images": i.astype(int)}, DtypeError, "int64.*uint8 pixels"),
        (lambda i: {"images": i.tolist()}, DtypeError, "are list"),
        (lambda i: {"images": i.transpose(0, 2, 3, 1)}, ShapeError, r"\(6, 8, 10, 3\) have their channels last"),
        (lambda i: {"images": i[:, 0]}, ShapeError, r"\(6, 8, 10\), expected \(N, C, H, W\)"),
        (lambda i: {"images": i[:4]}, ShapeError, r"labels have the shape \(6,\), expected \(4,\)"),
        (lambda i: {"labels": LABELS[:, None]}, ShapeError, r"\(6, 1\), expected \(6,\)"),
        (lambda i: {"labels": LABELS / 2}, DtypeError, "float64, expected an array of integers"),
        (lambda i: {"labels": LABELS.tolist()}, DtypeError, "are list, expected an array of integers"),
        (lambda i: {"labels": LABELS + 1}, InputError, "from 1 to 3, expected 0 to 2 for the 3 classes"),
        (lambda i: {"labels": LABELS - 1}, InputError, "from -1 to 1"),
        (lambda i: {"mean": (0.5,)}, ConfigError, "mean must be 3 finite numbers"),
        (lambda i: {"std": (0.5, 0.5, float("nan"))}, ConfigError, "std must be 3 finite numbers"),
        (lambda i: {"std": (0.5, 0.5, 0.0)}, ConfigError, "std must be above 0"),
    ],
)
def test_a_dataset_says_what_does_not_fit(images, change, error, message):
    whole = Dataset(images, LABELS, ("a", "b", "c"), **STATISTICS)
    with pytest.raises(error, match=message) as caught:
        dataclasses.replace(whole, **change(images))
    assert isinstance(caught.value, NumpyvitError) and "\n" not in str(caught.value)


def test_images_of_other_channel_counts_are_taken(images):
    four = Dataset(np.repeat(images[:, :1], 4, axis=1), LABELS, "abc", (0.5,) * 4, (0.5,) * 4)
    assert four.image_shape == (4, 8, 10) and len(four.take([])) == 0


def test_sets_and_loaders_are_shown_without_pixels(images, image_folder):
    train = Dataset(np.repeat(images, 300, axis=0), np.tile(LABELS, 300), ("a", "b", "c", "d"), **STATISTICS)
    assert repr(train) == "Dataset(1,800 images of 3×8×10, 4 classes: a, b, c, …)"
    assert repr(data.Loader(train, 64, shuffle=True)).endswith("a, b, c, …), 29 batches of 64 an epoch, shuffled)")
    folder = data.load(str(image_folder), img_size=(8, 6))[0]
    assert repr(folder) == "FolderDataset(16 images of 3×8×6, 2 classes: bright, dark)"


# ---- from arrays ----------------------------------------------------------------------------------------------------


def test_every_layout_and_type_of_array_gives_the_same_set(images):
    expected = Dataset.from_arrays(images, LABELS)
    assert np.array_equal(expected.images, images) and expected.classes == ("0", "1", "2")
    for same in (images.transpose(0, 2, 3, 1), images / 255, (images / 255).astype("f4"), (images / 255).astype("f2")):
        other = Dataset.from_arrays(same, LABELS.astype(np.uint8))
        assert other.images.dtype == np.uint8 and np.array_equal(other.images, images)
        assert (other.mean, other.std, other.classes) == (expected.mean, expected.std, expected.classes)
    assert (Dataset.from_arrays(np.full((6, 4, 4), 0.999), LABELS).images == 255).all()  # rounded, not cut
    gray = [Dataset.from_arrays(a, LABELS.tolist()) for a in (images[:, 0], images[:, :1], images[:, 0, :, :, None])]
    assert all(np.array_equal(one.images, images[:, :1]) for one in gray)


def test_mean_and_std_are_those_of_the_pixels(rng):
    many = rng.integers(0, 200, (900, 3, 64, 64), dtype=np.uint8)  # more than is counted at a time
    found = Dataset.from_arrays(many, np.zeros(900, int))
    np.testing.assert_allclose(found.mean, many.mean((0, 2, 3)) / 255, rtol=1e-9)
    np.testing.assert_allclose(found.std, many.std((0, 2, 3)) / 255, rtol=1e-9)
    test = Dataset.from_arrays(many[:5], np.zeros(5, int), ["only"], found.mean, found.std)
    assert (test.mean, test.std, test.classes) == (found.mean, found.std, ("only",))


def test_images_of_one_color_can_be_normalized():
    flat = Dataset.from_arrays(np.full((4, 5, 5), 51, np.uint8), np.zeros(4, int))
    (x, _) = next(data.Loader(flat, 4).epoch())
    assert flat.mean == (0.2,) and np.abs(x).max() < 1e-6


@pytest.mark.parametrize(
    "images, labels, error, message",
    [
        (np.full((2, 8, 8), 16.0), [0, 1], InputError, "from 16.0 to 16.0, expected 0 to 1"),
        (np.full((2, 8, 8), np.nan), [0, 1], InputError, "expected 0 to 1"),
        (np.full((2, 8, 8), -0.5), [0, 1], InputError, "from -0.5"),
        (np.zeros((2, 8, 8), int), [0, 1], DtypeError, "int64, expected uint8"),
        (np.zeros((2, 8, 8, 4)), [0, 1], ShapeError, "1 or 3 channels"),
        (np.zeros((2, 64)), [0, 1], ShapeError, r"\(2, 64\), expected \(N, H, W\)"),
        (np.zeros((0, 8, 8)), [], InputError, "no images"),
        (np.zeros((2, 8, 8)), [0, 1, 1], ShapeError, "one for each image"),
        (np.zeros((2, 8, 8)), [0, 0.5], DtypeError, "integers"),
        (np.zeros((2, 8, 8)), ["a", "b"], DtypeError, "integers"),
        (np.zeros((2, 8, 8)), [0, -1], InputError, "from -1 to 0, expected from 0 up"),
    ],
)
def test_arrays_that_are_no_set_are_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        Dataset.from_arrays(images, labels)


def test_labels_outside_given_classes_are_refused(images):
    with pytest.raises(InputError, match="expected 0 to 1 for the 2 classes"):
        Dataset.from_arrays(images, LABELS, classes=("a", "b"))


# ---- batches --------------------------------------------------------------------------------------------------------


def test_the_loader_shows_every_image_once_and_follows_the_seed():
    train, _ = data.load("digits")
    loader = data.Loader(train, 100, shuffle=True, seed=1)
    first = [labels for _, labels in loader.epoch(0)]
    assert [len(labels) for labels in first] == [100] * 14 + [37] and len(loader) == 15
    assert np.array_equal(np.sort(np.concatenate(first)), np.sort(train.labels))
    assert all(np.array_equal(a, b) for a, (_, b) in zip(first, loader.epoch(0)))
    assert not np.array_equal(first[0], next(loader.epoch(1))[1])
    assert not np.array_equal(first[0], next(data.Loader(train, 100, shuffle=True, seed=2).epoch(0))[1])


def test_an_epoch_can_begin_in_its_middle():
    train, _ = data.load("digits")
    loader = data.Loader(train, 100, shuffle=True, augment=[data.random_affine(10, 1)], seed=1)
    whole, rest = list(loader.epoch(2)), list(loader.epoch(2, first=9))
    assert len(rest) == 6
    assert all(np.array_equal(a, b) for one, other in zip(whole[9:], rest) for a, b in zip(one, other))


def test_images_are_normalized(images):
    x = data.normalize(images, (0.25,) * 3, (0.5,) * 3)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, (images / 255 - 0.25) / 0.5, atol=1e-6)


def test_labels_of_any_integers_come_out_as_int64(images):
    loader = data.Loader(Dataset.from_arrays(images, LABELS.astype(np.uint8)), 4)
    assert [labels.dtype for _, labels in loader.epoch()] == [np.int64] * 2


@pytest.mark.parametrize("batch_size", [0, 2.5, "8"])
def test_a_loader_refuses_other_batch_sizes(images, batch_size):
    with pytest.raises(ConfigError, match="batch_size must be an int of at least 1"):
        data.Loader(Dataset.from_arrays(images, LABELS), batch_size)
