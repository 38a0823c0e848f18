"""What is said while a run goes on, to whom, and what happens where nobody can hear it."""

import contextlib
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios
import warnings

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.training.progress import Tolerant

NUMPYVIT = [sys.executable, "-m", "numpyvit"]
TRAIN = [*NUMPYVIT, "train", "--epochs", "2", "--batch-size", "256", "--warmup-steps", "2", "--threads", "1"]


@pytest.fixture(autouse=True)
def buffered(monkeypatch):
    """As users have it: what is printed waits in a buffer, and may fail as late as when the interpreter ends."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def epochs_of(out):
    return len((out / "metrics.jsonl").read_text().splitlines())


def piped_into_nothing(command, **options):
    """Run a command whose standard output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(command, stdout=write, text=True, timeout=120, **options)
    finally:
        os.close(write)


# ---- streams that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", ["stdout is a pipe that ended", "both are full", "both are closed"])
def test_no_stream_ends_a_run(tmp_path, streams):
    out = tmp_path / "run"
    command = [*TRAIN, "--out", out]
    if streams == "stdout is a pipe that ended":
        result = piped_into_nothing(command, stderr=subprocess.PIPE)
        assert result.stderr == ""
    elif streams == "both are full":
        with open("/dev/full", "w") as full:
            result = subprocess.run(command, stdout=full, stderr=full, timeout=120)
    else:
        result = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], timeout=120)
    assert result.returncode == 0 and epochs_of(out) == 2 and (out / "curves.png").exists()


def test_a_bar_on_a_terminal_that_is_lost_does_not_end_a_run(tmp_path):
    """The bar begins to be drawn, then every write fails."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    with subprocess.Popen([*TRAIN, "--out", tmp_path / "run"], stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        os.read(master, 1)
        os.close(master)
        assert process.wait(timeout=120) == 0
    assert epochs_of(tmp_path / "run") == 2


def test_a_tolerant_stream_passes_failures_over_and_nothing_else(tmp_path):
    file = open(tmp_path / "text", "w")  # noqa: SIM115
    stream = Tolerant(file)
    stream.write("kept")
    stream.flush()
    file.close()
    stream.write("lost")
    stream.flush()
    Tolerant(None).write("lost")
    assert (tmp_path / "text").read_text() == "kept" and not stream.isatty() and not Tolerant(None).isatty()
    with pytest.raises(TypeError):
        Tolerant(sys.stdout).write(5)


@pytest.mark.parametrize("args", [["models"], ["--help"], ["train", "--help"]])
def test_a_pipe_that_ended_ends_other_verbs_quietly(args):
    result = piped_into_nothing([*NUMPYVIT, *args], stderr=subprocess.PIPE)
    assert result.stderr == "" and result.returncode in (0, 141)


def test_a_full_disk_under_stdout_is_a_failure_of_verbs_that_only_print():
    with open("/dev/full", "w") as full:
        result = subprocess.run([*NUMPYVIT, "models"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "No space left" in result.stderr


def test_a_name_that_the_terminal_cannot_show_is_no_failure(tmp_path):
    (tmp_path / "run").mkdir()
    result = subprocess.run(
        [*TRAIN, "--steps", "1", "--out", tmp_path / "run" / "ünï"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0 and rb"\xfcn\xef" in result.stdout and b"Traceback" not in result.stderr


# ---- how much is said -----------------------------------------------------------------------------------------------


def test_without_a_terminal_there_is_one_line_an_epoch(tmp_path):
    result = subprocess.run([*TRAIN, "--out", tmp_path / "run"], capture_output=True, timeout=120, check=True)
    lines = result.stdout.decode().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1", "2"]
    assert result.stderr == b"" and b"\r" not in result.stdout


def test_a_log_of_own_images_has_lines_of_text_and_no_control_characters(image_folder, tmp_path):
    with open(tmp_path / "log", "w") as log:
        command = [*TRAIN, "--data", image_folder, "--img-size", "8", "--batch-size", "4", "--out", tmp_path / "run"]
        subprocess.run(command, stdout=log, stderr=log, timeout=120, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1", "2"]


def on_a_terminal(command, **streams):
    """What a command writes to a terminal of 120 columns."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    with subprocess.Popen(command, **{name: terminal for name in ("stdout", "stderr")} | streams) as process:
        os.close(terminal)
        seen = b""
        with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
            while chunk := os.read(master, 10_000):
                seen += chunk
        assert process.wait(timeout=120) == 0
    os.close(master)
    return seen.decode()


def test_on_a_terminal_there_is_a_bar(tmp_path):
    seen = on_a_terminal([*TRAIN, "--out", tmp_path / "run"], stdout=subprocess.DEVNULL)
    assert "\r" in seen and "epoch 2/2" in seen and "img/s" in seen


def test_on_a_terminal_one_bar_stands_below_a_line_an_epoch(image_folder, tmp_path):
    command = [*TRAIN, "--data", image_folder, "--img-size", "8", "--batch-size", "4", "--out", tmp_path / "run"]
    seen = on_a_terminal(command)
    screen = []
    for line in seen.replace("\r\n", "\n").split("\n"):
        parts = [part for part in line.split("\r") if part.strip()]  # each is written over the one before
        screen.append(parts[-1] if parts else "")
        assert all(len(part) <= 120 for part in parts if "%|" in part)  # a longer bar would leave a piece of it behind
    assert "\x1b" not in seen  # a second bar would move the cursor up
    assert [line.split()[1] for line in screen if line.startswith("epoch ") and "%|" not in line] == ["1", "2"]
    assert sum("%|" in line for line in screen) == 1 and "100%|" in "".join(screen)


def test_quiet_says_nothing(tmp_path, capfd):
    args = ["train", "--steps", "1", "--warmup-steps", "0", "--quiet", "--out", str(tmp_path / "run")]
    assert cli.main(args) == 0
    assert capfd.readouterr() == ("", "") and epochs_of(tmp_path / "run") == 1


# ---- drawings -------------------------------------------------------------------------------------------------------


def short_run(out, steps=1):
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    train, test = (part.take(slice(0, 64)) for part in data.load("digits"))
    return nv.fit(model, train, test, steps=steps, warmup_steps=0, out=out, progress=False, resume=(out).exists())


@pytest.mark.parametrize("error", [ImportError("no"), AttributeError("np.float"), RuntimeError("fonts")])
def test_a_matplotlib_that_does_not_work_does_not_end_a_run(tmp_path, monkeypatch, error):
    class Broken:
        def __getattr__(self, name):
            raise error

    monkeypatch.setitem(sys.modules, "matplotlib.figure", Broken())
    with pytest.warns(UserWarning, match=r"curves\.png was not drawn"):
        short_run(tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_a_drawing_that_fails_is_a_note_after_the_state_was_saved(tmp_path, monkeypatch):
    def fail(*args, **options):
        assert (tmp_path / "run" / "state.safetensors").exists()
        raise RuntimeError("no pens")

    with monkeypatch.context() as patch:
        patch.setattr("numpyvit.viz.draw_curves", fail)
        with pytest.warns(UserWarning, match=r"curves\.png was not drawn \(RuntimeError: no pens\)"):
            assert len(short_run(tmp_path / "run")) == 1
    assert not (tmp_path / "run" / "curves.png").exists()
    short_run(tmp_path / "run")  # resumed: there is nothing left to do but this
    assert (tmp_path / "run" / "curves.png").exists()


# ---- Ctrl-C before anything is loaded -------------------------------------------------------------------------------


def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path):
    """A module that sends it stands in for NumPy; the command line itself imports without."""
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\n")
    root = str(pathlib.Path(nv.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    for command in (NUMPYVIT, [sys.executable, "-c", "import sys; from numpyvit.cli import main; sys.exit(main())"]):
        result = subprocess.run([*command, "train"], env=env, capture_output=True, text=True, timeout=120)
        assert result.returncode == 130 and "Traceback" not in result.stderr


def test_ctrl_c_that_a_compiled_module_turns_into_an_import_error_is_no_traceback(tmp_path):
    code = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time\n"
    code += "except KeyboardInterrupt:\n    pass\nraise ImportError('could not import datetime')\n"
    (tmp_path / "numpy.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(pathlib.Path(nv.__file__).parents[1])])}
    result = subprocess.run([*NUMPYVIT, "train"], env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 130 and "Traceback" not in result.stderr


def test_ctrl_c_before_the_command_line_is_loaded_is_no_traceback(tmp_path):
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(pathlib.Path(nv.__file__).parents[1])])}
    result = subprocess.run([*NUMPYVIT, "train"], env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 130 and "Traceback" not in result.stderr


def test_term_during_training_exits_with_143_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    with subprocess.Popen([*TRAIN, "--epochs", "500", "--out", out], stderr=subprocess.PIPE, text=True) as process:
        while not (out / "metrics.jsonl").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 143 and "everything is saved" in error and "Traceback" not in error
    assert f"numpyvit train --resume --out {out}" in error


# ---- what is asked of the data --------------------------------------------------------------------------------------


def test_skip_bad_is_handed_to_the_loader(tmp_path, monkeypatch):
    asked, load = [], data.load

    def observed(*args, skip_bad=False, **options):
        asked.append(skip_bad)
        return load(*args, **options)

    monkeypatch.setattr(data, "load", observed)
    for skip in ([], ["--skip-bad"]):
        args = ["train", "--steps", "1", "--warmup-steps", "0", "--quiet", *skip]
        assert cli.main([*args, "--out", str(tmp_path / f"run{len(skip)}")]) == 0
    assert asked == [False, True]


@pytest.mark.parametrize(
    "args, message",
    [
        (["--label-smoothing", "2"], "--label-smoothing: must be a number in 0..1"),
        (["--ema-decay", "1"], "--ema-decay: must be a number in 0..1, 1 left out"),
        (["--layer-decay", "2"], "--layer-decay: must be"),
    ],
)
def test_settings_are_checked_before_the_data_is_read(args, message, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda *args, **options: pytest.fail("the data was read"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *args])
    assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(data.Dataset, "from_arrays"), reason="sets are not made from arrays")
def test_fit_takes_arrays_and_measures_both_sets_by_the_first(tmp_path):
    train, test = data.load("digits")
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    pairs = (train.images[:64], train.labels[:64]), (test.images[:20], test.labels[:20])
    records = nv.fit(model, *pairs, steps=1, warmup_steps=0, out=tmp_path, progress=False)
    own = data.Dataset.from_arrays(*pairs[0])
    notes = nv.weights.read_checkpoint(tmp_path / "last.safetensors")[1]
    np.testing.assert_allclose(notes["mean"], own.mean)
    same = data.Dataset.from_arrays(*pairs[1], own.classes, own.mean, own.std)
    assert nv.evaluate(model, same)["loss"] == pytest.approx(records[0]["val_loss"])


def test_fit_refuses_a_tuple_that_is_no_pair():
    train, _ = data.load("digits")
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(nv.errors.ConfigError, match=r"a pair \(images, labels\), got 3 arrays"):
        nv.fit(model, (train.images, train.labels, train.labels), train, progress=False)


def test_a_note_reaches_stderr_through_the_command_line(tmp_path, capsys):
    with warnings.catch_warnings():
        assert cli.main(["train", "--steps", "1", "--warmup-steps", "9", "--out", str(tmp_path / "run")]) == 0
    assert "numpyvit: note: the run of 1 steps ends within its warm-up of 9" in capsys.readouterr().err
