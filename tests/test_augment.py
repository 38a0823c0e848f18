import numpy as np
import pytest

from numpyvit import data
from numpyvit.errors import ConfigError

LABELS = np.arange(5)


@pytest.fixture
def batch(rng):
    return rng.integers(0, 256, (5, 3, 9, 7), dtype=np.uint8)


def test_an_affine_that_does_nothing_is_the_identity(batch, rng):
    assert np.array_equal(data.random_affine()(batch, LABELS, rng)[0], batch)


def test_bilinear_sampling_turns_shifts_and_mixes(batch):
    from numpyvit.data.augment import sample_bilinear

    y, x = (np.broadcast_to(a, (5, 9, 7)).astype(float) for a in np.mgrid[:9, :7])
    shifted = sample_bilinear(batch, y + 2, x - 1)
    assert np.array_equal(shifted[:, :, :-2, 1:], batch[:, :, 2:, :-1])
    assert (shifted[:, :, -2:] == 0).all() and (shifted[:, :, :, 0] == 0).all()
    half = sample_bilinear(batch.astype(np.float64), y, x + 0.5)
    np.testing.assert_allclose(half[..., :-1], (batch[..., :-1].astype(float) + batch[..., 1:]) / 2)


def test_a_quarter_turn_is_rot90(rng, monkeypatch):
    square = rng.integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)

    class Fixed:
        def uniform(self, low, high, size):
            return np.full(size, {-90: 90.0, 0: 0.0, 1: 1.0}[int(low)])

    turned, _ = data.random_affine(degrees=90)(square, LABELS[:2], Fixed())
    assert any(np.array_equal(turned, np.rot90(square, k, (2, 3))) for k in (1, 3))


def test_random_crop_moves_each_image_by_itself(batch, rng):
    cropped, _ = data.random_crop(2)(np.repeat(batch[:1], 64, axis=0), np.zeros(64, int), rng)
    assert cropped.shape == (64, 3, 9, 7)
    padded = np.pad(batch[0], ((0, 0), (2, 2), (2, 2)))
    windows = {padded[:, i : i + 9, j : j + 7].tobytes() for i in range(5) for j in range(5)}
    seen = {image.tobytes() for image in cropped}
    assert seen <= windows and len(seen) > 15


def test_random_flip_flips_some_and_leaves_the_original(batch, rng):
    many = np.repeat(batch[:1], 50, axis=0)
    before = many.copy()
    flipped, _ = data.random_flip()(many, np.zeros(50, int), rng)
    count = sum(np.array_equal(image, batch[0, :, :, ::-1]) for image in flipped)
    assert 10 < count < 40 and np.array_equal(many, before)


@pytest.mark.parametrize("change", [data.random_affine(10, 1), data.random_crop(2), data.random_flip()])
def test_a_change_of_pixels_leaves_the_targets_alone(batch, rng, change):
    images, labels = change(batch, LABELS, rng)
    assert images.shape == batch.shape and labels is LABELS


def test_an_augmentation_may_change_the_targets_too():
    train, _ = data.load("digits")

    def mix(inputs, targets, rng):
        soft = np.eye(10)[targets]
        return (inputs // 2 + inputs[::-1] // 2), (soft + soft[::-1]) / 2

    _, targets = next(data.Loader(train, 32, augment=[mix]).epoch())
    assert targets.shape == (32, 10)
    np.testing.assert_allclose(targets.sum(1), 1)


def test_an_augmentation_of_another_form_is_an_error_that_says_which_is_meant():
    train, _ = data.load("digits")

    def old(images, rng):
        return images

    def alone(inputs, targets, rng):
        return inputs

    for function, reason in ((old, "takes 2 positional arguments"), (alone, "it returned a ndarray")):
        with pytest.raises(ConfigError, match=rf"\(inputs, targets, rng\) -> \(inputs, targets\), but .*{reason}"):
            next(data.Loader(train, 32, augment=[function]).epoch())

    def faulty(inputs, targets, rng):
        return len(5)

    with pytest.raises(TypeError, match="has no len"):
        next(data.Loader(train, 32, augment=[faulty]).epoch())
