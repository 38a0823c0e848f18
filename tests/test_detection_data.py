"""Sets of images with boxes: padding and masks, parts of sets, your own arrays, the shapes."""

import pathlib
import re

import numpy as np
import pytest

from numpyvit import data
from numpyvit.data.shapes import CLASSES, draw_shapes, shape_pixels
from numpyvit.errors import ConfigError, DtypeError, InputError, NumpyvitError, ShapeError

TARGET = {"labels": [1], "boxes": [[0.5, 0.5, 0.2, 0.4]]}


@pytest.fixture
def images(rng):
    return [rng.integers(1, 256, (3, *size), dtype=np.uint8) for size in ((4, 6), (8, 5), (7, 7))]


@pytest.fixture
def own(images):
    targets = [{"labels": [i], "boxes": [[0.5, 0.5, 0.2, 0.1 * i]]} for i in range(3)]
    return data.DetectionDataset.from_arrays(images, targets, "abc", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


# ---- the set --------------------------------------------------------------------------------------------------------


def test_smaller_images_are_padded_at_the_right_and_the_bottom(own, images):
    batch, mask = own.batch([0, 1])
    assert batch.shape == (2, 3, 8, 6) and batch.dtype == np.uint8 and mask.dtype == bool
    assert (batch[0, :, :4] == images[0]).all() and (batch[1, :, :, :5] == images[1]).all()
    assert mask[0, :4].sum() == 0 and mask[0, 4:].all() and mask[1, :, :5].sum() == 0 and mask[1, :, 5].all()
    assert not own.batch([1])[1].any()


def test_prepared_images_are_normalized_and_zero_at_the_padding(own, images):
    x, mask = own.prepare(own.batch([0, 1]), np.float64)
    assert x.dtype == np.float64 and (x.transpose(0, 2, 3, 1)[mask] == 0).all()
    expected = (images[0] / 255 - np.array([0.4, 0.5, 0.6])[:, None, None]) / np.array([0.2, 0.3, 0.4])[:, None, None]
    np.testing.assert_allclose(x[0, :, :4], expected, atol=1e-12)
    assert own.prepare(own.batch([0]), np.float32)[0].dtype == np.float32


def test_targets_have_the_promised_types(own):
    (target,) = own.targets([1])
    assert target["labels"].dtype == np.int64 and target["boxes"].dtype == np.float32
    assert target["boxes"].shape == (1, 4) and target["size"] == (8, 5) and target["image_id"] == 1
    assert own.kind == "detection" and own.image_shape == (3, 8, 7) and len(own) == 3


def test_a_part_of_a_part_holds_the_right_images(own, images):
    part = own.take([2, 0]).take(np.array([False, True]))
    assert len(part) == 1 and (part.batch([0])[0][0] == images[0]).all() and part.targets([0])[0]["labels"] == [0]
    assert part.mean == own.mean and part.classes == tuple("abc")


def test_another_normalization_replaces_the_set_s(own):
    other = own.take([2, 1]).normalized_by((0.1,) * 3, (0.9,) * 3)
    assert other.mean == (0.1,) * 3 and other.std == (0.9,) * 3 and len(other) == 2 and own.mean == (0.4, 0.5, 0.6)
    expected = (own.batch([2])[0] / 255 - 0.1) / 0.9
    np.testing.assert_allclose(other.prepare(other.batch([0]), np.float64)[0], expected, atol=1e-12)


def test_the_set_is_shown_without_pixels(own):
    assert repr(own) == "DetectionDataset(3 images of up to 3×8×7, 3 classes: a, b, c)"


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"labels": [3]}, InputError, "target 1 has labels from 3 to 3, expected 0 to 2"),
        ({"labels": [0.5]}, DtypeError, "target 1 has labels of float64"),
        ({"labels": [1, 2]}, ShapeError, r"labels \(2,\) and boxes \(1, 4\)"),
        ({"boxes": [[10, 10, 5, 5]]}, InputError, "target 1 has boxes outside 0..1"),
        ({"boxes": [[np.nan, 0.5, 0.1, 0.1]]}, InputError, "outside 0..1"),
    ],
)
def test_targets_that_do_not_fit_are_named(images, change, error, message):
    with pytest.raises(error, match=message) as caught:
        data.DetectionDataset.from_arrays(images, [TARGET, {**TARGET, **change}, TARGET], "abc")
    assert isinstance(caught.value, NumpyvitError) and "\n" not in str(caught.value)


def test_images_that_do_not_fit_are_named(images):
    from_arrays = data.DetectionDataset.from_arrays
    with pytest.raises(DtypeError, match="image 2 is float64"):
        from_arrays([*images[:2], images[2] / 255], [TARGET] * 3, "abc")
    with pytest.raises(ShapeError, match=r"image 1 has the shape \(1, 8, 5\)"):
        from_arrays([images[0], images[1][:1]], [TARGET] * 2, "abc")
    with pytest.raises(ShapeError, match="3 images and 2 targets"):
        from_arrays(images, [TARGET] * 2, "abc")
    with pytest.raises(ConfigError, match="target 0 has the keys labels; expected"):
        from_arrays(images[:1], [{"labels": []}], "abc")
    empty = from_arrays(images[:1], [{"labels": [], "boxes": np.empty((0, 4))}], "abc").targets([0])[0]
    assert empty["labels"].shape == (0,) and empty["boxes"].shape == (0, 4)


# ---- shapes ---------------------------------------------------------------------------------------------------------


def test_shapes_are_the_same_each_time_and_differ_by_seed_and_part():
    first, again = data.load_shapes(), data.load_shapes()
    assert [len(first[part]) for part in ("train", "val", "test")] == [2000, 500, 500]
    some = [7, 3, 1999]
    assert (first["train"].batch(some)[0] == again["train"].batch(some[::-1])[0][::-1]).all()
    others = [first["val"], first["test"], data.load_shapes(seed=1)["train"]]
    assert all((first["train"].batch([7])[0] != other.batch([7])[0]).any() for other in others)
    assert len({first["train"].source.image(i).tobytes() for i in range(200)}) == 200


def test_each_box_fits_its_shape():
    for seed in range(300):
        image, labels, boxes = draw_shapes(np.random.default_rng(seed), (64, 80))
        assert 1 <= len(labels) == len(boxes) <= 4 and boxes.min() >= 0 and (boxes[:, 2:] <= (80, 64)).all()
        for label, (left, top, right, bottom) in zip(labels, boxes):
            alone = np.zeros((64, 80), bool)
            alone[top:bottom, left:right] = shape_pixels(CLASSES[label], right - left)
            rows, columns = np.flatnonzero(alone.any(1)), np.flatnonzero(alone.any(0))
            assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (left, top, right, bottom)
            patch = image[:, top:bottom, left:right].reshape(3, -1)[:, alone[top:bottom, left:right].ravel()]
            colors, counts = np.unique(patch, axis=1, return_counts=True)
            assert counts.max() > 0.4 * patch.shape[1] and colors[:, counts.argmax()].max() > 150  # mostly seen


@pytest.mark.parametrize("name", CLASSES)
def test_a_shape_touches_all_sides_of_its_box(name):
    for side in range(5, 60):
        pixels = shape_pixels(name, side)
        assert pixels.shape == (side, side)
        assert pixels[0].any() and pixels[-1].any() and pixels[:, 0].any() and pixels[:, -1].any()


def test_targets_of_shapes_are_shares_of_the_image():
    shapes = data.load_shapes((48, 96))["test"]
    (target,) = shapes.targets([5])
    _, labels, boxes = draw_shapes(np.random.default_rng((0, 2, 5)), (48, 96))
    x, y, w, h = target["boxes"].T
    corners = np.stack([(x - w / 2) * 96, (y - h / 2) * 48, (x + w / 2) * 96, (y + h / 2) * 48], axis=1)
    np.testing.assert_allclose(corners, boxes, atol=1e-4)
    assert target["size"] == (48, 96) and (target["labels"] == labels).all() and shapes.image_shape == (3, 48, 96)


def test_shapes_are_loaded_by_name():
    train, test = data.load("shapes", img_size=(32, 32))
    assert (len(train), len(test), train.name, train.image_shape) == (2000, 500, "shapes", (3, 32, 32))
    assert data.load("shapes")[0].image_shape == (3, 64, 64) and len(data.load_test("shapes")) == 500
    with pytest.raises(ConfigError, match="at least 16×16"):
        data.load("shapes", img_size=(8, 8))


def test_the_page_s_programs_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (pathlib.Path(__file__).parents[1] / "docs" / "detection-data.md").read_text()
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S):
        exec(compile(block, "detection-data.md", "exec"), names)
    assert (tmp_path / "boxes.png").exists() and len(names["loader"]) == 125
