"""What a training run leaves on disk, and how it is found again.

config.json, metrics.jsonl (one object an epoch), last.safetensors and best.safetensors (weights under timm's names),
curves.png, and state.safetensors: everything that continuing needs. The state is written last, so that whatever
instant a run is killed at, it goes on from the state and writes the rest again.
"""

import json
import pathlib

from .errors import CheckpointError, RunError
from .files import write_atomically
from .io import load_tensors, save_tensors


class RunDirectory:
    """The files of one run. `config` is compared when a run is resumed; keys in `free` may differ."""

    def __init__(self, path, config, resume=False, free=("epochs", "steps", "threads", "device", "data_dir")):
        self.path = pathlib.Path(path)
        config = json.loads(json.dumps(config))  # as it will be read back
        known = self._known_config()
        if resume and known is None:
            raise RunError(f"{self.path}: holds no run to resume; leave --resume out to start one")
        if not resume and known is not None:
            raise RunError(f"{self.path}: already holds a run; go on with --resume, or choose another --out")
        if resume:
            different = [
                key
                for key in sorted(config.keys() | known.keys())
                if key not in free and config.get(key) != known.get(key)
            ]
            if different:
                shown = "; ".join(f"{key} is {config.get(key)!r}, was {known.get(key)!r}" for key in different[:4])
                raise RunError(f"{self.path}: holds another run ({shown}); choose another --out or the same settings")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {self.path}: {error.strerror}; choose another --out") from None
        self.write_json("config.json", config)

    def _known_config(self):
        try:
            return read_config(self.path)
        except FileNotFoundError:
            return None

    def file(self, name):
        return self.path / name

    def write_json(self, name, value):
        write_atomically(self.file(name), (json.dumps(value, indent=2) + "\n").encode())

    def write_metrics(self, records):
        """Write all epochs at once: no line is ever half there."""
        write_atomically(self.file("metrics.jsonl"), "".join(json.dumps(r) + "\n" for r in records).encode())

    def save_state(self, tensors, notes):
        save_tensors(self.file("state.safetensors"), tensors, notes)

    def load_state(self):
        """-> (tensors, notes), or None where the run was stopped before it had saved any."""
        if not self.file("state.safetensors").exists():
            return None
        return load_tensors(self.file("state.safetensors"))


def read_config(path):
    """The settings of the run in a directory. FileNotFoundError where there is none."""
    file = pathlib.Path(path) / "config.json"
    try:
        return json.loads(file.read_bytes())
    except NotADirectoryError:
        raise RunError(f"{path} is a file; a run needs a folder") from None
    except ValueError:
        raise CheckpointError(f"{file}: is damaged (no JSON); choose another --out") from None
