import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import data
from numpyvit.errors import CheckpointError, ConfigError, NonFiniteError, RunError
from numpyvit.training.fit import Interrupted, evaluate, explain_non_finite, fit
from numpyvit.weights.checkpoint import load_checkpoint, read_checkpoint, save_tensors

SMALL = dict(embed_dim=16, depth=2, num_heads=2)


@pytest.fixture(scope="module")
def digits():
    train, test = data.load("digits")
    return train.take(slice(0, 300)), test.take(slice(0, 60))


def model(seed=0, **options):
    return nv.create_model("vit_micro_patch2_8", seed=seed, **{**SMALL, **options})


def run(digits, out, epochs, resume=False, **options):
    net = model(drop_rate=0.1, drop_path_rate=0.1)
    settings = dict(
        batch_size=64, schedule="constant", ema_decay=0.9, augment=[data.random_affine(10, 0.5)], progress=False
    )
    records = fit(net, *digits, epochs=epochs, out=out, resume=resume, **{**settings, **options})
    return net, records


def same(a, b):
    a, b = load_checkpoint(a), load_checkpoint(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def without_time(records):
    return [
        {k: v for k, v in r.items() if k not in ("seconds", "images_per_second", "loader_seconds")} for r in records
    ]


def test_a_run_directory_holds_what_is_promised(digits, tmp_path):
    net, records = run(digits, tmp_path / "run", 2)
    assert sorted(os.listdir(tmp_path / "run")) == [
        "best.safetensors", "config.json", "curves.png", "last.safetensors", "metrics.jsonl", "state.safetensors",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == records and [line["epoch"] for line in lines] == [1, 2]
    keys = {"epoch", "train_loss", "val_loss", "val_accuracy", "seconds", "images_per_second", "loader_seconds"}
    assert all(keys <= line.keys() and 0 <= line["val_accuracy"] <= 1 for line in lines)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 64
    again = nv.create_model("vit_micro_patch2_8", pretrained=tmp_path / "run" / "last.safetensors", **SMALL)
    assert all(np.array_equal(a, net.state_dict()[name]) for name, a in again.state_dict().items())
    assert evaluate(again, digits[1])["accuracy"] == records[-1]["val_accuracy"]
    assert read_checkpoint(tmp_path / "run" / "last.safetensors")[1]["classes"] == list("0123456789")


def test_best_is_the_epoch_with_the_highest_accuracy(digits, tmp_path):
    _, records = run(digits, tmp_path / "run", 4, lr=0.01)
    notes = read_checkpoint(tmp_path / "run" / "best.safetensors")[1]
    assert notes["val_accuracy"] == max(r["val_accuracy"] for r in records)


def test_three_epochs_and_two_more_are_five(digits, tmp_path):
    _, straight = run(digits, tmp_path / "five", 5)
    run(digits, tmp_path / "parts", 3)
    _, parts = run(digits, tmp_path / "parts", 5, resume=True)
    assert same(tmp_path / "five" / "last.safetensors", tmp_path / "parts" / "last.safetensors")
    assert same(tmp_path / "five" / "best.safetensors", tmp_path / "parts" / "best.safetensors")
    assert without_time(straight) == without_time(parts)


def test_steps_end_a_run_within_an_epoch_and_it_goes_on_from_there(digits, tmp_path):
    _, straight = run(digits, tmp_path / "ten", 9, steps=10)
    run(digits, tmp_path / "parts", 9, steps=7)
    _, parts = run(digits, tmp_path / "parts", 9, steps=10, resume=True)
    assert same(tmp_path / "ten" / "last.safetensors", tmp_path / "parts" / "last.safetensors")
    assert without_time(straight) == without_time(parts)
    assert [r["epoch"] for r in parts] == [1, 2]


class Interrupting(nv.TrainStep):
    """Presses Ctrl-C in a certain step."""

    def __call__(self, x, targets):
        loss = super().__call__(x, targets)
        if self.steps == self.at:
            signal.raise_signal(signal.SIGINT)
        return loss


@pytest.mark.parametrize("at", [1, 5, 7, 10])
def test_ctrl_c_in_any_step_loses_nothing(digits, tmp_path, monkeypatch, at):
    """Steps 5 and 10 are the last of an epoch and of the run."""
    _, straight = run(digits, tmp_path / "peace", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupting, "at", at, raising=False)
        patch.setattr("numpyvit.training.loop.TrainStep", Interrupting)
        with pytest.raises(Interrupted, match=f"after step {at} of 10; everything is saved.*resume=True"):
            run(digits, tmp_path / "run", 2)
    _, records = run(digits, tmp_path / "run", 2, resume=True)
    assert without_time(records) == without_time(straight)
    for name in ("last.safetensors", "best.safetensors"):
        assert same(tmp_path / "peace" / name, tmp_path / "run" / name)


def test_a_run_that_steps_ended_keeps_its_record_when_resumed(digits, tmp_path):
    _, records = run(digits, tmp_path / "run", 9, steps=7)
    _, again = run(digits, tmp_path / "run", 9, steps=7, resume=True)
    assert again == records and len(records) == 2


def test_a_schedule_with_an_end_cannot_be_lengthened(digits, tmp_path):
    run(digits, tmp_path / "run", 1, schedule="cosine")
    with pytest.raises(RunError, match="epochs is 2, was 1"):
        run(digits, tmp_path / "run", 2, schedule="cosine", resume=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_update_that_overflows_is_an_error_and_not_saved(digits, tmp_path):
    with pytest.raises(NonFiniteError, match="validation loss"):
        run(digits, tmp_path / "run", 1, steps=1, lr=1e38, ema_decay=None, warmup_steps=0)
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_bad_settings_leave_the_directory_free(digits, tmp_path):
    for bad in ({"lr": -1.0}, {"label_smoothing": 2.0}, {"clip_norm": -1.0}, {"warmup_steps": -1}, {"seed": -1}):
        with pytest.raises(ConfigError):
            run(digits, tmp_path / "run", 1, **bad)
    run(digits, tmp_path / "run", 1)


def test_leftovers_of_a_killed_write_are_cleared(digits, tmp_path):
    run(digits, tmp_path / "run", 1)
    (tmp_path / "run" / ".state.safetensors.x.part").write_bytes(b"half")
    run(digits, tmp_path / "run", 2, resume=True)
    assert not list((tmp_path / "run").glob(".*"))


def test_numpy_numbers_are_settings_too_and_functions_are_named(digits, tmp_path):
    from functools import partial

    net = model(num_classes=np.int64(10), norm_layer=partial(nv.layers.LayerNorm, eps=1e-5))
    fit(net, *digits, epochs=1, lr=np.float32(1e-3), out=tmp_path / "run", progress=False)
    assert read_checkpoint(tmp_path / "run" / "last.safetensors")[1]["recipe"]["unsaved"] == ["norm_layer"]


def test_a_finished_run_resumed_stays_as_it_is(digits, tmp_path):
    net, records = run(digits, tmp_path / "run", 2)
    again, records_again = run(digits, tmp_path / "run", 2, resume=True)
    assert records == records_again
    assert all(np.array_equal(a, again.state_dict()[name]) for name, a in net.state_dict().items())


TRAIN = [sys.executable, "-m", "numpyvit", "train", "--epochs", "4", "--batch-size", "256", "--threads", "1"]


def wait_for(path, process):
    """Until a file of the run is there; an error where the process ends first."""
    deadline = time.time() + 60
    while not path.exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.005)


def test_a_run_killed_at_any_time_goes_on_bit_for_bit(tmp_path):
    """SIGKILL at several instants of one run, then resumed to its end, against a run left in peace."""
    subprocess.run([*TRAIN, "--out", tmp_path / "peace"], check=True, capture_output=True)
    killed = 0
    for delay in (0.05, 0.15, 0.4, 0.1, 0.25):
        resume = ["--resume"] if (tmp_path / "killed" / "config.json").exists() else []
        process = subprocess.Popen(
            [*TRAIN, "--out", tmp_path / "killed", *resume], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.time() + 30
        before = os.stat(tmp_path / "killed" / "config.json").st_mtime_ns if resume else 0
        while process.poll() is None and time.time() < deadline:
            config = tmp_path / "killed" / "config.json"
            if config.exists() and os.stat(config).st_mtime_ns != before:
                break
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    subprocess.run([*TRAIN, "--out", tmp_path / "killed", "--resume"], check=True, capture_output=True)
    assert killed >= 2
    for name in ("last.safetensors", "best.safetensors"):
        assert same(tmp_path / "peace" / name, tmp_path / "killed" / name)
    metrics = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("peace", "killed")
    ]
    assert without_time(metrics[0]) == without_time(metrics[1])


def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(tmp_path):
    process = subprocess.Popen([*TRAIN, "--out", tmp_path / "run"], stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "everything is saved" in error and "numpyvit train --resume --out" in error and "Traceback" not in error
    subprocess.run([*TRAIN, "--out", tmp_path / "run", "--resume"], check=True, capture_output=True)
    subprocess.run([*TRAIN, "--out", tmp_path / "peace"], check=True, capture_output=True)
    assert same(tmp_path / "peace" / "last.safetensors", tmp_path / "run" / "last.safetensors")


def test_a_directory_with_a_run_is_not_overwritten(digits, tmp_path):
    run(digits, tmp_path / "run", 1)
    with pytest.raises(RunError, match="already holds a run"):
        run(digits, tmp_path / "run", 1)
    with pytest.raises(RunError, match="holds no run to resume"):
        run(digits, tmp_path / "other", 1, resume=True)


def test_a_run_of_another_model_is_not_resumed(digits, tmp_path):
    run(digits, tmp_path / "run", 1)
    with pytest.raises(RunError, match=r"lr is 0\.5, was 0\.001"):
        run(digits, tmp_path / "run", 2, resume=True, lr=0.5)
    with pytest.raises(RunError, match="another run"):
        fit(model(depth=3), *digits, epochs=2, out=tmp_path / "run", resume=True, progress=False)


def test_a_damaged_state_is_refused(digits, tmp_path):
    run(digits, tmp_path / "run", 1)
    path = tmp_path / "run" / "state.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-7] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="checksum"):
        run(digits, tmp_path / "run", 2, resume=True)
    path.write_bytes(whole[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        run(digits, tmp_path / "run", 2, resume=True)


def test_a_full_disk_ends_the_run_with_one_error_and_keeps_the_last_state(digits, tmp_path, monkeypatch):
    run(digits, tmp_path / "run", 1)
    before = (tmp_path / "run" / "state.safetensors").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            run(digits, tmp_path / "run", 2, resume=True)
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before


def test_an_out_that_is_a_file_is_refused(digits, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError):
        run(digits, tmp_path / "file", 1)


def test_a_loss_that_is_not_finite_names_the_step_and_the_layer(digits):
    net = model()
    weight = net.blocks[1].mlp.fc1.weight
    weight.data[...] = np.sign(weight.data) * np.float32(2e38)
    with pytest.raises(NonFiniteError, match=r"step 1 is .*blocks\.1\.mlp\.fc1 \(Linear\)"), np.errstate(all="ignore"):
        fit(net, *digits, epochs=1, progress=False, threads=1)
    net.blocks[0].norm1.bias.data[0] = np.nan
    assert "parameter blocks.0.norm1.bias" in explain_non_finite(net)


def test_sets_that_do_not_suit_the_model_are_refused_before_the_first_step(digits):
    with pytest.raises(ConfigError, match="num_classes=10"):
        fit(model(num_classes=4), *digits, progress=False)
    with pytest.raises(ConfigError, match=r"img_size=\(8, 8\)"):
        fit(nv.create_model("vit_micro_patch7_28", **SMALL), *digits, progress=False)
    with pytest.raises(ConfigError, match="empty"):
        fit(model(), digits[0].take(slice(0, 0)), digits[1], progress=False)
    with pytest.raises(ConfigError, match="schedule"):
        fit(model(), *digits, schedule="linear", progress=False)


def test_a_short_last_batch_counts_by_its_images(digits):
    net = model()
    scores = evaluate(net, digits[1], batch_size=50)
    whole = evaluate(net, digits[1], batch_size=60)
    assert scores["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert scores["accuracy"] == pytest.approx(whole["accuracy"])


def test_evaluation_drops_nothing_out(digits):
    dropping, plain = model(drop_rate=0.9, drop_path_rate=0.9), model()
    assert evaluate(dropping, digits[1])["loss"] == evaluate(plain, digits[1])["loss"]


def test_checkpoints_of_others_have_no_notes(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3, np.float32)}, tmp_path / "other.safetensors")
    assert read_checkpoint(tmp_path / "other.safetensors")[1] == {}
    assert load_checkpoint(tmp_path / "other.safetensors")["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(tmp_path, seed):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}, {"x": [1, 2]})
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    whole[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(whole)
    try:
        tensors, notes = nv.weights.load_tensors(path)
    except CheckpointError:
        return
    assert (
        notes == {"x": [1, 2]} and tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and tensors["b"].tolist() == [1, 1]
    )


def test_missing_and_foreign_checkpoint_files(tmp_path):
    with pytest.raises(CheckpointError, match="no such"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="damaged or in no known format"):
        load_checkpoint(tmp_path / "text")


def test_a_linear_probe_leaves_the_rest_alone_and_resumes(digits, tmp_path):
    before = model().state_dict()
    options = {"freeze": ["[!h]*"], "ema_decay": 0.9, "progress": False, "batch_size": 64}
    net = model()
    fit(net, *digits, epochs=2, out=tmp_path / "straight", **options)
    after = net.state_dict()
    assert {name for name in after if not np.array_equal(before[name], after[name])} == {"head.weight", "head.bias"}
    fit(model(), *digits, epochs=1, out=tmp_path / "parts", **options)
    fit(model(), *digits, epochs=2, out=tmp_path / "parts", resume=True, **options)
    assert same(tmp_path / "straight" / "last.safetensors", tmp_path / "parts" / "last.safetensors")


def test_layer_decay_slows_lower_blocks(digits):
    start, net = model().state_dict(), model()
    fit(net, *digits, epochs=1, layer_decay=0.1, progress=False)
    moved = {name: np.abs(array - start[name]).max() for name, array in net.state_dict().items()}
    assert moved["blocks.0.attn.proj.bias"] < 0.2 * moved["blocks.1.attn.proj.bias"]
