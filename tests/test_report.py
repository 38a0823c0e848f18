"""A run as one HTML file: what it says, what it does with names from anywhere, and what it does without half of it."""

import html.parser
import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.errors import RunError
from numpyvit.report import read_run, write_report
from numpyvit.report.charts import Line, line_chart
from numpyvit.report.command import train_command
from numpyvit.weights.checkpoint import save_tensors

TINY = dict(embed_dim=16, depth=1, num_heads=2)
HOSTILE = ['<script>alert("1")</script>', '"><img src=x onerror=alert(1)>', "'&amp;{{ 7 * 7 }}"]
ELSEWHERE = re.compile(r"https?:|url\(|@import|<link|<iframe|\b(?:src|href)=(?![\"'](?:data:|#))")


class Page(html.parser.HTMLParser):
    """The elements of a page, each with its text, and what stands in it."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text()
        self.tags, self.words, self.rows = [], [], []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.words.append(text)
        if self.tags and self.tags[-1][0] in ("th", "td"):
            self.rows[-1][-1] += text.strip()

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def digits():
    train, test = data.load("digits")
    return train.take(slice(0, 300)), test.take(slice(0, 120))


def fit(sets, out, **options):
    model = nv.create_model("vit_micro_patch2_8", num_classes=len(sets[0].classes), **TINY)
    settings = dict(epochs=2, batch_size=64, warmup_steps=2, ema_decay=0.9, lr=3e-3, progress=False)
    nv.fit(model, sets[0], None, test=sets[1], out=out, **{**settings, **options})
    return model


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """A run of a program, and its model."""
    out = tmp_path_factory.mktemp("report") / "run"
    return out, fit(digits, out)


@pytest.fixture(scope="module")
def page(run, digits):
    return Page(write_report(run[0], digits[1], run[1]))


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run[0], tmp_path / "copy")


# ---- what it says ---------------------------------------------------------------------------------------------------


def test_the_headline_is_what_the_run_measured(page, run):
    result = json.loads((run[0] / "result.json").read_text())["best"]
    assert f"Test accuracy {result['accuracy']:.2%} weights of epoch {result['epoch']}" in page.text
    assert f"Parameters {run[1].num_parameters():,}" in page.text and "Epochs 2 of 2 planned" in page.text


def test_the_confusion_matrix_holds_every_test_image(page, run, digits):
    expected = nv.metrics.confusion_matrix(
        digits[1].labels, nv.infer(run[1], digits[1].prepare(digits[1].images, np.float32)).argmax(-1), 10
    )
    start = page.rows.index(["is", *"0123456789", "images"]) + 1
    rows = [[int(cell) for cell in row[1:]] for row in page.rows[start : start + 10]]
    assert [row[:-1] for row in rows] == expected.tolist() and [row[-1] for row in rows] == expected.sum(1).tolist()


def test_there_are_curves_classes_mistakes_attention_settings_and_versions(page):
    ids = [attributes.get("id") for attributes in page.all("section")]
    assert ids == ["curves", "confusion", "classes", "calibration", "mistakes", "attention", "settings"]
    assert len(page.all("polyline")) == 5  # loss and accuracy of two parts, and the line of perfect calibration
    assert np.__version__ in page.text and "ema_decay 0.9" in page.text
    maps = [attributes["alt"] for attributes in page.all("img") if "gradient" in attributes["alt"]]
    assert len(maps) == 6


def test_mistakes_come_the_surest_first_and_name_both_classes(page, run, digits):
    arrays = nv.weights.checkpoint.load_tensors(run[0] / "predictions.safetensors")[0]
    wrong = arrays["label"] != arrays["predicted"]
    surest = np.flatnonzero(wrong)[arrays["probability"][wrong].argmax()]
    first = next(attributes["alt"] for attributes in page.all("img"))
    assert first == f"image {surest}: {arrays['label'][surest]}, taken for {arrays['predicted'][surest]}"


def test_it_needs_nothing_else(page):
    assert not ELSEWHERE.search(page.source) and ELSEWHERE.search('<a href="/x">')
    assert all(attributes["src"].startswith("data:image/") for attributes in page.all("img"))
    policy = next(attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy


def test_every_image_and_chart_has_words(page):
    assert all(attributes.get("alt") for attributes in page.all("img")) and len(page.all("img")) > 30
    charts = [attributes for attributes in page.all("svg") if attributes.get("aria-hidden") != "true"]
    assert charts and all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)


def test_equal_runs_give_equal_reports(run, digits, tmp_path):
    """But for times, and the directory's name."""
    twin = tmp_path / run[0].name
    model = fit(digits, twin)
    for path in (run[0], twin):
        records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        timed = [{**r, "seconds": 1, "images_per_second": 1, "loader_seconds": 0} for r in records]
        (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in timed))
    pages = [write_report(path, digits[1], m).read_bytes() for path, m in (run, (twin, model))]
    assert pages[0] == pages[1]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """-> a run of a detector, its test set, the model."""
    out, parts = tmp_path_factory.mktemp("detector"), data.load_detection("shapes")
    train, val, test = (parts[name].take(np.arange(8)) for name in ("train", "val", "test"))
    model = nv.create_model("detr_micro_64", num_classes=5, backbone=(8, 8, 8), hidden_dim=16, num_queries=6, nheads=2)
    nv.fit(model, train, val, test=test, epochs=1, batch_size=4, progress=False, out=out)
    return out, test, model


def test_a_detectors_report(detector):
    page, test = Page(write_report(*detector)), detector[1]
    assert [a.get("id") for a in page.all("section")] == ["curves", "precision", "boxes", "attention", "settings"]
    start = page.rows.index(["class", "boxes", "AP", "AP50", "AP75"]) + 1
    counts = np.bincount(np.concatenate([target["labels"] for target in test.targets(np.arange(8))]))
    assert {row[0]: int(row[1]) for row in page.rows[start : start + 5]} == dict(zip(test.classes, counts))
    drawn = [attributes for attributes in page.all("img") if "boxes" in attributes["alt"]]
    assert len(drawn) == 8 and "True: " in drawn[0]["alt"]


def test_a_detectors_report_shows_what_the_queries_look_at(detector):
    out, test, model = detector
    alts = [attributes["alt"] for attributes in Page(write_report(*detector)).all("img")]
    x, _ = test.prepare(test.batch(np.array([0])))
    found = nv.viz.query_attention(model, x)
    queries = [f"image 0, query {i + 1}: {test.classes[found.labels[i]]} " for i in found.best(7)]
    shown = [alt for alt in alts if alt.startswith("image 0, ")]
    assert len(shown) == 1 + len(queries) and shown[0] == "image 0, image"
    assert all(alt.startswith(query) for alt, query in zip(shown[1:], queries))
    assert len([alt for alt in alts if alt.endswith(", image")]) == 4
    assert not any(", query" in a["alt"] for a in Page(write_report(out, test)).all("img"))


def test_images_with_boxes_are_named_by_their_files(tmp_path):
    described = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for i in range(8):
        Image.new("RGB", (64, 48), (30 * i, 0, 90)).save(tmp_path / f"blood {i}.png")
        described["images"].append({"id": i, "file_name": f"blood {i}.png", "width": 64, "height": 48})
        described["annotations"].append({"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 20, 20]})
    (tmp_path / "annotations.json").write_text(json.dumps(described))
    parts = data.load_detection(tmp_path, img_size=32)
    model = nv.create_model("detr_micro_64", num_classes=1, backbone=(8, 8, 8), hidden_dim=16, num_queries=6, nheads=2)
    options = dict(test=parts["test"], epochs=1, batch_size=4, progress=False, warmup_steps=0)
    nv.fit(model, parts["train"], parts["test"], out=tmp_path / "run", **options)
    alts = [attributes["alt"] for attributes in Page(write_report(tmp_path / "run", parts["test"], model)).all("img")]
    assert alts[0].startswith(f"{parts['test'].paths[0].name} with boxes") and alts[0].startswith("blood ")
    assert any(re.match(r"blood \d.png, query", alt) for alt in alts)


# ---- names from anywhere --------------------------------------------------------------------------------------------


def test_hostile_class_names_are_text(digits, tmp_path):
    classes = (*HOSTILE, *"3456789")
    sets = [replace(part, classes=classes) for part in digits]
    page = Page(write_report(tmp_path, sets[1], fit(sets, tmp_path)))
    assert len(page.all("script")) == 1 and all("onerror" not in a for _, a in page.tags)
    assert all(attributes["src"].startswith("data:") for attributes in page.all("img"))
    assert all(any(name in row for row in page.rows) for name in HOSTILE)
    assert not ELSEWHERE.search(page.source.replace("&lt;img src=x", ""))


def test_hostile_file_names_are_text(tmp_path):
    names = ['a"b.png', "<b>c.png", "d'e&f.png", "ü\udcff.png", "g.png"]
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("x", "y"):
            (tmp_path / "data" / part / kind).mkdir(parents=True)
            for name in names:
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / kind / name)
    sets = data.load(tmp_path / "data", img_size=(8, 8), in_chans=1)
    page = Page(write_report(tmp_path / "run", sets[1], fit(sets, tmp_path / "run", warmup_steps=0)))
    alts = " ".join(attributes["alt"] for attributes in page.all("img"))
    assert (
        all(name in alts for name in names[:3]) and "ü?.png" in alts and not page.all("i") and "<b>c" not in page.source
    )


# ---- half of it is missing ------------------------------------------------------------------------------------------


def test_without_images_it_says_so_and_keeps_the_figures(copy):
    page = Page(write_report(copy))
    assert "The test images are not at hand" in page.text and not page.all("img")
    assert {"confusion", "calibration", "classes"} <= {a.get("id") for a in page.all("section")}


def test_a_set_that_is_another_one_is_not_shown(copy, digits):
    for other in (digits[1].take(slice(0, 100)), digits[1].take(slice(None, None, -1))):
        page = Page(write_report(copy, other))
        assert "not those that the run was tested on" in page.text and not page.all("img")


def test_one_failing_drawing_takes_nothing_along(copy, run, digits, monkeypatch):
    def clumsy(*args, **options):
        raise OSError("no pens")

    monkeypatch.setattr("numpyvit.report.classification.attention_overview", clumsy)
    page = Page(write_report(copy, digits[1], run[1]))
    assert "No attention is shown: OSError: no pens." in page.text and len(page.all("img")) > 20
    monkeypatch.setattr("numpyvit.report.classification.thumbnail", clumsy)
    page = Page(write_report(copy, digits[1], run[1]))
    assert "No images are shown: OSError: no pens." in page.text and not page.all("img")


def test_a_run_without_epochs(copy):
    for path in copy.iterdir():
        if path.name != "config.json":
            path.unlink()
    page = Page(write_report(copy))
    assert "No epoch has ended yet" in page.text and "no figures of a test set yet" in page.text
    assert "ema_decay 0.9" in page.text


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("metrics.jsonl", b'{"epoch": 1, "train_loss": "x", "val_loss": NaN}\n[1]\n{"epo', "2 lines of metrics.jsonl"),
        ("result.json", b"[]", "result.json is damaged"),
        ("result.json", b'{"best": {"accuracy": "x", "epoch": []}, "last": 5}', "Test accuracy none"),
        ("predictions.safetensors", b"nothing", "predictions.safetensors is left out"),
    ],
)
def test_what_is_damaged_is_named_and_left_out(copy, file, content, said, digits):
    (copy / file).write_bytes(content)
    assert said in Page(write_report(copy, digits[1])).text


def test_predictions_of_another_form_are_said(copy):
    save_tensors(
        copy / "predictions.safetensors", {"label": np.zeros(3, int)}, {"results": "classes", "classes": ["a"]}
    )
    assert "cannot be understood" in Page(write_report(copy)).text
    save_tensors(copy / "predictions.safetensors", {"label": np.zeros(3, int)}, {"results": "depth"})
    assert "of a kind of its own" in Page(write_report(copy)).text


def test_a_task_of_ones_own_has_curves(tmp_path):
    from toy_detector import Detector, Squares, ToyDetection

    nv.fit(Detector(), Squares(20), Squares(8), test=Squares(8), task=ToyDetection(), epochs=2, out=tmp_path,
           progress=False, warmup_steps=1, batch_size=8)  # fmt: skip
    page = Page(write_report(tmp_path))
    assert "Median_error" in page.text and "Test loss" in page.text


def test_where_there_is_no_run(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        read_run(tmp_path)


def test_sixty_thousand_images_of_a_thousand_classes_are_a_bounded_file(copy):
    class Noise:
        image_shape = (3, 224, 224)

        def __len__(self):
            return 60_000

        def targets(self, rows):
            return labels[rows]

        def batch(self, rows):
            return np.random.default_rng(rows).integers(0, 256, (len(rows), 3, 224, 224), np.uint8)

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 60_000)
    said = {"image": np.arange(60_000), "label": labels, "predicted": rng.integers(0, 1000, 60_000)}
    said |= {name: rng.random(60_000).astype(np.float32) for name in ("probability", "label_probability")}
    notes = {"results": "classes", "classes": [f"a class with a long name, {i}" for i in range(1000)]}
    save_tensors(copy / "predictions.safetensors", said, notes)
    path = write_report(copy, Noise())
    page = Page(path)
    assert path.stat().st_size < 5e6 and len(page.all("img")) == 48
    assert "the 30 classes that are mixed up most often, of 1000" in page.text


# ---- charts ---------------------------------------------------------------------------------------------------------


def test_a_line_breaks_where_a_figure_is_missing():
    chart = line_chart("a", [Line("b", [(1, 0.0), (2, 1.0), (3, None), (4, 0.5), (5, 1.0)])])
    assert [points.count(",") for points in chart.lines[0][3]] == [2, 2]
    assert line_chart("a", [Line("b", [(1, None)])]) is None


def test_points_lie_where_the_ticks_say():
    chart = line_chart("a", [Line("b", [(x, x / 10) for x in range(11)])], share=True)
    points = [tuple(map(float, point.split(","))) for point in chart.lines[0][3][0].split()]
    across, down = dict(map(reversed, chart.x_ticks)), dict(map(reversed, chart.y_ticks))
    assert points[10] == pytest.approx((across["10"], down["100%"])) and points[5][1] == pytest.approx(down["50%"])


def test_very_long_runs_have_few_points():
    chart = line_chart("a", [Line("b", [(x, x % 7) for x in range(100_000)])])
    assert len(chart.lines[0][3][0].split()) <= 401 and not chart.lines[0][4]


# ---- the verbs ------------------------------------------------------------------------------------------------------


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    assert numpyvit("train", "--steps", 8, "--quiet", "--threads", 1, "--warmup-steps", 2, "--out", out) == 0
    return out


def test_train_writes_what_report_writes_again(trained, tmp_path, capsys):
    before = (trained / "report.html").read_bytes()
    assert numpyvit("report", trained, "--out", tmp_path / "again.html") == 0
    assert (tmp_path / "again.html").read_bytes() == before
    assert capsys.readouterr().out.strip() == str(tmp_path / "again.html")
    page = Page(trained / "report.html")
    assert {"mistakes", "attention"} <= {a.get("id") for a in page.all("section")}
    assert "numpyvit train --data digits --steps 8 --warmup-steps 2" in page.text


def test_a_report_that_fails_is_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("numpyvit.report.page.render", lambda *args, **values: 1 / 0)
    assert numpyvit("train", "--steps", 1, "--warmup-steps", 0, "--quiet", "--out", tmp_path / "run") == 0
    assert "report.html was not drawn (ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "run" / "result.json").exists()


def test_data_that_is_gone_is_a_note(image_folder, tmp_path, capsys):
    options = ("--img-size", 16, "--steps", 2, "--warmup-steps", 0, "--quiet", "--batch-size", 8)
    model = ("--model", "vit_micro_patch4_32")
    assert numpyvit("train", "--data", image_folder, *model, *options, "--out", tmp_path / "run") == 0
    with_images = Page(tmp_path / "run" / "report.html")
    assert "9.png" in " ".join(a["alt"] for a in with_images.all("img"))
    shutil.rmtree(image_folder)
    assert numpyvit("report", tmp_path / "run") == 0
    assert "the report is without images" in capsys.readouterr().err
    page = Page(tmp_path / "run" / "report.html")
    assert "The test images are not at hand" in page.text and page.rows.count(["is", "bright", "dark", "images"]) == 1


def test_data_that_has_moved_is_named(image_folder, tmp_path, capsys):
    options = ("--img-size", 16, "--steps", 2, "--warmup-steps", 0, "--quiet", "--batch-size", 8)
    model = ("--model", "vit_micro_patch4_32")
    assert numpyvit("train", "--data", image_folder, *model, *options, "--out", tmp_path / "run") == 0
    before = (tmp_path / "run" / "report.html").read_bytes()
    shutil.move(image_folder, tmp_path / "moved")
    assert numpyvit("report", tmp_path / "run", "--data-dir", tmp_path / "moved") == 0
    assert capsys.readouterr().err == "" and (tmp_path / "run" / "report.html").read_bytes() == before


@pytest.mark.parametrize("verb", ["report", "compare"])
@pytest.mark.parametrize(
    "run, said",
    [
        ("nowhere", "holds no run; name a directory that `numpyvit train` wrote"),
        ("empty", "holds no run; name a directory"),
        ("image.png", "cannot be read (Not a directory); name a directory"),
        ("damaged", "is damaged (no settings in it); name a directory"),
        ("list", "is damaged (no settings in it); name a directory"),
    ],
)
def test_what_is_no_run_is_said_in_one_line(verb, run, said, tmp_path, capsys):
    for name, config in (("damaged", '{"data": '), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.png").write_bytes(b"")
    assert numpyvit(verb, tmp_path / run) == 1
    err = capsys.readouterr().err
    assert said in err and str(tmp_path / run) in err and err.count("\n") == 1


def test_a_report_that_cannot_be_written_is_a_failure(trained, tmp_path, capsys):
    assert numpyvit("report", trained, "--out", tmp_path / "nowhere" / "x.html") == 1
    assert numpyvit("report", trained, "--out", tmp_path) == 1
    err = capsys.readouterr().err
    assert err.count("cannot write") == err.count("\n") == 2


@pytest.mark.parametrize(
    "options",
    [
        "--steps 2 --lr 0.01 --optimizer sgd --drop-rate 0.1 --no-augment",
        "--steps 1 --freeze '[!h]*' --freeze 'head.b*' --clip-norm 2 --schedule cosine --seed 3 --val-fraction 0",
        "--data DATA --img-size 16 --model vit_micro_patch4_32 --steps 1 --batch-size 4 --layer-decay 0.7",
    ],
)
def test_the_command_makes_the_run_again(options, image_folder, tmp_path):
    arguments = [str(image_folder) if word == "DATA" else word for word in shlex.split(options)]
    assert numpyvit("train", *arguments, "--warmup-steps", 0, "--quiet", "--out", tmp_path / "first") == 0
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    command = shlex.split(train_command(config))
    assert command[:2] == ["numpyvit", "train"]
    assert numpyvit(*command[1:], "--quiet", "--out", tmp_path / "second") == 0
    assert json.loads((tmp_path / "second" / "config.json").read_text()) == config


def test_a_program_has_no_command(run):
    assert train_command(read_run(run[0]).config) is None
