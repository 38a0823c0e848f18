"""What a run leaves on disk, who may write there, and what somebody may have done to it since."""

import errno
import fcntl
import itertools
import json
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.errors import CheckpointError, ConfigError, NonFiniteError, RunError
from numpyvit.files import write_atomically
from numpyvit.training.run_directory import TIMINGS
from numpyvit.training.run_lock import hold
from numpyvit.weights.checkpoint import load_tensors, read_checkpoint


@pytest.fixture(scope="module")
def digits():
    train, test = data.load("digits")
    return train.take(slice(0, 300)), test.take(slice(0, 60))


def run(digits, out, epochs=1, **options):
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=2, num_heads=2)
    settings = {"batch_size": 64, "ema_decay": 0.9, "warmup_steps": 2, "progress": False}
    return nv.fit(model, *digits, epochs=epochs, out=out, **{**settings, **options})


def contents(out):
    """{file's name: what is in it, timings aside}."""
    found = {}
    for path in out.iterdir():
        found[path.name] = load_tensors(path) if path.suffix == ".safetensors" else path.read_bytes()
    lines = found["metrics.jsonl"].splitlines()
    found["metrics.jsonl"] = [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]
    for name, value in found.items():
        if name.endswith(".safetensors"):
            found[name] = ({key: array.tobytes() for key, array in value[0].items()}, value[1])
    return found


# ---- one process at a time ------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from numpyvit.training.run_lock import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, and that process."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield tmp_path, process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused_and_told_which_process_holds_the_directory(digits, tmp_path, resume):
    run(digits, tmp_path)
    if not resume:
        (tmp_path / "state.safetensors").unlink()
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    before = contents_without_lock(tmp_path)
    try:
        with pytest.raises(RunError, match=rf"process {process.pid} on .* is writing this run"):
            run(digits, tmp_path, 2, resume=resume)
    finally:
        process.kill()
        process.communicate()
    assert contents_without_lock(tmp_path) == before


def contents_without_lock(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def test_the_lock_dies_with_its_process(held):
    folder, process = held
    with pytest.raises(RunError, match=str(process.pid)), hold(folder):
        pass
    process.kill()
    process.wait()
    with hold(folder):
        pass
    assert not list(folder.iterdir())


def test_of_many_that_want_a_folder_at_once_one_holds_it_at_a_time(tmp_path):
    inside, most, entered = [], [], []

    def work():
        for _ in range(200):
            try:
                with hold(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    entered.append(1)
            except RunError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(entered) > 4 and not list(tmp_path.iterdir())


def test_a_lock_file_that_its_last_holder_removes_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    flock, turns = fcntl.flock, itertools.count()

    def late(descriptor, operation):
        if next(turns) == 0:
            (tmp_path / ".lock").unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with hold(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} on"), hold(tmp_path):
        pass


def test_where_nothing_can_be_locked_a_run_is_told_so_and_goes_on(digits, tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"):
        run(digits, tmp_path)
    assert (tmp_path / "last.safetensors").exists()


def test_the_file_that_a_live_process_writes_is_left_alone(digits, held):
    folder, _ = held
    (folder / ".state.safetensors.x.part").write_bytes(b"half")
    with pytest.raises(RunError):
        run(digits, folder)
    assert (folder / ".state.safetensors.x.part").read_bytes() == b"half"


# ---- whose state it is ----------------------------------------------------------------------------------------------


def test_a_state_of_other_settings_is_not_resumed(digits, tmp_path):
    """As when another start wrote its config.json while this run went on."""
    run(digits, tmp_path / "run", seed=3)
    run(digits, tmp_path / "other", seed=4)
    (tmp_path / "other" / "config.json").replace(tmp_path / "run" / "config.json")
    with pytest.raises(RunError, match=r"state\.safetensors: belongs to another run \(seed is 4, was 3\)"):
        run(digits, tmp_path / "run", 2, seed=4, resume=True)


def test_equal_runs_leave_equal_files(digits, tmp_path):
    """Also where one of them was resumed, and where steps end it within an epoch; timings are in the metrics alone."""
    for steps in (10, 7):
        run(digits, tmp_path / f"{steps}", 2, steps=steps)
        run(digits, tmp_path / f"{steps} again", 2, steps=steps)
        assert contents(tmp_path / f"{steps}") == contents(tmp_path / f"{steps} again")
    run(digits, tmp_path / "parts", 1, steps=10)
    run(digits, tmp_path / "parts", 2, steps=10, resume=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "10")


def test_timings_of_earlier_epochs_are_kept_when_a_run_goes_on(digits, tmp_path):
    (first,) = run(digits, tmp_path)
    records = run(digits, tmp_path, 2, resume=True)
    assert records[0] == first and all(record[name] > 0 for record in records for name in TIMINGS[:2])


# ---- what was removed or edited since -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "metrics.jsonl", "curves.png"])
def test_a_finished_run_writes_what_was_removed_again(digits, tmp_path, name):
    records = run(digits, tmp_path, 2, lr=0.01)
    assert records[1]["val_accuracy"] > records[0]["val_accuracy"]  # so the best weights are the last ones
    before = contents(tmp_path)
    (tmp_path / name).unlink()
    run(digits, tmp_path, 2, lr=0.01, resume=True)
    assert contents(tmp_path) == before


CLI_RUN = ("--steps", 2, "--threads", 1, "--quiet")


@pytest.fixture(scope="module")
def made_by_cli(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", *map(str, CLI_RUN), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    "edit, named",
    [
        ({"options": 5}, "options must be an object, got 5"),
        ({"options": {"embed_dim": "x"}}, "'embed_dim'"),
        ({"options": {"img_size": [8]}}, "img_size must be a list of height and width"),
        ({"options": {"drop_rate": "x"}}, "drop_rate"),
        ({"lr": "x"}, "lr must be a finite number that is not negative, got 'x'"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"epochs": "x"}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"augment": 5}, "augment must be an object"),
        ({"augment": {"affine": {"degrees": "x"}}}, "degrees"),
        ({"augment": {"affine": 3}}, "affine"),
        ({"augment": {"rotate": 3}}, "'rotate'"),
        ({"freeze": 5}, "freeze must be a list of patterns"),
        ({"freeze": "blocks.*"}, "freeze must be a list of patterns"),
        ({"threads": 0}, "there is no setting 'threads'"),
        ({"color": "blue"}, "there is no setting 'color'"),
        ({"preparation": {"mean": 5}}, "mean must be a list"),
        ({"data_dir": 5}, "data_dir must be text or None"),
        ({"model": ["a"]}, "model must be text"),
        ({"ema_decay": 1}, "ema_decay"),
        ({"lr": 0.5}, "belongs to another run (lr is 0.5, was 0.002)"),
    ],
)
def test_a_config_edited_by_hand_is_one_line_that_names_the_setting(made_by_cli, edit, named, capsys):
    file = made_by_cli / "config.json"
    whole = file.read_bytes()
    file.write_text(json.dumps({**json.loads(whole), **edit}))
    try:
        assert cli.main(["train", "--resume", "--out", str(made_by_cli)]) == 1
    finally:
        file.write_bytes(whole)
    error = capsys.readouterr().err
    assert named in error and str(made_by_cli) in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[]", "5", "{", "[" * 100_000, "\udcff"])
def test_a_config_that_holds_no_settings_is_named(made_by_cli, text, capsys):
    file = made_by_cli / "config.json"
    whole = file.read_bytes()
    file.write_bytes(text.encode(errors="surrogateescape"))
    try:
        assert cli.main(["train", "--resume", "--out", str(made_by_cli)]) == 1
    finally:
        file.write_bytes(whole)
    assert "config.json: is damaged" in capsys.readouterr().err


def test_a_state_without_settings_is_refused(digits, tmp_path):
    from numpyvit.weights.checkpoint import save_tensors

    run(digits, tmp_path)
    tensors, notes = load_tensors(tmp_path / "state.safetensors")
    del notes["config"]
    save_tensors(tmp_path / "state.safetensors", tensors, notes)
    with pytest.raises(CheckpointError, match="older numpyvit"):
        run(digits, tmp_path, 2, resume=True)


# ---- the best epoch, weights that cannot be trained -----------------------------------------------------------------


def test_of_equal_epochs_the_first_is_the_best_in_the_report_and_in_the_file(tmp_path, capsys):
    out = tmp_path / "run"
    args = ["train", "--epochs", "3", "--lr", "0", "--out", str(out)]
    assert cli.main(args) == 0
    accuracies = {json.loads(line)["val_accuracy"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert len(accuracies) == 1
    assert "epoch 1)" in capsys.readouterr().out and read_checkpoint(out / "best.safetensors")[1]["epoch"] == 1


def test_nan_in_given_weights_is_said_as_such(digits, tmp_path):
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=2, num_heads=2)
    model.blocks[1].norm1.bias.data[0] = np.nan
    with pytest.raises(NonFiniteError, match=r"given weights hold NaN or infinity in blocks\.1\.norm1\.bias"):
        nv.fit(model, *digits, epochs=1, out=tmp_path, progress=False)


def test_freezing_everything_is_an_error(digits):
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=2, num_heads=2)
    with pytest.raises(ConfigError, match=r"every parameter is frozen \(freeze=\['\*'\]\)"):
        nv.fit(model, *digits, freeze=["*"], progress=False)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_written_file_has_the_rights_of_any_new_file_and_the_mask_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the mask belongs to all threads"))
    write_atomically(tmp_path / "a", b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_rename_is_brought_to_disk_with_its_folder(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def observed(descriptor):
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "a").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    write_atomically(tmp_path / "a", b"1")
    assert synced == [(False, False), (True, True)]  # the file before the rename, the folder after


def test_what_interrupts_a_write_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"
