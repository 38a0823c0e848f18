"""The page of `numpyvit serve` in a browser."""

import base64
import io
import pathlib

import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("playwright")

from served_model import gray, png, serving, tiny_model
from test_report_page import CONTRAST

import numpyvit as nv
from numpyvit.serve import Served
from numpyvit.testing import randomize

THREE = [[(0.3, 0.2), (0.7, 0.2), (0.5, 0.45)], [(0.5, 0.45), (0.7, 0.6), (0.6, 0.8), (0.3, 0.8)]]


@pytest.fixture(scope="module")
def digits():
    """The address of a model for gray images of 28×28 pixels, and its service."""
    model = nv.create_model("vit_micro_patch4_28", num_classes=10, depth=2)
    with serving(Served(model)) as (client, service):
        yield client.address, service


@pytest.fixture(scope="module")
def detector():
    """One that finds something in every query: all its scores are above one half."""
    model = randomize(nv.create_model("detr_micro_64", num_classes=2), seed=1)
    weights = model.state_dict()
    for name in weights:
        if name.startswith("class_embed.") and name.endswith("bias"):
            weights[name] = np.array([9, 0, -9], "float32")
    model.load_state_dict(weights)
    with serving(Served(model)) as (client, _):
        yield client.address


def draw(page, strokes):
    frame = page.locator("#pad").bounding_box()
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            page.mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"], steps=3)
            if i == 0:
                page.mouse.down()
        page.mouse.up()


def click(page, x, y):
    """Click the image, x and y in 0..1."""
    frame = page.locator("#view").bounding_box()
    page.locator("#view").click(position={"x": x * frame["width"], "y": y * frame["height"]})


def send(page, content, how):
    """A file in an event of the page; how: what makes the event of `data`, in JavaScript."""
    page.evaluate(
        f"""text => {{
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "image.png", {{ type: "image/png" }}));
            {how}
        }}""",
        base64.b64encode(content).decode(),
    )


def drop(page, content):
    """Let go of a file over the page."""
    how = """const options = { dataTransfer: data, bubbles: true, cancelable: true };
        for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, options));"""
    send(page, content, how)


def paste(page, content):
    send(page, content, 'document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));')


def choose(page, content):
    page.set_input_files("#file", {"name": "image.png", "mimeType": "image/png", "buffer": content})


def said(page, text):
    page.wait_for_function("text => document.getElementById('said').textContent.includes(text)", arg=text)


def colors(page):
    """How many colors the image with its map has."""
    return page.evaluate(
        """() => {
            const canvas = document.getElementById("view");
            const copy = document.createElement("canvas");
            [copy.width, copy.height] = [80, 80];
            copy.getContext("2d").drawImage(canvas, 0, 0, 80, 80);
            const { data } = copy.getContext("2d").getImageData(0, 0, 80, 80);
            return new Set(Array.from({ length: 6400 }, (_, i) => data.slice(4 * i, 4 * i + 3).join())).size;
        }"""
    )


def test_a_drawn_digit_is_framed_as_mnists_and_answered(open_page, digits):
    address, service = digits
    seen, read = [], service.served.read

    def remembered(source):
        seen.append(read(source))
        return seen[-1]

    service.served.read = remembered
    page = open_page(address)
    draw(page, THREE)
    said(page, "The class token attends most to")
    page.wait_for_timeout(300)
    del service.served.read
    rows = page.locator("#results li")
    assert rows.count() == 10 and rows.first.inner_text().startswith("class 0")
    shares = [float(row.inner_text().split()[-1].rstrip("%")) for row in rows.all()]
    assert sum(shares) == pytest.approx(100, abs=1)
    digit = seen[-1][0].astype(float)
    inked = np.argwhere(digit > 0)
    assert (np.ptp(inked, axis=0) + 1).max() in (20, 21) and digit.max() == 255
    center = [(digit.sum(axis) * np.arange(28)).sum() / digit.sum() for axis in (1, 0)]
    np.testing.assert_allclose(center, 13.5, atol=0.6)
    page.click("#clear")
    draw(page, [[(0.5, 0.4), (0.5, 0.5)]])  # a short line fills the frame as a long one does
    page.wait_for_timeout(300)


@pytest.mark.parametrize("give", [drop, paste, choose])
def test_an_image_is_dropped_pasted_or_chosen(open_page, digits, give):
    address, service = digits
    content = gray(5, (28, 28))
    found = service.served.predict([(service.served.read(io.BytesIO(content)), 1)])[0]["classes"][0]
    page = open_page(address)
    give(page, content)
    said(page, "The class token attends most to")
    assert f"{found['class']}" in page.locator("#results li.first").inner_text()


def test_a_patch_is_clicked_and_chosen_by_keys(open_page, digits):
    page = open_page(digits[0])
    drop(page, gray(size=(28, 28)))
    said(page, "The class token attends most to")
    assert colors(page) > 3
    click(page, 0.5, 0.2)
    said(page, "The patch in row 2, column 4 attends most to")
    page.check("input[value=from]")
    said(page, "The patch in row 2, column 4 is attended most by")
    page.locator("#view").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    said(page, "The patch in row 3, column 5 is attended most by")
    page.locator("#layer").fill("1")
    page.locator("#head").select_option("2")
    said(page, "row 3, column 5")
    page.check("#rollout")
    said(page, "The patch in row 3, column 5 reaches most")
    assert page.locator("#layer").is_disabled()
    page.locator("#view").focus()
    page.keyboard.press("Escape")
    said(page, "The class token reaches most")
    before = page.locator("#view").screenshot()
    page.locator("#opacity").fill("0")
    assert page.locator("#view").screenshot() != before


def test_the_map_that_is_shown_is_the_models(open_page, digits):
    """The patch that is named is the one that the library finds."""
    address, service = digits
    content = gray(3, (28, 28))
    model = service.served.model
    x = model.preprocessing.normalize(service.served.read(io.BytesIO(content)))
    page = open_page(address)
    drop(page, content)
    maps = nv.viz.attention_maps(model, x)[-1].mean(0)
    for direction, row in (("to", maps[1 + 0 * 7 + 6, 1:]), ("from", maps[1:, 1 + 6])):
        said(page, "attends most" if direction == "to" else "")
        page.check(f"input[value={direction}]")
        click(page, 0.95, 0.05)
        said(page, "row 1, column 7 " + ("attends" if direction == "to" else "is attended"))
        text = page.inner_text("#said")
        assert f"row {row.argmax() // 7 + 1}, column {row.argmax() % 7 + 1} ({row.max():.1%})" in text


def test_a_saved_page_works_without_a_server(open_page, digits, tmp_path):
    page = open_page(digits[0])
    drop(page, gray(1, (28, 28)))
    said(page, "The class token attends most to")
    page.locator("#layer").fill("1")
    said(page, "The class token attends most to")
    with page.expect_download() as download:
        page.click("#save")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    results, text = page.inner_text("#results"), file.read_text()
    assert "http://" not in text and "https://" not in text
    saved = open_page(pathlib.Path(file), width=400, dark=True)
    said(saved, "The class token attends most to")
    assert saved.inner_text("#results") == results and not saved.locator("#input").is_visible()
    saved.locator("#layer").fill("1")
    click(saved, 0.5, 0.5)
    said(saved, "The patch in row 4, column 4 attends most to")
    saved.check("#rollout")
    said(saved, "is reached most by")


def test_a_clicked_box_shows_what_its_query_looked_at(open_page, detector, tmp_path):
    page = open_page(detector)
    drop(page, png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    page.wait_for_selector("#results button")
    assert page.inner_text("#said") == ""
    page.locator("#results button").first.click()
    said(page, "The query of this box looked most at row")
    assert page.locator("#results button").first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.locator("#view").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#results button").nth(1).get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "saved.html")
    saved = open_page(tmp_path / "saved.html")
    saved.locator("#results button").first.click()
    said(saved, "The query of this box looked most at row")


def test_newer_weights_show_by_themselves(open_page):
    def model(seed):
        return nv.create_model("vit_micro_patch2_8", num_classes=3, depth=1, seed=seed)

    with serving(Served(model(0), {"epoch": 1}), watched=True) as (client, service):
        page = open_page(client.address)
        drop(page, gray())
        said(page, "attends most")
        before = page.inner_text("#results")
        service.replace(Served(model(1), {"epoch": 2}))
        page.wait_for_function("() => document.getElementById('about').textContent.includes('epoch 2')")
        page.wait_for_function("before => document.getElementById('results').innerText !== before", arg=before)


@pytest.mark.parametrize("width", [400, 800, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window_and_can_be_read(open_page, digits, width, dark):
    """Text has the contrast that WCAG 2 asks for (AA)."""
    page = open_page(digits[0], width, dark)
    drop(page, gray(2, (28, 28)))
    said(page, "attends most")
    click(page, 0.5, 0.5)
    said(page, "row 4, column 4 attends most")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []


def test_every_control_has_a_name_and_hostile_names_stay_text(open_page):
    served = tiny_model()
    served.model.pretrained_cfg = {"classes": ["<img src=x onerror=alert(1)>", "<b>b</b>", "</script><script>1"]}
    with serving(served) as (client, _):
        page = open_page(client.address)
        drop(page, gray())
        said(page, "attends most")
        assert "<img src=x onerror=alert(1)>" in page.inner_text("#results")
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll("input, select, button, canvas[tabindex], #pad")].filter(
                (control) => !(control.labels?.length || control.textContent.trim() || control.ariaLabel ||
                               control.getAttribute("aria-labelledby"))).map((control) => control.id)"""
        )
        assert unnamed == []
