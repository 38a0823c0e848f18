import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from numpyvit import cli, create_model
from numpyvit.layers import Linear
from numpyvit.weights.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint

VERBS = ["train", "evaluate", "predict", "data", "attention", "serve", "report", "compare"]
VERBS += ["convert", "models", "gradcheck"]


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on the digits."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert numpyvit("train", "--epochs", 1, "--out", out) == 0
    return out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        numpyvit(verb, "--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0 and "example" in text and f"numpyvit {verb}" in text


def test_train_says_where_everything_is_and_what_to_type_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert numpyvit("train", "--steps", 3) == 0
    text = capsys.readouterr().out
    assert "test accuracy" in text and "curves.png" in text
    command = next(line for line in text.splitlines() if line.startswith("next")).split("numpyvit ", 1)[1]
    assert numpyvit(*command.split()) == 0
    assert "accuracy" in capsys.readouterr().out
    assert numpyvit("train", "--steps", 2) == 0  # a second run gets a folder of its own
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "digits-vit_micro_patch2_8",
        "digits-vit_micro_patch2_8-2",
    ]


def test_resume_takes_the_stored_settings(run, capsys):
    assert numpyvit("train", "--resume", "--out", run, "--epochs", 2) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert numpyvit("train", "--resume", "--out", run, "--model", "vit_mini_patch4_32") == 1
    assert "another run" in capsys.readouterr().err
    assert numpyvit("train", "--resume", "--out", run, "--lr", 0.5, "--epochs", 3) == 1
    assert "lr is 0.5" in capsys.readouterr().err


def test_a_run_from_weights_that_was_stopped_at_once_still_begins_with_them(run, tmp_path, capsys):
    args = ("--pretrained", run / "last.safetensors", "--steps", 2)
    assert numpyvit("train", *args, "--out", tmp_path / "straight") == 0
    assert numpyvit("train", *args, "--out", tmp_path / "killed") == 0
    for path in (tmp_path / "killed").iterdir():  # as after SIGKILL before the first state
        if path.name != "config.json":
            path.unlink()
    assert numpyvit("train", "--resume", "--out", tmp_path / "killed") == 0
    states = [load_checkpoint(tmp_path / name / "last.safetensors") for name in ("straight", "killed")]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_fine_tuning_of_the_head_alone(run, tmp_path, capsys):
    args = ("--pretrained", run / "best.safetensors", "--freeze", "[!h]*", "--layer-decay", 0.7, "--steps", 2)
    assert numpyvit("train", *args, "--out", tmp_path / "probe") == 0
    before, after = load_checkpoint(run / "best.safetensors"), load_checkpoint(tmp_path / "probe" / "last.safetensors")
    assert {n for n in after if not np.array_equal(before[n], after[n])} == {"head.weight", "head.bias"}
    assert numpyvit("train", "--freeze", "nothing*", "--out", tmp_path / "typo") == 2
    assert "no parameter is named like" in capsys.readouterr().err


def test_own_images_from_published_weights_are_prepared_like_theirs(image_folder, tmp_path, capsys):
    weights = tmp_path / "published.npz"
    np.savez(weights, **create_model("deit_tiny_patch16_224", img_size=32).state_dict())
    args = ("--data", image_folder, "--model", "deit_tiny_patch16_224", "--img-size", 32, "--batch-size", 8)
    args += ("--pretrained", weights, "--freeze", "[!h]*")
    assert numpyvit("train", *args, "--steps", 3, "--out", tmp_path / "straight") == 0
    assert "note: " in (text := capsys.readouterr().err) and "head for 1000 classes was dropped" in text
    assert numpyvit("train", *args, "--steps", 2, "--out", tmp_path / "parts") == 0
    weights.unlink()  # a run that has begun needs it no longer
    assert numpyvit("train", "--resume", "--steps", 3, "--out", tmp_path / "parts") == 0
    for name in ("straight", "parts"):
        file = tmp_path / name / "last.safetensors"
        notes = read_checkpoint(file)[1]
        assert notes["mean"] == [0.485, 0.456, 0.406] and notes["crop_pct"] == 0.9
        assert numpyvit("evaluate", "--checkpoint", file) == 0
    states = [load_checkpoint(tmp_path / name / "last.safetensors") for name in ("straight", "parts")]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_own_images_train_and_predict(image_folder, tmp_path, capsys):
    out = tmp_path / "run"
    args = (
        "--data",
        image_folder,
        "--model",
        "vit_micro_patch4_32",
        "--img-size",
        16,
        "--epochs",
        12,
        "--batch-size",
        8,
    )
    assert numpyvit("train", *args, "--batch-size", 8, "--out", out, "--warmup-steps", 2, "--ema-decay", 0.5) == 0
    image = image_folder / "train" / "bright" / "3.png"
    assert numpyvit("predict", image, "--checkpoint", out / "last.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == str(image) and lines[-2].split()[1] == "bright"
    assert sum(float(line.split("%")[0]) for line in lines[-2:]) == pytest.approx(100, abs=0.02)
    assert numpyvit("evaluate", "--checkpoint", out / "best.safetensors") == 0
    notes = json.loads((out / "config.json").read_text())
    assert notes["options"]["img_size"] == [16, 16] and notes["options"]["num_classes"] == 2


def test_attention_draws_a_sheet(run, tmp_path, capsys):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "digit.png")
    args = (tmp_path / "digit.png", "--checkpoint", run / "best.safetensors", "--out", tmp_path / "sheet.png")
    assert numpyvit("attention", *args) == 0
    assert numpyvit("attention", *args, "--img-size", 16) == 0  # finer maps of the same model
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_attention_draws_one_map_or_writes_its_numbers(run, tmp_path, capsys):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(pixels).save(tmp_path / "digit.png")

    def attention(*args):
        return numpyvit("attention", tmp_path / "digit.png", "--checkpoint", run / "best.safetensors", *args)

    def written(*args):
        assert attention("--out", tmp_path / "maps.npy", *args) == 0
        return np.load(tmp_path / "maps.npy")

    everything = written()
    assert everything.shape == (4, 4, 17, 17)
    np.testing.assert_allclose(everything.sum(-1), 1, rtol=1e-5)
    assert np.array_equal(written("--layer", 2), everything[1])
    assert np.array_equal(written("--layer", 2, "--head", 3), everything[1, 2])
    assert np.array_equal(written("--npy", "--head", 3), everything[3, 2])  # of the last block

    drawings = set()
    for args in ((), ("--layer", 1), ("--layer", 1, "--head", 4), ("--head", 4)):
        assert attention("--out", tmp_path / "map.png", *args) == 0
        drawings.add((tmp_path / "map.png").read_bytes())
    assert len(drawings) == 4 and "map.png: digit.png: " in (text := capsys.readouterr().out) and "%" in text
    assert attention("--layer", 5) == attention("--head", 5) == 2
    assert "--layer 5: the model has 4" in capsys.readouterr().err


def test_attention_names_its_file_by_what_is_in_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("digit.png")
    args = ("attention", "digit.png", "--checkpoint", run / "best.safetensors")
    for bad in (["--out", "a.txt"], ["--out", "a"], ["--npy", "--out", "a.png"]):
        assert numpyvit(*args, *bad) == 2
        assert f"--out {bad[-1]}: give it the ending" in capsys.readouterr().err
    assert numpyvit(*args) == numpyvit(*args, "--npy") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention.npy", "attention.png", "digit.png"]


def test_convert_writes_timms_names_once(run, tmp_path, capsys):
    arrays = load_checkpoint(run / "best.safetensors")
    np.savez(tmp_path / "w.npz", **{f"module.{name}": array for name, array in arrays.items()})
    assert numpyvit("convert", tmp_path / "w.npz", tmp_path / "w.safetensors") == 0
    again = load_checkpoint(tmp_path / "w.safetensors")
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())
    assert numpyvit("convert", tmp_path / "w.npz", tmp_path / "w.safetensors") == 1
    assert numpyvit("convert", tmp_path / "w.npz", tmp_path / "w.pth") == 2
    assert "exists already" in capsys.readouterr().err


def test_attention_of_a_model_without_any_says_so(tmp_path, capsys):
    save_checkpoint(tmp_path / "resnet.safetensors", create_model("resnet18", width=4, img_size=32))
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "image.png")
    for options in ([], ["--patch", 1, 1], ["--npy"]):
        args = (tmp_path / "image.png", "--checkpoint", tmp_path / "resnet.safetensors", *options)
        assert numpyvit("attention", *args) == 2
        assert "a ResNet has no attention to show" in capsys.readouterr().err


def test_models_lists_and_filters(capsys):
    assert numpyvit("models", "deit_tiny*") == 0
    text = capsys.readouterr().out
    assert "5,910,800" in text and "vit_base" not in text


def test_gradcheck_prints_a_table_and_passes(capsys):
    assert numpyvit("gradcheck") == 0
    text = capsys.readouterr().out
    for name in ("Linear", "PatchEmbed", "Recompute", "VisionTransformer distilled"):
        assert name in text
    assert "FAILED" not in text


def test_gradcheck_fails_with_a_wrong_layer(monkeypatch, capsys):
    monkeypatch.setattr(Linear, "backward", lambda self, dy, tape: tape.pop(self)[0] * 0)
    assert numpyvit("gradcheck", "Linear") == 1
    assert "FAILED" in capsys.readouterr().out


def test_predict_refuses_what_is_not_an_image(run, tmp_path, capsys):
    (tmp_path / "text.png").write_text("hello")
    checkpoint = ("--checkpoint", run / "best.safetensors")
    assert numpyvit("predict", tmp_path / "text.png", *checkpoint) == 1
    assert numpyvit("predict", tmp_path / "none.png", *checkpoint) == 1
    error = capsys.readouterr().err
    assert "is not an image" in error and "no such file" in error and "Traceback" not in error
    Image.fromarray(np.zeros((20, 30, 4), np.uint8)).save(tmp_path / "rgba.png")
    assert numpyvit("predict", tmp_path / "rgba.png", *checkpoint, "--top", 3) == 0


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["train", "--model", "vit_micro_patch2"], 2, "did you mean vit_micro_patch2_8"),
        (["train", "--data", "mnisst"], 1, "did you mean mnist"),
        (["train", "--model", "vit_tiny_patch16_224"], 2, "divisible by patch_size"),
        (["train", "--resume", "--out", "nowhere"], 1, "no run to resume"),
        (["train", "--device", "cuda"], 2, "device='cuda'"),
        (["train", "--img-size", "99"], 2, "for folders"),
        (["train", "--out", "x" * 300], 1, "choose another --out"),
        (["evaluate", "--checkpoint", "nowhere.safetensors"], 1, "no such checkpoint"),
        (["models", "nothing*"], 2, "no model matches"),
        (["gradcheck", "nothing"], 2, "no layer or model"),
    ],
)
def test_failures_are_one_line_with_their_code(args, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert numpyvit(*args) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("numpyvit: error: ")


@pytest.mark.parametrize(
    "args",
    ["", "fly", "predict", "train --epochs 0", "train --epochs x", "train --lr nan", "train --seed -1"]
    + ["train --clip-norm 0", "train --warmup-steps -1", "train --ema-decay inf"],
)
def test_bad_usage_exits_with_two(args, capsys):
    with pytest.raises(SystemExit) as caught:
        numpyvit(*args.split())
    assert caught.value.code == 2


def test_debug_shows_the_traceback():
    from numpyvit.errors import ConfigError

    with pytest.raises(ConfigError):
        numpyvit("models", "nothing*", "--debug")


def test_the_module_runs_and_importing_it_is_light():
    result = subprocess.run([sys.executable, "-m", "numpyvit", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("numpyvit ")
    heavy = "cupy jinja2 matplotlib PIL tqdm scipy safetensors threadpoolctl torch"
    code = f"import sys, numpyvit; print([m for m in '{heavy}'.split() if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import numpyvit as nv

    for name in nv.__all__:
        assert getattr(nv, name) is not None
    with pytest.raises(AttributeError):
        nv.nothing  # noqa: B018
