"""Augmentation of images with boxes: what is drawn is found again where the boxes say."""

import numpy as np
import pytest

from numpyvit import data
from numpyvit.data.augment_boxes import seen_through
from numpyvit.data.shapes import CLASSES, shape_pixels
from numpyvit.errors import ConfigError

SIZES = ((40, 60), (64, 48), (50, 50))


def scene(rng, names=CLASSES):
    """A batch of images of several sizes, with one bright shape each on dark ground; label, area and more beside."""
    images, targets = [], []
    for i in range(24):
        height, width = SIZES[i % len(SIZES)]
        label = int(rng.integers(len(names)))
        shape = shape_pixels(names[label], int(rng.integers(6, 30)))
        h, w = shape.shape
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        image = np.zeros((3, height, width), np.uint8)
        image[:, top : top + h, left : left + w][:, shape] = 255
        images.append(image)
        box = [(left + w / 2) / width, (top + h / 2) / height, w / width, h / height]
        more = {"area": np.array([float(h * w)]), "iscrowd": np.array([i % 2 == 0]), "image_id": f"n{i}"}
        targets.append({"labels": np.array([label]), "boxes": np.array([box], np.float32), **more})
    whole = data.DetectionDataset.from_arrays(images, targets, names)
    return whole.batch(np.arange(24)), whole.targets(np.arange(24))


def corners(inputs, target, i):
    """The boxes in pixels of the batch."""
    mask = inputs[1][i]
    height, width = (~mask[:, 0]).sum(), (~mask[0]).sum()
    x, y, w, h = target["boxes"].T * np.array([width, height, width, height])[:, None]
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)


def drawn(inputs, i):
    """Left, top, right, bottom of what is bright in an image, or None."""
    bright = inputs[0][i, 0] >= 128
    if not bright.any():
        return None
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("change", [data.random_box_flip(0.5, 0.5), data.random_box_scale(0.4, 1)])
def test_shapes_are_found_again_where_the_boxes_say(rng, change):
    before, targets = scene(rng)
    after, changed = change(before, targets, rng)
    moved = 0
    for i, target in enumerate(changed):
        np.testing.assert_allclose(corners(after, target, i)[0], drawn(after, i), atol=1.2)
        moved += abs(drawn(after, i)[0] - drawn(before, i)[0]) > 2
        assert target["labels"] == targets[i]["labels"] and target["image_id"] == f"n{i}"
    assert moved > 5
    assert not after[0].transpose(0, 2, 3, 1)[after[1]].any()  # nothing is drawn on the padding


def test_a_flip_is_exact_and_its_own_inverse(rng):
    before, targets = scene(rng)
    for ways in ((1, 0), (0, 1), (1, 1)):
        after, changed = data.random_box_flip(*ways)(before, targets, rng)
        for i, target in enumerate(changed):
            np.testing.assert_allclose(corners(after, target, i)[0], drawn(after, i), atol=1e-4)
        again, restored = data.random_box_flip(*ways)(after, changed, rng)
        assert (again[0] == before[0]).all() and (again[1] == before[1]).all() and (after[1] == before[1]).all()
        for target, original in zip(restored, targets):
            np.testing.assert_allclose(target["boxes"], original["boxes"], atol=1e-6)
    still, same = data.random_box_flip(0)(before, targets, rng)
    assert (still[0] == before[0]).all() and (same[3]["boxes"] == targets[3]["boxes"]).all()


@pytest.mark.parametrize(
    "change, tolerance",
    [(data.random_box_crop(0.4, p=1, kept=0.3), 1e-3), (data.random_box_scale(1, 2.5, kept=0.3), 1.2)],
)
def test_squares_are_cut_where_the_boxes_say_and_dropped_when_little_is_left(rng, change, tolerance):
    dropped = cut = 0
    for _ in range(4):
        before, targets = scene(rng, ("square",))
        after, changed = change(before, targets, rng)
        for i, target in enumerate(changed):
            seen = drawn(after, i)
            assert len({len(target[key]) for key in ("labels", "boxes", "area", "iscrowd")}) == 1
            if not len(target["boxes"]):
                dropped += 1
                continue
            np.testing.assert_allclose(corners(after, target, i)[0], seen, atol=tolerance)
            share = target["area"][0] / targets[i]["area"][0]
            assert 0.3 <= share <= 1 + 1e-6
            cut += share < 0.99
    assert dropped > 5 and cut > 5


def test_the_visible_share_decides_and_size_and_area_follow():
    target = {
        "labels": np.array([0, 1, 2]),
        "boxes": np.array([[0.5, 0.5, 0.2, 0.2], [0.25, 0.5, 0.1, 0.1], [0.4, 0.1, 0.2, 0.2]], np.float32),
        "area": np.array([100.0, 50.0, 40.0]),
        "iscrowd": np.array([False, True, False]),
        "size": (200, 400),
        "image_id": 7,
    }
    window = (25, 0, 100, 50)  # the right three quarters of the upper half
    seen = seen_through(target, window, (100, 100), kept=0.2)
    assert seen["labels"].tolist() == [0, 1, 2] and seen["iscrowd"].tolist() == [False, True, False]
    assert seen["size"] == (100, 300) and seen["image_id"] == 7 and seen["boxes"].dtype == np.float32
    np.testing.assert_allclose(seen["area"], [50, 12.5, 40], atol=1e-4)
    np.testing.assert_allclose(seen["boxes"][0], [(0.5 - 0.25) / 0.75, 0.9, 0.2 / 0.75, 0.2], atol=1e-6)
    assert seen_through(target, window, (100, 100), kept=0.3)["labels"].tolist() == [0, 2]
    assert seen_through(target, window, (100, 100), kept=0.6)["labels"].tolist() == [2]
    assert (target["labels"] == [0, 1, 2]).all() and target["size"] == (200, 400)


def test_what_is_given_is_not_changed_and_the_draw_decides(rng):
    before, targets = scene(rng)
    images, mask = before[0].copy(), before[1].copy()
    boxes = [target["boxes"].copy() for target in targets]
    for change in (data.random_box_flip(1, 1), data.random_box_crop(p=1), data.random_box_scale()):
        first, second = (change(before, targets, np.random.default_rng(5)) for _ in range(2))
        other = change(before, targets, np.random.default_rng(6))
        assert (first[0][0] == second[0][0]).all() and first[0][0].dtype == np.uint8 and first[0][1].dtype == bool
        assert change.__name__ == "flip" or first[0][0].shape != other[0][0].shape or (first[0][0] != other[0][0]).any()
        assert (before[0] == images).all() and (before[1] == mask).all()
        assert all((target["boxes"] == old).all() for target, old in zip(targets, boxes))


def test_a_cut_batch_is_no_larger_than_it_must_be(rng):
    (images, mask), _ = data.random_box_crop(0.3, p=1)(*scene(rng), rng)
    assert not mask[:, :, 0].all(0).any() and not mask[:, 0].all(0).any()
    assert images.shape[0] == 24 and images.shape[2:] == mask.shape[1:]
    whole = scene(rng)
    assert (data.random_box_crop(0.3, p=0)(*whole, rng)[0][0] == whole[0][0]).all()


def test_images_without_boxes_stay_without(rng):
    empty = {"labels": np.zeros(0, int), "boxes": np.zeros((0, 4), np.float32)}
    one = data.DetectionDataset.from_arrays([np.full((1, 9, 9), 7, np.uint8)], [empty], "a")
    for change in (data.random_box_flip(1, 1), data.random_box_crop(p=1), data.random_box_scale()):
        (images, _), (target,) = change(one.batch([0]), one.targets([0]), rng)
        assert target["boxes"].shape == (0, 4) and images.shape[:2] == (1, 1)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="smallest must be above 0 and at most 1, got 0"):
        data.random_box_crop(0)
    with pytest.raises(ConfigError, match="0 < low <= high, got 2 and 1"):
        data.random_box_scale(2, 1)


def test_an_enlarged_image_takes_nothing_from_its_padding(rng):
    bright = [np.full((1, side, side), 200, np.uint8) for side in (11, 30)]
    none = {"labels": [], "boxes": np.empty((0, 4))}
    both = data.DetectionDataset.from_arrays(bright, [none] * 2, "a")
    for low in (0.5, 1.7):
        (images, mask), _ = data.random_box_scale(low, low + 1e-9)(both.batch([0, 1]), both.targets([0, 1]), rng)
        assert set(images[0, 0][~mask[0]].tolist()) == {200}
