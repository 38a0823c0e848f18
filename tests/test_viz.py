import io

import numpy as np
import pytest
from PIL import Image

from numpyvit import viz


def records(count):
    return [
        {
            "epoch": i + 1,
            "train_loss": 2 / (i + 1),
            "val_loss": 2.2 / (i + 1),
            "train_accuracy": 1 - 0.9 / (i + 1),
            "val_accuracy": 1 - 0.8 / (i + 1),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_both_curves_of_both_panels_are_drawn(count, tmp_path):
    buffer = io.BytesIO()
    viz.curves._curves_by_pillow(records(count), buffer)
    pixels = np.asarray(Image.open(buffer).convert("RGB")).reshape(440, 2, 640, 3)
    for panel in (pixels[40:395, 0, 70:], pixels[40:395, 1, 70:]):
        for color in ((31, 119, 180), (255, 127, 14)):
            assert (panel == color).all(-1).sum() > 20


def test_equal_and_tiny_values_still_have_an_axis(tmp_path):
    flat = [{**record, "train_loss": 0.0, "val_loss": 0.0} for record in records(3)]
    viz.draw_curves(flat, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 1000


def test_matplotlib_draws_where_it_is_installed(tmp_path):
    pytest.importorskip("matplotlib")
    buffer = io.BytesIO()
    viz.curves._curves_by_matplotlib(records(3), buffer)
    assert Image.open(buffer).size == (1280, 440)


@pytest.mark.parametrize("low, high", [(0, 1), (0.21, 0.93), (1e-9, 2e-9), (5, 5), (-3, 1e6)])
def test_ticks_cover_the_values(low, high):
    first, last, ticks = viz.curves._nice_ticks(low, high)
    assert first <= low and last >= high and 2 <= len(ticks) <= 8
