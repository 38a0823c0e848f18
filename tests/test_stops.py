"""A run that was stopped, however and wherever, ends as one that never was; what was done is not lost."""

import contextlib
import itertools
import json
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from stopped_run import STEPS, Fault, train

from numpyvit.errors import Interrupted, RunError
from numpyvit.training.run_directory import TIMINGS
from numpyvit.weights.checkpoint import load_tensors

pytestmark = pytest.mark.filterwarnings("ignore:curves.png was not drawn")  # a full disk there is only noted
KINDS = ("kill", "int", "term", "error", "memory", "full")
STOPPED = (Interrupted, RunError, RuntimeError, MemoryError)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run leaves that nobody stopped, and how many events it has."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    events, writes = Fault(), Fault("full", at=-1)
    train(out, events)
    train(tmp_path_factory.mktemp("undisturbed") / "run", writes)
    return results(out), next(events.events), next(writes.events)


def results(out):
    """Everything in a run directory but timings."""
    found = {name: load_tensors(out / f"{name}.safetensors") for name in ("last", "best", "state")}
    lines = (out / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]
    found["config"] = json.loads((out / "config.json").read_text())
    found["curves"] = (out / "curves.png").read_bytes()
    found["files"] = sorted(path.name for path in out.iterdir())
    return found


def assert_equal(a, b):
    for name in ("metrics", "config", "files", "curves"):
        assert a[name] == b[name]
    for name in ("last", "best", "state"):
        (tensors, notes), (other_tensors, other_notes) = a[name], b[name]
        assert notes == other_notes and tensors.keys() == other_tensors.keys()
        for key in tensors:
            np.testing.assert_array_equal(tensors[key], other_tensors[key])


def saved_steps(out):
    state = out / "state.safetensors"
    return load_tensors(state)[1]["steps"] if state.exists() else 0


def stop_once(out, kind, at, save_every):
    """Run until the stop. Returns whether there was one: the event may lie beyond the end of what is left."""
    if kind == "kill":
        script = pathlib.Path(__file__).with_name("stopped_run.py")
        command = [sys.executable, script, out, kind, str(at), str(save_every)]
        return subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    fault, before = Fault(kind, at), saved_steps(out)
    try:
        with term_as_an_exception():
            train(out, fault, save_every)
    except STOPPED as error:
        signalled = isinstance(error, Interrupted)
        assert signalled == (kind in ("int", "term"))
        if signalled or (kind in ("error", "memory") and fault.where in ("step", "batch")):
            assert saved_steps(out) == before + fault.steps, f"steps were lost by {kind} in {fault.where}"
        return True
    except KeyboardInterrupt:
        assert kind in ("int", "term") and fault.where in ("fsync", "replace")  # before the first step: it just ends
        return True
    return fault.where is not None  # a signal after the last step: the run ended


@contextlib.contextmanager
def term_as_an_exception():
    """Where no run catches it, SIGTERM would end the tests."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_and_resume(out, undisturbed, rng, most):
    """Several stops of one run, each at random. Returns their number."""
    expected, events, writes = undisturbed
    stops = 0
    for _ in range(most):
        kind = KINDS[rng.integers(len(KINDS))]
        at = int(rng.integers(writes if kind == "full" else events))
        stops += stop_once(out, kind, at, save_every=float(rng.choice([0.0, 1e9])))
    train(out, Fault())
    assert_equal(results(out), expected)
    return stops


@pytest.mark.parametrize("seed", range(2))
def test_a_run_stopped_several_times_ends_as_one_that_never_was(undisturbed, tmp_path, seed):
    assert stop_and_resume(tmp_path / "run", undisturbed, np.random.default_rng(seed), most=5) > 0


@pytest.mark.slow
def test_two_hundred_stops_and_none_differs(undisturbed, tmp_path):
    rng, stops = np.random.default_rng(2024), 0
    for number in itertools.count():
        stops += stop_and_resume(tmp_path / str(number), undisturbed, rng, most=5)
        if stops >= 200:
            break
    print(f"{stops} stops in {number + 1} runs, none differs")


@pytest.mark.parametrize("kind", ["int", "term", "error", "memory"])
@pytest.mark.parametrize("where", ["step", "batch"])
def test_a_stop_in_the_middle_of_an_epoch_loses_no_step(undisturbed, tmp_path, kind, where):
    class AtTheSeventh(Fault):
        def event(self, place):
            if place == where:
                super().event(place)

    out, fault = tmp_path / "run", AtTheSeventh(kind, 7)
    with pytest.raises(STOPPED) as caught:
        train(out, fault)
    assert saved_steps(out) == fault.steps >= 5
    if kind not in ("int", "term"):
        assert f"up to step {fault.steps} is saved" in caught.value.__notes__[0]


def test_a_half_done_update_is_not_saved(undisturbed, tmp_path):
    class InTheEighthUpdate(Fault):
        def event(self, place):
            if place == "update" and self.steps == 7:
                raise MemoryError

    out = tmp_path / "run"
    with pytest.raises(MemoryError) as caught:
        train(out, InTheEighthUpdate())
    assert saved_steps(out) == 5 and "within an update" in caught.value.__notes__[0]  # as the epoch before left it
    train(out, Fault())
    assert_equal(results(out), undisturbed[0])


@pytest.mark.parametrize("save_every, least", [(0, 6), (1e9, 5)])
def test_the_state_is_saved_within_an_epoch_when_it_is_due(undisturbed, tmp_path, monkeypatch, save_every, least):
    """A stop before the last step of a run of ten in two epochs, by a clock that a step moves on by a second."""

    class BeforeTheLastStep(Fault):
        def event(self, place):
            if place == "step" and self.steps == 9:
                raise KeyboardInterrupt  # as a kill: nothing is saved any more

    out, fault = tmp_path / "run", BeforeTheLastStep()
    monkeypatch.setattr("numpyvit.training.loop.time.monotonic", lambda: float(fault.steps))
    with contextlib.suppress(KeyboardInterrupt):
        train(out, fault, save_every)
    monkeypatch.undo()
    assert least <= saved_steps(out) < STEPS
    train(out, Fault())
    assert_equal(results(out), undisturbed[0])


def test_term_says_143_and_ctrl_c_130(tmp_path):
    for kind, code in (("term", 143), ("int", 130)):
        with pytest.raises(Interrupted) as caught:
            train(tmp_path / kind, Fault(kind, 40))
        assert caught.value.exit_code == code
