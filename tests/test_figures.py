"""The figures of the pages in docs/ are those that their scripts draw."""

import importlib
import io
import re

import matplotlib
import numpy as np
import pytest
from pages import ROOT
from PIL import Image

DOCS = ROOT / "docs"
FOLDER = DOCS / "figures"
NAMES = sorted(path.stem for path in FOLDER.glob("*.png"))
DRAWN_BY = "3.11."  # matplotlib, with which the committed figures were drawn
DERIVED = [page.stem for page in DOCS.glob("*.md") if "from the formula to the check" in page.read_text()]


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("figures.__main__")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_its_script_draws(name, figures):
    """To the pixel, nearly; but another version of matplotlib sets its letters in other places."""
    committed = (FOLDER / f"{name}.png").read_bytes()
    assert len(committed) <= 60_000
    drawn, committed = (Image.open(io.BytesIO(png)).convert("RGB") for png in (figures.draw(name), committed))
    assert drawn.size == committed.size
    size, most = (1, 0.5) if matplotlib.__version__.startswith(DRAWN_BY) else (8, 4)
    drawn, committed = (np.asarray(image.reduce(size), float) for image in (drawn, committed))
    assert np.abs(drawn - committed).mean() < most


def test_drawn_twice_it_is_the_same_to_the_last_byte(figures):
    assert figures.draw("linear") == figures.draw("linear")


def test_each_has_a_script_and_each_script_a_figure(figures):
    assert NAMES == figures.NAMES


@pytest.mark.parametrize("name", DERIVED)
def test_a_page_that_derives_shows_its_figure_and_says_what_is_on_it(name):
    if name != "convolution":
        assert re.search(rf"!\[[^\]]{{20,}}\]\(figures/{name}\.png\)", (DOCS / f"{name}.md").read_text())
