"""What a training run leaves on disk, and how it is found again.

config.json, metrics.jsonl (one object an epoch), last.safetensors and best.safetensors (weights under timm's names),
curves.png and, of a task that draws any, samples.png. At the end result.json (the test
figures of both weights) and predictions.safetensors (what the best weights say of each test image). And
state.safetensors: all that continuing needs. The state is written after the results of its epoch, so that
whatever instant a run is killed at, it goes on from the state and writes the rest again. It holds no timings, so that
equal runs leave equal files: those are in metrics.jsonl alone.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping

from ..errors import CheckpointError, RunError
from ..files.atomic import to_json, write_atomically
from ..weights.checkpoint import load_tensors, save_tensors
from .run_lock import hold

_PLACES = ("data_dir",)  # where the data lies is not part of a run: it may move
TIMINGS = ("seconds", "images_per_second", "loader_seconds")


@contextlib.contextmanager
def open_run(
    path: str | os.PathLike, config: Mapping, resume: bool = False, free: Collection[str] = ()
) -> "Iterator[RunDirectory]":
    """The RunDirectory of one run, held against other processes while open."""
    if resume:
        config_to_resume(path)  # where there is none nothing is made
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot use the folder {path}: {error.strerror}; choose another --out") from None
    with hold(path):
        directory = RunDirectory(path, config, resume, free)
        directory.clear_leftovers()
        yield directory


class RunDirectory:
    """The files of one run. `config` is compared when a run is resumed; keys in `free` may differ."""

    def __init__(self, path: str | os.PathLike, config: Mapping, resume: bool = False, free: Collection[str] = ()):
        self.path, self.free = pathlib.Path(path), free
        self.config = json.loads(to_json(config))  # as it will be read back
        if resume:
            check_same_run(self.file("config.json"), self.config, config_to_resume(self.path), free)
        elif read_config(self.path) is not None and self._has_results():
            raise RunError(f"{self.path}: already holds a run; go on with --resume, or choose another --out")
        self._write_json("config.json", self.config)

    def _write_json(self, name, value):
        write_atomically(self.file(name), (to_json(value, indent=2) + "\n").encode())

    def _has_results(self):
        return any(self.file(name).exists() for name in ("state.safetensors", "metrics.jsonl", "last.safetensors"))

    def clear_leftovers(self):
        """Remove what a process that was killed while it wrote left behind; the lock says that none writes now."""
        for part in self.path.glob(".*.part"):
            with contextlib.suppress(OSError):
                part.unlink()

    def file(self, name):
        return self.path / name

    def write_metrics(self, records):
        """Write all epochs at once: no line is ever half there."""
        write_atomically(self.file("metrics.jsonl"), "".join(to_json(r) + "\n" for r in records).encode())

    def write_result(self, result):
        self._write_json("result.json", result)

    def write_predictions(self, arrays, notes):
        save_tensors(self.file("predictions.safetensors"), arrays, notes)

    def has_result(self):
        return self.file("result.json").exists()

    def remove_result(self):
        """Remove what is known of the test set, which a run that goes on makes stale."""
        for name in ("result.json", "predictions.safetensors"):
            self.file(name).unlink(missing_ok=True)

    def save_state(self, tensors, notes):
        records = [{key: value for key, value in r.items() if key not in TIMINGS} for r in notes["records"]]
        save_tensors(self.file("state.safetensors"), tensors, {**notes, "records": records, "config": self.config})

    def load_state(self):
        """-> (tensors, notes), or None where the run was stopped before it had saved any.

        Errors: RunError where the state was saved with other settings than those of this run.
        """
        file = self.file("state.safetensors")
        if not file.exists():
            return None
        tensors, notes = load_tensors(file)
        if "config" not in notes:
            raise CheckpointError(f"{file}: was saved by an older numpyvit; begin again with another --out")
        check_same_run(file, self.config, notes["config"], self.free)
        timings = self._timings()
        notes["records"] = [{**timings.get(r["epoch"], dict.fromkeys(TIMINGS)), **r} for r in notes["records"]]
        return tensors, notes

    def _timings(self):
        """{epoch: its timings} of the metrics that are there."""
        try:
            records = [json.loads(line) for line in self.file("metrics.jsonl").read_bytes().splitlines()]
            return {record["epoch"]: {name: record[name] for name in TIMINGS} for record in records}
        except (OSError, ValueError, TypeError, KeyError):
            return {}


def check_same_run(file: str | os.PathLike, config: Mapping, known: Mapping, free: Collection[str] = ()) -> None:
    """Errors: RunError where settings, those in `free` aside, differ from the known ones in a file."""
    keys = sorted(key for key in config.keys() | known.keys() if key not in (*free, *_PLACES))
    different = [key for key in keys if config.get(key) != known.get(key)]
    if different:
        shown = "; ".join(f"{key} is {config.get(key)!r}, was {known.get(key)!r}" for key in different[:4])
        raise RunError(f"{file}: belongs to another run ({shown}); choose another --out or the same settings")


def read_config(path: str | os.PathLike, advice: str = "choose another --out") -> dict | None:
    """The settings of the run in a directory, None where there is none. advice: what errors tell to do."""
    file = pathlib.Path(path) / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); {advice}") from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: is damaged (no settings in it); {advice}")
    return config


def config_to_resume(path: str | os.PathLike) -> dict:
    """The settings of the run in a directory. Errors: RunError where there is none."""
    config = read_config(path)
    if config is None:
        raise RunError(f"{path}: holds no run to resume; leave --resume out to start one")
    return config
