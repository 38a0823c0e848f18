"""What a training run leaves on disk, and how it is found again.

config.json, metrics.jsonl (one object an epoch), last.safetensors and best.safetensors (weights under timm's names),
curves.png, and state.safetensors: everything that continuing needs. The state is written last, so that whatever
instant a run is killed at, it goes on from the state and writes the rest again.
"""

import json
import pathlib

from .errors import CheckpointError, RunError
from .files import to_json, write_atomically
from .io import load_tensors, save_tensors

FREE = ("epochs", "steps", "threads", "device", "data_dir")  # settings in which a resumed run may differ


class RunDirectory:
    """The files of one run. `config` is compared when a run is resumed; keys in `free` may differ."""

    def __init__(self, path, config, resume=False, free=FREE):
        self.path = pathlib.Path(path)
        config = json.loads(to_json(config))  # as it will be read back
        known = config_to_resume(self.path) if resume else read_config(self.path)
        if not resume and known is not None and self._has_results():
            raise RunError(f"{self.path}: already holds a run; go on with --resume, or choose another --out")
        if resume:
            self._compare(config, known, free)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for part in self.path.glob(".*.part"):  # of a process that was killed while it wrote
                part.unlink()
        except OSError as error:
            raise RunError(f"cannot use the folder {self.path}: {error.strerror}; choose another --out") from None
        write_atomically(self.file("config.json"), (to_json(config, indent=2) + "\n").encode())

    def _has_results(self):
        return any(self.file(name).exists() for name in ("state.safetensors", "metrics.jsonl", "last.safetensors"))

    def _compare(self, config, known, free):
        keys = sorted(key for key in config.keys() | known.keys() if key not in free)
        different = [key for key in keys if config.get(key) != known.get(key)]
        if different:
            shown = "; ".join(f"{key} is {config.get(key)!r}, was {known.get(key)!r}" for key in different[:4])
            raise RunError(f"{self.path}: holds another run ({shown}); choose another --out or the same settings")

    def file(self, name):
        return self.path / name

    def write_metrics(self, records):
        """Write all epochs at once: no line is ever half there."""
        write_atomically(self.file("metrics.jsonl"), "".join(to_json(r) + "\n" for r in records).encode())

    def save_state(self, tensors, notes):
        save_tensors(self.file("state.safetensors"), tensors, notes)

    def load_state(self):
        """-> (tensors, notes), or None where the run was stopped before it had saved any."""
        if not self.file("state.safetensors").exists():
            return None
        return load_tensors(self.file("state.safetensors"))


def read_config(path):
    """The settings of the run in a directory, None where there is none."""
    file = pathlib.Path(path) / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); choose another --out") from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: is damaged (no settings in it); choose another --out")
    return config


def config_to_resume(path):
    """The settings of the run in a directory. Errors: RunError where there is none."""
    config = read_config(path)
    if config is None:
        raise RunError(f"{path}: holds no run to resume; leave --resume out to start one")
    return config
