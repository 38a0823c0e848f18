"""Runs beside each other, and their figures for TensorBoard."""

import importlib.util
import json

import pytest
from test_report import ELSEWHERE, Page

from numpyvit import cli
from numpyvit.report import EventFiles, compare_runs, read_run


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in the learning rate and in length."""
    folder = tmp_path_factory.mktemp("runs")
    shared = ("--warmup-steps", 0, "--threads", 1, "--quiet", "--batch-size", 256)
    assert numpyvit("train", *shared, "--epochs", 2, "--out", folder / "slow <b>") == 0
    assert numpyvit("train", *shared, "--epochs", 3, "--lr", 0.01, "--out", folder / "fast") == 0
    return [folder / "slow <b>", folder / "fast"]


def test_the_settings_that_differ_and_the_figures(runs):
    compared = compare_runs([read_run(path) for path in runs])
    assert compared["runs"] == ["slow <b>", "fast"]
    assert compared["settings"] == {"epochs": [2, 3], "lr": [0.002, 0.01]}
    results = [json.loads((path / "result.json").read_text()) for path in runs]
    assert compared["figures"]["test accuracy, best weights"] == [result["best"]["accuracy"] for result in results]
    records = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in runs]
    assert compared["figures"]["epochs"] == [2, 3]
    assert compared["figures"]["seconds of training"] == [sum(r["seconds"] for r in of_run) for of_run in records]


def test_of_settings_within_others_those_that_differ_are_named(tmp_path):
    configs = [
        {"augment": {"crop": 4, "flip": 0.5}, "options": {"img_size": [8, 8], "depth": 2}, "freeze": []},
        {"augment": {"affine": {"degrees": 10}, "flip": 0.5}, "options": {"img_size": [8, 8], "depth": 3}},
        {"augment": {}, "freeze": []},
    ]
    for i, config in enumerate(configs):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "config.json").write_text(json.dumps(config))
    assert compare_runs([read_run(tmp_path / str(i)) for i in range(3)])["settings"] == {
        "augment.affine.degrees": [None, 10, None],
        "augment.crop": [4, None, None],
        "augment.flip": [0.5, 0.5, None],
        "options.depth": [2, 3, None],
        "options.img_size": [[8, 8], [8, 8], None],
    }


def test_one_table_with_a_column_for_each_run(runs, capsys):
    assert numpyvit("compare", *runs) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["slow", "<b>", "fast"] and len({len(line) for line in lines}) == 1
    rows = {line[:25].strip(): line.split()[-2:] for line in lines}
    assert rows["lr"] == ["0.002", "0.01"] and rows["epochs"] == ["2", "3"]
    assert all(value.endswith("%") for value in rows["validation accuracy"])


def test_json_and_one_html_file_with_the_curves_of_all(runs, tmp_path, capsys):
    assert numpyvit("compare", *runs, "--json", "--html", tmp_path / "both.html") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["lr"] == [0.002, 0.01]
    page = Page(tmp_path / "both.html")
    assert len(page.all("polyline")) == 8 and not ELSEWHERE.search(page.source) and not page.all("b")
    assert ["lr", "0.002", "0.01"] in page.rows and "Validation accuracy" in page.text


def test_runs_of_different_tasks_and_runs_without_epochs(runs, tmp_path, capsys):
    for name, config in (("a", {"task": {"name": "Detection"}}), ("b", {})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "a" / "metrics.jsonl").write_text('{"epoch": 1, "val_loss": 1.0, "val_AP": 0.25, "seconds": 70}\n')
    assert numpyvit("compare", runs[0], tmp_path / "a", tmp_path / "b", "--html", tmp_path / "all.html") == 0
    rows = capsys.readouterr().out.splitlines()
    assert next(row for row in rows if row.startswith("validation AP")).split()[-3:] == ["–", "25.00%", "–"]
    assert next(row for row in rows if row.startswith("seconds of")).split()[-5:] == ["1", "min", "10", "s", "–"]


def test_a_directory_without_a_run_is_named(tmp_path, capsys):
    assert numpyvit("compare", tmp_path) == 1 and str(tmp_path) in capsys.readouterr().err


# ---- TensorBoard ----------------------------------------------------------------------------------------------------


def test_event_files_hold_the_figures_of_each_epoch(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = ("--tensorboard", "--batch-size", 256, "--warmup-steps", 0, "--quiet", "--out", tmp_path)
    assert numpyvit("train", *options, "--epochs", 2) == 0
    assert numpyvit("train", "--resume", "--epochs", 3, *options[:1], *options[5:]) == 0
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss/train", "loss/val", "accuracy/val", "lr"} <= set(events.Tags()["tensors"])
    written = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("loss/val")]
    assert written == [(record["epoch"], pytest.approx(record["val_loss"])) for record in records]


def test_without_the_package_it_is_said_before_anything_is_done(tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *rest: None if n == "tensorboard" else find_spec(n, *rest)
    )
    assert numpyvit("train", "--tensorboard", "--out", tmp_path / "run") == 2
    assert "pip install 'numpyvit[tensorboard]'" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_cannot_be_written_is_said_once(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    events = EventFiles(tmp_path)
    with pytest.warns(UserWarning, match="is not written any more") as said:
        for epoch in (1, 2):
            events([{"epoch": epoch, "train_loss": 1.0}])
    assert len(said) == 1
