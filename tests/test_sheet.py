"""Sheets of maps: what is comparable looks the same, nothing is darkened away, and the sheet is filled."""

import numpy as np
import pytest
from PIL import Image

from numpyvit.errors import ShapeError
from numpyvit.viz.sheet import Scale, Tile, draw_images, draw_sheet

SIZE, GAP = 64, 12
BLACK, GRAY = np.zeros((3, 8, 8), np.uint8), np.full((1, 8, 8), 99, np.uint8)


def pixels(path):
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def drawn(path, tiles, image=GRAY, **options):
    """The pixels of each tile of a sheet of one row."""
    draw_sheet(image, tiles, path, tile_size=SIZE, **options)
    sheet = pixels(path)
    return [sheet[GAP : GAP + SIZE, x : x + SIZE] for x in range(GAP, GAP + len(tiles) * (SIZE + GAP), SIZE + GAP)]


def flat(value, name="a"):
    return Tile(name, np.full((4, 4), float(value)))


def test_the_same_value_has_the_same_color_in_every_map(tmp_path):
    mixed = Tile("mixed", np.array([[1.0] * 8] * 4 + [[16.0] * 8] * 4))
    one, both, sixteen = drawn(tmp_path / "sheet.png", [flat(1), mixed, flat(16)])
    assert (both[:8] == one[:8]).all() and (both[-8:] == sixteen[-8:]).all()
    assert (one.mean((0, 1)) > sixteen.mean((0, 1))).any() and one.mean() > sixteen.mean() + 50


def test_a_map_of_another_kind_has_a_scale_of_its_own(tmp_path):
    ramp = np.linspace(1000, 1001, 16).reshape(4, 4)
    common, own = drawn(tmp_path / "sheet.png", [flat(1), Tile("own", ramp, own_scale=True)])
    assert own[:4, :4].mean() > 150 > 80 > own[-4:, -4:].mean()
    alone, *_ = drawn(tmp_path / "sheet.png", [flat(1), flat(1)])
    assert (alone == common).all()  # and leaves the common scale as it is


@pytest.mark.parametrize("image", [BLACK, GRAY], ids=["black", "gray"])
def test_the_image_is_light_where_attention_is_low(tmp_path, image):
    low, high = drawn(tmp_path / "sheet.png", [flat(0.01), flat(1)], image)
    assert low.min() > 0.6 * 255 and (low.max(-1) - low.min(-1)).max() == 0  # not colored either
    assert high.mean() < low.mean()


def test_the_image_is_seen_through_its_map(tmp_path):
    halves = np.zeros((3, 8, 8), np.uint8)
    halves[:, :, 4:] = 60  # dark as it is, its contrast is spread out
    image, through, _ = drawn(tmp_path / "sheet.png", [Tile("image"), flat(1), flat(2)], halves)
    assert image[:, : SIZE // 2].max() == 0 and image[:, SIZE // 2 :].max() == 60
    assert through[:, SIZE // 2 + 4 :].mean() > 1.3 * through[:, : SIZE // 2 - 4].mean()


def test_there_are_no_steps_in_a_smooth_map(tmp_path):
    ramp = Tile("ramp", 2.0 ** np.linspace(0, 4, 64).reshape(8, 8).T)
    _, smooth = drawn(tmp_path / "sheet.png", [flat(1), ramp])
    assert np.abs(np.diff(smooth[SIZE // 2], axis=0)).max() <= 30
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 256  # a palette holds no more


def test_beside_a_map_of_zeros_nothing_swings_over(tmp_path):
    window = np.zeros((8, 8))
    window[:4] = 1
    alone, beside, _ = drawn(tmp_path / "sheet.png", [flat(1), Tile("window", window), flat(4)])
    assert (
        np.abs(beside[: SIZE // 2 - 8] - alone[: SIZE // 2 - 8]).max() <= 30
    )  # of 255, far less than to the next color


@pytest.mark.parametrize("count", range(2, 60))
def test_the_sheet_is_filled(tmp_path, count):
    draw_sheet(BLACK, [Tile("") for _ in range(count)], tmp_path / "sheet.png", tile_size=SIZE)
    black = pixels(tmp_path / "sheet.png").sum(-1) == 0
    columns, rows = (np.diff(line.astype(int)).clip(0).sum() for line in (black[GAP + 1], black[:, GAP + 1]))
    assert black.sum() == count * SIZE**2  # each is there
    assert count / (columns * rows) > 0.85 and columns <= 8


def test_the_scale_covers_the_values_and_its_ticks_are_powers_of_two(rng):
    for low, high in ((1e-6, 1e-5), (0.3, 0.3), (0.001, 40.0), (0, 3)):
        values = rng.uniform(low, high, 1000)
        scale = Scale.over(values)
        assert scale.share(np.quantile(values, 0.99)) <= 1 and scale.share(values.max() / 100) < 0.5
        assert 2 <= len(scale.ticks()) <= 7 and [share for share, _ in scale.ticks()][:: len(scale.ticks()) - 1] == [
            0,
            1,
        ]
    assert Scale(-2, 1).ticks() == [(0, "1/4"), (1 / 3, "1/2"), (2 / 3, "1"), (1, "2")]


def test_names_that_are_long_or_broken_are_drawn(tmp_path):
    long, other = drawn(tmp_path / "sheet.png", [flat(1, "x" * 500), flat(1, "\udcff\n…")], unit="y" * 500)
    assert (long == other).all()
    draw_sheet(GRAY, [Tile("image")], tmp_path / "titled.png", title="a\n\udcff" * 500)


def label(path, name):
    """The pixels of what stands below an image."""
    draw_images([BLACK], path, [name], tile_size=SIZE)
    return pixels(path)[GAP + SIZE :].tolist()


def test_names_in_other_alphabets_can_be_read(tmp_path):
    labels = [label(tmp_path / "sheet.png", name) for name in ("\u0378", "ü", "é", "Д", "α")]  # the first is no letter
    assert all(a != b for i, a in enumerate(labels) for b in labels[:i])


def test_a_part_is_outlined_on_every_tile(tmp_path):
    plain = drawn(tmp_path / "sheet.png", [Tile("image"), flat(1)])
    outlined = drawn(tmp_path / "sheet.png", [Tile("image"), flat(1)], outline=(0.25, 0.5, 0.5, 1))
    for before, after in zip(plain, outlined):
        changed = (before != after).any(-1)
        inside = changed[SIZE // 4 : SIZE // 2, SIZE // 2 :]
        assert changed.any() and not inside.any()  # a frame around rows 16 to 31, columns 32 to 63
        assert set(np.flatnonzero(changed.any(1))) == set(range(14, 34)) and not changed[:, :30].any()
        assert (after[15, 32:] == 0).all() and (after[14, 32:] == 255).all()


def test_an_image_of_other_channels_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="1 or 3 channels"):
        draw_sheet(np.zeros((4, 8, 8), np.uint8), [Tile("image")], tmp_path / "sheet.png")
