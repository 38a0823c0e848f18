import numpy as np
import pytest

from numpyvit import data


@pytest.fixture
def batch(rng):
    return rng.integers(0, 256, (5, 3, 9, 7), dtype=np.uint8)


def test_an_affine_that_does_nothing_is_the_identity(batch, rng):
    assert np.array_equal(data.random_affine()(batch, rng), batch)


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

    turned = data.random_affine(degrees=90)(square, Fixed())
    assert any(np.array_equal(turned, np.rot90(square, k, (2, 3))) for k in (1, 3))


def test_random_crop_moves_each_image_by_itself(batch, rng):
    cropped = data.random_crop(2)(np.repeat(batch[:1], 64, axis=0), rng)
    assert cropped.shape == (64, 3, 9, 7)
    padded = np.pad(batch[0], ((0, 0), (2, 2), (2, 2)))
    windows = {padded[:, i : i + 9, j : j + 7].tobytes() for i in range(5) for j in range(5)}
    seen = {image.tobytes() for image in cropped}
    assert seen <= windows and len(seen) > 15


def test_random_flip_flips_some_and_leaves_the_original(batch, rng):
    many = np.repeat(batch[:1], 50, axis=0)
    before = many.copy()
    flipped = data.random_flip()(many, rng)
    count = sum(np.array_equal(image, batch[0, :, :, ::-1]) for image in flipped)
    assert 10 < count < 40 and np.array_equal(many, before)
