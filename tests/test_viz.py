import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from numpyvit import viz

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


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


def drawn(path, *args, **options):
    """The panels' pixels, (panels, height, 640, RGB)."""
    viz.draw_curves(*args, path / "curves.png", **options)
    with Image.open(path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels.reshape(440, -1, 640, 3).swapaxes(0, 1)


def count(panel, color):
    return (panel == color).all(-1).sum()


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_both_panels_are_drawn_with_training_and_validation(epochs, tmp_path):
    both = drawn(tmp_path, records(epochs))
    of_training = drawn(tmp_path, [{k: v for k, v in r.items() if "val" not in k} for r in records(epochs)])
    assert len(both) == len(of_training) == 2
    for panel, alone in zip(both, of_training):
        assert count(panel, BLUE) > 20 and count(alone, BLUE) > 20
        assert not np.array_equal(panel, alone)


def test_equal_and_tiny_values_still_have_an_axis(tmp_path):
    flat = [{**record, "train_loss": 0.0, "val_loss": 0.0} for record in records(3)]
    assert count(drawn(tmp_path, flat)[0], BLUE) > 100


def test_the_best_epoch_is_marked(tmp_path):
    gray = (102, 102, 102)
    plain, marked = drawn(tmp_path, records(5)), drawn(tmp_path, records(5), best=3)
    assert all(count(after, gray) > count(before, gray) + 50 for before, after in zip(plain, marked))


def test_a_panel_holds_the_figures_it_names_and_one_without_any_is_left_out(tmp_path):
    panels = {"parts": ("loss", "accuracy"), "AP": ("AP", "AP50")}
    (panel,) = drawn(tmp_path, records(5), panels=panels)
    assert count(panel, BLUE) > 100 and count(panel, ORANGE) > 100


def test_matplotlib_is_loaded_only_when_something_is_drawn():
    code = "import sys, numpyvit, numpyvit.viz, numpyvit.training.fit; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
