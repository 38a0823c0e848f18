"""The best weights are chosen on a part of the training set; the test set is looked at once, at the end."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.errors import ConfigError
from numpyvit.training import Classification
from numpyvit.training.parts import hold_out, load_parts
from numpyvit.weights.checkpoint import load_tensors


@pytest.fixture(scope="module")
def digits():
    train, test = data.load("digits")
    return train.take(slice(0, 300)), test.take(slice(0, 60))


def run(digits, out, val=None, **options):
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    settings = {"epochs": 3, "batch_size": 64, "lr": 0.01, "progress": False, "out": out, "test": digits[1], **options}
    return model, nv.fit(model, digits[0], val, **settings)


def result(out):
    return json.loads((out / "result.json").read_text())


def test_a_tenth_of_each_class_is_held_out_by_the_seed(digits):
    train, val = hold_out(digits[0], 0.1, seed=0)
    whole = np.bincount(digits[0].labels)
    assert np.abs(np.bincount(val.labels) - whole / 10).max() <= 0.5
    assert (np.bincount(train.labels) + np.bincount(val.labels) == whole).all()
    images = {image.tobytes() for image in val.images}
    assert not images & {image.tobytes() for image in train.images}
    assert (hold_out(digits[0], 0.1, seed=0)[1].images == val.images).all()
    assert {image.tobytes() for image in hold_out(digits[0], 0.1, seed=1)[1].images} != images


def test_single_images_are_trained_on_and_nothing_to_hold_out_is_an_error(digits):
    train, val = hold_out(digits[0].take([0, 1, 2, *np.flatnonzero(digits[0].labels == 5)[:2]]), 0.1, seed=0)
    assert len(val) >= 1 and set(val.labels) <= set(train.labels)
    with pytest.raises(ConfigError, match="val_fraction=0"):
        hold_out(digits[0].take([int(np.argmax(digits[0].labels == k)) for k in range(10)]), 0.1, seed=0)


def test_the_test_set_is_looked_at_once_after_the_last_step(digits, tmp_path):
    looked = []

    class Observed(Classification):
        def evaluate(self, model, dataset, **options):
            looked.append("test" if dataset is digits[1] else len(dataset))
            return super().evaluate(model, dataset, **options)

    model, _ = run(digits, tmp_path, epochs=2, task=Observed())
    assert looked[:2] == [looked[0]] * 2 and 20 <= looked[0] <= 40 and set(looked[2:]) == {"test"} and len(looked) <= 4
    scores = result(tmp_path)
    assert scores["last"]["accuracy"] == nv.evaluate(model, digits[1])["accuracy"] and scores["last"]["images"] == 60
    run(digits, tmp_path, epochs=2, task=Observed(), resume=True)
    assert len(looked) <= 4  # nothing is left to do


def test_the_result_holds_the_best_weights_too_and_the_model_keeps_the_last(digits, tmp_path):
    val = replace(digits[0], labels=(digits[0].labels + 1) % 10)  # whoever learns gets worse
    out = tmp_path / "run"
    model, records = run(digits, out, val, epochs=4, ema_decay=0.0, warmup_steps=0)
    best = max(records, key=lambda record: record["val_accuracy"])
    assert best["epoch"] < 4
    scores = result(out)
    assert (scores["best"]["epoch"], scores["last"]["epoch"]) == (best["epoch"], 4)
    for name in ("last", "best"):
        again = nv.create_model("vit_micro_patch2_8", out / f"{name}.safetensors", embed_dim=16, depth=1, num_heads=2)
        assert nv.evaluate(again, digits[1])["accuracy"] == scores[name]["accuracy"]
    last = nv.load_checkpoint(out / "last.safetensors")
    assert all((last[name] == array).all() for name, array in model.state_dict().items())


def test_the_predictions_are_the_best_weights(digits, tmp_path, monkeypatch):
    """They give the figures of result.json, and go with it when the run goes on."""
    run(digits, tmp_path / "run", epochs=2)
    said, notes = load_tensors(tmp_path / "run" / "predictions.safetensors")
    best = result(tmp_path / "run")["best"]
    assert (said["label"] == digits[1].labels).all() and notes["epoch"] == best["epoch"]
    assert (said["predicted"] == said["label"]).mean() == best["accuracy"]
    assert notes["results"] == "classes" and notes["classes"] == list("0123456789")
    monkeypatch.setattr(Classification, "evaluate", None)
    with pytest.raises(TypeError):
        run(digits, tmp_path / "run", epochs=3, resume=True)
    assert not {"result.json", "predictions.safetensors"} & {path.name for path in (tmp_path / "run").iterdir()}


def test_a_run_says_what_it_was_made_with(digits, tmp_path):
    run(digits, tmp_path, epochs=1)
    made_with = load_tensors(tmp_path / "predictions.safetensors")[1]["environment"]
    assert made_with["numpyvit"] == nv.__version__ and made_with["numpy"] == np.__version__


def test_without_a_validation_part_the_best_weights_are_the_last(digits, tmp_path, capsys):
    _, records = run(digits, tmp_path / "run", val_fraction=0)
    assert not any(key.startswith("val_") for record in records for key in record)
    scores = result(tmp_path / "run")
    assert scores["best"] == scores["last"]
    last, best = (nv.load_checkpoint(tmp_path / "run" / f"{name}.safetensors") for name in ("last", "best"))
    assert all((last[name] == best[name]).all() for name in last)
    args = ["train", "--steps", "1", "--warmup-steps", "0", "--val-fraction", "0", "--out", str(tmp_path / "cli")]
    assert cli.main(args) == 0
    assert "best is last" in capsys.readouterr().out


def test_a_run_in_parts_leaves_the_result_of_one_run(digits, tmp_path):
    run(digits, tmp_path / "straight")
    run(digits, tmp_path / "parts", epochs=1)
    run(digits, tmp_path / "parts", resume=True)
    for name in ("result.json", "config.json", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_folder_says_which_part_is_which(tmp_path):
    def write(part, count):
        for name in ("bright", "dark"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((4, 4, 3), 200 * (name == "bright") + i, np.uint8)).save(
                    tmp_path / part / name / f"{i}.png"
                )

    write("train", 6)
    write("val", 2)
    train, val, test = load_parts(tmp_path, img_size=(4, 4))
    assert (len(train), val, len(test)) == (12, None, 4)  # val/ is the only one beside: the test set
    write("test", 3)
    train, val, test = load_parts(tmp_path, img_size=(4, 4))
    assert (len(train), len(val), len(test)) == (12, 4, 6)
