"""`numpyvit evaluate` and `predict` on folders of image files."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from numpyvit import cli, create_model
from numpyvit.weights.checkpoint import read_checkpoint, save_checkpoint, save_tensors

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
LEVELS = {"bright": 220, "dark": 20, "middle": 120}


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


def fill(folder, number, **levels):
    """folder/<class>/<i>.png of the brightness of one of LEVELS."""
    rng = np.random.default_rng(number)
    for name, level in levels.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            noise = rng.integers(0, 30, (8, 8, 3))
            Image.fromarray((LEVELS[level] + noise).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that tells bright, dark and middle images apart, and lies beside what it was trained on."""
    root = tmp_path_factory.mktemp("trained")
    fill(root / "images" / "train", 100, bright="bright", dark="dark", middle="middle")
    fill(root / "images" / "val", 4, bright="bright", dark="dark", middle="middle")
    args = ["--data", root / "images", "--model", "vit_micro_patch4_32", "--img-size", 8, "--epochs", 2]
    args += ["--batch-size", 12, "--warmup-steps", 4, "--ema-decay", 0.5, "--lr", 0.003, "--no-augment"]
    assert numpyvit("train", *args, "--out", root / "run") == 0
    return root / "run" / "last.safetensors"


@pytest.fixture
def evaluate(trained, capsys):
    """Scores of `numpyvit evaluate --json`, and what it said beside."""

    def run(*args):
        capsys.readouterr()
        assert numpyvit("evaluate", "--checkpoint", trained, "--json", *args) == 0
        out, err = capsys.readouterr()
        return json.loads(out), err

    return run


def test_a_subset_and_a_permutation_of_the_classes_score_right(evaluate, tmp_path):
    subset = fill(tmp_path / "subset", 3, dark="dark", middle="middle")
    scores, notes = evaluate("--data", subset)
    assert scores["accuracy"] == 1 and scores["images"] == 6 and scores["left_out"] == [] and notes == ""
    wrong = fill(tmp_path / "wrong", 3, middle="dark", dark="middle")
    assert evaluate("--data", wrong)[0]["accuracy"] == 0


def test_a_class_of_another_name_is_left_out_and_said(evaluate, trained, tmp_path, capsys):
    renamed = fill(tmp_path / "renamed", 3, dark="dark", zebra="bright")
    scores, notes = evaluate("--data", renamed)
    assert scores["accuracy"] == 1 and scores["images"] == 3 and scores["left_out"] == ["zebra"]
    assert "note: left out 3 of 6 images" in notes and "zebra" in notes
    other = fill(tmp_path / "other", 1, cat="dark", dog="bright")
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", other) == 2
    assert "no class of the data (cat, dog)" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_map_says_which_class_is_meant(evaluate, tmp_path, form):
    folder = fill(tmp_path / "renamed", 3, zebra="bright", dark="dark", raven="dark", owl="bright")
    file = tmp_path / f"map.{form}"
    pairs = {"zebra": "Bright", "raven": "dark", "absent": "no class at all"}  # two folders may be one class
    if form == "json":
        file.write_text(json.dumps(pairs))
    else:
        file.write_text("folder,class\n" + "".join(f"{name},{own}\n" for name, own in pairs.items()))
    scores, notes = evaluate("--data", folder, "--class-map", file, "--per-class")
    assert scores["accuracy"] == 1 and scores["images"] == 9 and scores["left_out"] == ["owl"] and "owl" in notes
    assert [(row["class"], row["model_class"]) for row in scores["per_class"]] == [
        ("dark", "dark"), ("raven", "dark"), ("zebra", "bright"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content, code, message",
    [
        ('{"zebra": "horse"}', 2, "the class map names horse, no class of the model (bright, dark, middle)"),
        ('{"zebra": 1}', 1, "is no JSON object of names"),
        ('[["zebra", "dark"]]', 1, "is no JSON object of names"),
        ('{"zebra": "dark", "zebra": "bright"}', 1, "says twice what zebra is"),
        ('{"zebra"', 1, "is not JSON that can be read"),
        (None, 1, "there is no such file"),
    ],
)
def test_a_map_that_cannot_be_used_is_said(trained, tmp_path, capsys, content, code, message):
    folder, file = fill(tmp_path / "renamed", 1, zebra="bright"), tmp_path / "map.json"
    if content is not None:
        file.write_text(content)
    capsys.readouterr()
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", folder, "--class-map", file) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_evaluation_can_leave_broken_files_out(evaluate, trained, tmp_path, capsys):
    folder = fill(tmp_path / "some", 3, dark="dark")
    (folder / "dark" / "1.png").write_bytes(b"")
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", folder) == 1
    assert "1.png" in capsys.readouterr().err
    scores, notes = evaluate("--data", folder, "--skip-bad")
    assert scores["images"] == 2 and "1.png" in notes


def test_a_folder_is_taken_as_it_is(evaluate, trained, tmp_path):
    """Its val/, else its test/, else itself: however few images a class has, and all of them."""
    folder = fill(tmp_path / "whole" / "test", 1, dark="dark").parent
    assert evaluate("--data", folder)[0]["images"] == 1
    fill(folder / "val", 2, dark="dark")
    assert evaluate("--data", folder)[0]["images"] == 2
    assert evaluate("--data", folder / "val")[0]["images"] == 2
    assert evaluate("--data", fill(tmp_path / "flat", 7, dark="dark", bright="bright"))[0]["images"] == 14
    assert evaluate("--data", trained.parent.parent / "images")[0]["images"] == 12


def test_what_training_held_out_is_looked_at_by_itself(evaluate, tmp_path, trained):
    assert evaluate()[0]["images"] == 12  # val/ of what it was trained on
    unsplit = fill(tmp_path / "unsplit" / "train", 10, dark="dark").parent
    assert evaluate("--data", unsplit)[0]["images"] == 2  # train/ alone: the fifth that training leaves out


def test_a_name_of_a_data_set_comes_before_a_folder_of_that_name(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(fill(tmp_path / "digits", 1, dark="dark").parent)
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", "digits") == 2
    assert "(1, 8, 8)" in capsys.readouterr().err
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", "./digits") == 0


def test_of_a_flat_folder_what_training_held_out_or_all(trained, tmp_path, capsys):
    flat = fill(tmp_path / "flat", 10, dark="dark", bright="bright")
    arrays, notes, _ = read_checkpoint(trained)
    save_tensors(tmp_path / "w.safetensors", arrays, {**notes, "data": str(flat)})
    for args, images in (([], 4), (["--data", flat], 20)):
        assert numpyvit("evaluate", "--checkpoint", tmp_path / "w.safetensors", "--json", *args) == 0
        assert json.loads(capsys.readouterr().out)["images"] == images


def test_figures_of_each_class_are_printed(evaluate, trained, tmp_path, capsys):
    folder = fill(tmp_path / "some", 2, dark="dark", middle="bright")
    rows = evaluate("--data", folder, "--per-class")[0]["per_class"]
    assert [(row["class"], row["images"], row["accuracy"], row["mistaken_for"]) for row in rows] == [
        ("dark", 2, 1.0, None),
        ("middle", 2, 0.0, "bright"),
    ]
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", folder, "--per-class") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "accuracy 50.00%" in lines[0] and "top-5" not in lines[0]  # of three classes all are in the top 5
    assert lines[-2].split() == ["dark", "2", "100.00%", "100.00%"]
    assert lines[-1].split() == ["middle", "2", "0.00%", "100.00%", "bright"]


@pytest.fixture
def predict(trained, capsys):
    """The exit code of `numpyvit predict`, what it printed, and its errors."""

    def run(*args):
        capsys.readouterr()
        return numpyvit("predict", "--checkpoint", trained, *args), *capsys.readouterr()

    return run


def test_folders_and_files_are_predicted_in_order(predict, tmp_path):
    folder = fill(tmp_path / "all", 5, bright="bright", dark="dark", middle="middle")
    (folder / "dark" / "notes.txt").write_text("no image")
    (folder / "dark" / "._0.png").write_text("what macOS leaves behind")
    alone = fill(tmp_path / "more", 1, dark="dark") / "dark" / "0.png"
    code, out, err = predict(folder, alone, "--json", "--top", 2)
    found = [json.loads(line) for line in out.splitlines()]
    names = [str(folder / name / f"{i}.png") for name in ("bright", "dark", "middle") for i in range(5)]
    assert code == 0 and err == "" and [row["image"] for row in found] == [*names, str(alone)]
    assert [row["classes"][0]["class"] for row in found] == ["bright"] * 5 + ["dark"] * 5 + ["middle"] * 5 + ["dark"]
    best, second = found[0]["classes"]
    assert best["index"] == 0 and 1 >= best["probability"] > second["probability"] > 0


def test_the_same_is_printed_as_text_and_as_a_table(predict, tmp_path):
    image = fill(tmp_path / "some", 1, dark="dark") / "dark" / "0.png"
    text, table = (predict(image, *form)[1].splitlines() for form in ((), ("--csv",)))
    assert text[0] == str(image) and text[1].split()[1] == "dark" and len(text) == 4
    rows = list(csv.DictReader(table))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] and rows[0]["class"] == "dark"
    for row, line in zip(rows, text[1:]):
        assert row["image"] == str(image) and f"{float(row['probability']):.2%}" == line.split()[0]


def test_of_several_images_a_table_is_printed(predict, tmp_path):
    folder = fill(tmp_path / "some", 2, dark="dark", bright="bright")
    (folder / "dark" / "a\nb.png").write_bytes((folder / "dark" / "0.png").read_bytes())
    lines = predict(folder, "--top", 2)[1].splitlines()
    names = [
        str(folder / name) for name in ("bright/0.png", "bright/1.png", "dark/0.png", "dark/1.png", r"dark/a\nb.png")
    ]
    assert len(lines) == 10 and [line.split("  ")[0].strip() for line in lines[::2]] == names
    assert [line.split()[-1] for line in lines[::2]] == ["bright"] * 2 + ["dark"] * 3
    assert not any(line.startswith(str(tmp_path)) for line in lines[1::2])
    assert len({line.index("%") for line in lines}) == 1  # one column


def test_a_table_is_written_to_a_file_and_not_over_an_image(predict, tmp_path):
    folder = fill(tmp_path / "some", 3, dark="dark")
    (folder / "dark" / "1.png").write_bytes(b"no image")
    code, out, err = predict(folder, "--top", 1, "--csv", tmp_path / "found.csv")
    assert code == 1 and out == "" and "1.png" in err
    assert (tmp_path / "found.csv").read_text() == predict(folder, "--top", 1, "--csv", "-")[1]
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 3
    whole = (folder / "dark" / "0.png").read_bytes()
    code, _, err = predict(folder, "--csv", folder / "dark" / "0.png")
    assert code == 2 and "is not the name of a table" in err and (folder / "dark" / "0.png").read_bytes() == whole
    assert predict(folder, "--csv", folder)[0] == 2
    code, _, err = predict(folder, "--csv", tmp_path / "none" / "found.csv")
    assert code == 2 and "there is no folder" in err


def test_what_is_no_place_for_drawings_is_refused_before_anything_is_looked_at(predict, tmp_path, capsys):
    folder = fill(tmp_path / "images", 1, dark="dark")
    code, out, err = predict(folder, "--out", tmp_path / "drawn")
    assert code == 2 and out == "" and "only boxes are drawn" in err and err.count("\n") == 1
    save_checkpoint(tmp_path / "detr.safetensors", create_model("detr_micro_64", num_classes=2))
    image = folder / "dark" / "0.png"
    assert numpyvit("predict", image, "--checkpoint", tmp_path / "detr.safetensors", "--out", image) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"--out {image}: is no folder" in err and err.count("\n") == 1


def test_drawings_of_files_with_the_same_name_do_not_replace_each_other(tmp_path):
    folder = fill(tmp_path / "images", 2, dark="dark", bright="bright")
    shutil.copy(folder / "dark" / "0.png", folder / "0-2.png")
    save_checkpoint(tmp_path / "detr.safetensors", create_model("detr_micro_64", num_classes=2))
    named = (folder, folder / "dark" / "0.png", "--out", tmp_path / "drawn")
    assert numpyvit("predict", *named, "--checkpoint", tmp_path / "detr.safetensors") == 0
    drawn = {path.name: np.asarray(Image.open(path).convert("RGB")) for path in (tmp_path / "drawn").iterdir()}
    assert sorted(drawn) == ["0-2.png", "0-3.png", "0.png", "1-2.png", "1.png"]
    assert drawn["0.png"].mean() > drawn["0-3.png"].mean()  # bright comes before dark


def test_a_file_that_is_named_twice_is_predicted_twice(predict, tmp_path):
    image = fill(tmp_path / "some", 1, dark="dark") / "dark" / "0.png"
    assert [json.loads(line)["image"] for line in predict(image, image, "--json")[1].splitlines()] == [str(image)] * 2


def test_bad_files_are_reported_at_the_end_and_the_others_predicted(predict, tmp_path):
    folder = fill(tmp_path / "some", 9, dark="dark")
    (folder / "dark" / "3.png").write_bytes((folder / "dark" / "3.png").read_bytes()[:60])
    code, out, err = predict(tmp_path / "none.png", folder, "--csv", "--top", 1)
    assert code == 1 and len(out.splitlines()) == 1 + 8
    assert "none.png" in err and "3.png" in err and "2 of 10 images could not be read" in err
    assert "Traceback" not in err


def test_a_folder_without_images_is_an_error(predict, tmp_path):
    code, _, err = predict(tmp_path)
    assert code == 1 and "no images" in err


def test_results_come_before_the_last_image_is_read(trained, tmp_path, monkeypatch, capsys):
    """So that memory does not grow with the number of images, and one need not wait."""
    from numpyvit.training import Classification

    folder = fill(tmp_path / "many", 50, dark="dark")
    ahead = []

    def read(task, model, path, read=Classification.read):
        ahead.append(len(ahead) - capsys_lines())
        return read(task, model, path)

    printed = []

    def capsys_lines():
        printed.extend(capsys.readouterr().out.splitlines())
        return len(printed)

    monkeypatch.setattr(Classification, "read", read)
    assert numpyvit("predict", "--checkpoint", trained, folder, "--json") == 0
    assert len(ahead) == 50 and max(ahead) < 16


def test_a_name_that_the_terminal_cannot_show_is_escaped(trained, tmp_path):
    image = fill(tmp_path / "été", 1, dark="dark") / "dark" / "0.png"
    command = [sys.executable, "-m", "numpyvit", "predict", str(image), "--checkpoint", str(trained)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stderr == "" and r"\xe9t\xe9" in result.stdout


@pytest.mark.skipif(not SHARED.is_dir(), reason="the trained weights are not at hand")
@pytest.mark.parametrize("names", [("n02124075", "n07920052"), ("Egyptian_cat", "espresso"), ("espresso", "n02124075")])
def test_published_weights_score_photographs_as_they_predict_them(names, tmp_path, capsys):
    right = ("Egyptian cat", "espresso") if names[0] != "espresso" else ("espresso", "Egyptian cat")
    for photo, name in zip(("chelsea", "coffee"), names):
        (tmp_path / "val" / name).mkdir(parents=True)
        shutil.copy(SHARED / "photos" / f"{photo}.png", tmp_path / "val" / name)
    weights = ("--model", "vit_tiny_patch16_224", "--checkpoint", SHARED / "weights" / "vit_tiny_patch16_224_in1k.npz")
    assert numpyvit("evaluate", "--data", tmp_path, *weights, "--json", "--per-class") == 0
    scores = json.loads(capsys.readouterr().out)
    assert {row["model_class"] for row in scores["per_class"]} == set(right)
    assert numpyvit("predict", tmp_path, *weights, "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_photo = {os.path.basename(row["image"]): row["classes"] for row in found}
    assert [by_photo[f"{photo}.png"][0]["class"] for photo in ("chelsea", "coffee")] == ["Egyptian cat", "espresso"]
    assert scores["accuracy"] == (names[0] != "espresso")  # a folder that holds another class is scored as wrong
    if scores["accuracy"]:
        mean = np.mean([-np.log(classes[0]["probability"]) for classes in by_photo.values()])
        assert scores["loss"] == pytest.approx(mean, rel=1e-4)


def test_weights_without_names_or_classes_are_said(tmp_path, capsys):
    folder = fill(tmp_path / "some", 1, dark="dark")
    options = dict(img_size=8, embed_dim=8, depth=1, num_heads=2)
    for number in (3, 0):
        save_checkpoint(
            tmp_path / f"{number}.safetensors", create_model("vit_micro_patch4_32", num_classes=number, **options)
        )
    assert numpyvit("evaluate", "--checkpoint", tmp_path / "3.safetensors", "--data", folder) == 0
    assert "labels are taken by number" in capsys.readouterr().err
    assert numpyvit("predict", "--checkpoint", tmp_path / "0.safetensors", folder) == 2
    assert "no classes to predict" in capsys.readouterr().err
