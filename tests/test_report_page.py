"""The report in a browser: on a phone and on a screen, light and dark, by keyboard."""

import numpy as np
import pytest
from test_report import HOSTILE, fit

import numpyvit as nv
from numpyvit import data
from numpyvit.report import read_run, write_comparison, write_report

CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = element => { for (; element; element = element.parentElement) {
        const color = rgb(getComputedStyle(element).backgroundColor); if (color[3] == 255) return color; } };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
        const style = getComputedStyle(element);
        if (!own || !element.getClientRects().length || element.matches("script, style, title, .none")) continue;
        const color = rgb(element.matches("svg text") ? style.fill : style.color);
        const [a, b] = [light(color), light(behind(element))].sort((x, y) => y - x);
        if ((a + .05) / (b + .05) < 4.5) poor.push(element.outerHTML.slice(0, 80) + (a + .05) / (b + .05));
    }
    return poor;
}"""


@pytest.fixture(scope="module")
def pages(chromium, tmp_path_factory):
    """Reports of a classifier with odd class names and of a detector, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    train, test = (part.take(slice(0, 200)) for part in data.load("digits"))
    names = (*HOSTILE, "a class whose name is far longer than there is room for it", *"456789")
    sets = [data.Dataset(part.images, part.labels, names, part.mean, part.std) for part in (train, test)]
    model = fit(sets, folder / "classifier")
    parts = data.load_detection("shapes")
    found, val, tested = (parts[name].take(np.arange(8)) for name in ("train", "val", "test"))
    detector = nv.create_model(
        "detr_micro_64", num_classes=5, backbone=(8, 8, 8), hidden_dim=16, num_queries=6, nheads=2
    )
    nv.fit(detector, found, val, test=tested, epochs=2, batch_size=4, progress=False, out=folder / "detector")
    runs = [read_run(folder / name) for name in ("classifier", "detector")]
    return {
        "classifier": write_report(folder / "classifier", sets[1], model),
        "detector": write_report(folder / "detector", tested, detector),
        "comparison": write_comparison(runs, folder / "comparison.html"),
    }


@pytest.mark.parametrize("name", ["classifier", "detector", "comparison"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(pages, open_page, name, width, dark):
    """open_page fails on what the console says and on any request. Text has the contrast that WCAG 2 asks for (AA)."""
    page = open_page(pages[name], width, dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate(CONTRAST) == []
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height))"
    )
    assert smallest > 11


def test_the_button_changes_the_colors_and_remembers_nothing(pages, open_page):
    page = open_page(pages["classifier"])
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.get_by_role("button", name="Dark colors").click()
    assert page.evaluate(color) != light
    page.get_by_role("button", name="Light colors").click()
    assert page.evaluate(color) == light
    page.get_by_role("button", name="Dark colors").click()
    page.reload()
    assert page.evaluate(color) == light
    assert open_page(pages["classifier"], dark=True).evaluate(color) != light


def test_it_works_by_keyboard(pages, open_page):
    page = open_page(pages["classifier"], 400)
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.textContent") == "Skip to the content"
    assert page.evaluate(f"{focused}.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.textContent") == "Curves"
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    matrix = page.get_by_role("region", name="Confusion matrix")
    matrix.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert matrix.evaluate("region => region.scrollLeft") > 0
    page.get_by_text("The numbers of each epoch").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("region", name="The numbers of each epoch").is_visible()


def test_everything_has_a_name_for_screen_readers(pages, open_page):
    page = open_page(pages["classifier"])
    assert page.evaluate(
        "[...document.querySelectorAll('main section')].every(section => section.ariaLabelledByElements.length)"
    )
    assert page.get_by_role("img", name="Loss, by epoch").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.evaluate("[...document.querySelectorAll('[tabindex=\"0\"]')].every(e => e.ariaLabel)")
    assert page.evaluate("document.documentElement.lang") == "en"
