"""What a run directory holds, read back without a word of its training's code."""

import json
import math
import os
import pathlib
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from ..errors import NumpyvitError, RunError
from ..training import Classification, Detection, Task
from ..training.records import best_record
from ..training.run_directory import read_config
from ..weights.checkpoint import load_tensors

_TASKS = {"Classification": Classification, "Distillation": Classification, "Detection": Detection}
_PARTS = ("train_", "val_")
_ADVICE = "name a directory that `numpyvit train` wrote"


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    config, records, result: of config.json, metrics.jsonl and result.json; empty where there is none yet.
    predictions: (arrays, notes) of predictions.safetensors, or None.
    remarks:     what is missing or damaged, a sentence each.
    """

    path: pathlib.Path
    config: dict
    records: list[dict] = field(default_factory=list)
    result: dict = field(default_factory=dict)
    predictions: tuple[dict[str, np.ndarray], dict] | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def environment(self) -> dict:
        """What the run was made with, as its end has noted it."""
        noted = {} if self.predictions is None else self.predictions[1].get("environment")
        return noted if isinstance(noted, dict) else {}

    @property
    def task(self) -> Task:
        """The task of the run as it shows figures; of one that is not the library's own, a plain Task."""
        task = self.config.get("task")
        return _TASKS.get(task.get("name") if isinstance(task, dict) else None, Task)()

    @property
    def panels(self) -> dict[str, tuple[str, ...]]:
        """{title: figures} of the curves: those of the task, else one for each figure of the records."""
        if type(self.task) is not Task:
            return dict(self.task.curves)
        names = [name.removeprefix(part) for record in self.records for name in record for part in _PARTS]
        return {name: (name,) for name in dict.fromkeys(names) if self._is_figure(name)}

    def _is_figure(self, name):
        return any(part + name in record for record in self.records for part in _PARTS)

    @property
    def best(self) -> dict | None:
        """The record of the best epoch on validation, None where nothing was validated."""
        owed = ("val_loss", f"val_{self.task.best[0]}")
        if not self.records or not all(record.get(name) is not None for record in self.records for name in owed):
            return None
        return best_record(self.records, self.task.best)

    @property
    def seconds(self) -> float:
        """Of training, validation left out."""
        return sum(record.get("seconds") or 0.0 for record in self.records)

    @property
    def images_per_second(self) -> float | None:
        """The median of the epochs."""
        rates = [record["images_per_second"] for record in self.records if record.get("images_per_second")]
        return float(np.median(rates)) if rates else None


def read_run(path: str | os.PathLike) -> Run:
    """The run in a directory. Errors: RunError where there is none."""
    path, remarks = pathlib.Path(path), []
    config = read_config(path, _ADVICE)
    if config is None:
        raise RunError(f"{path}: holds no run; {_ADVICE}")
    run = Run(
        path,
        config,
        _records(path / "metrics.jsonl", remarks),
        _result(path / "result.json", remarks),
        _predictions(path / "predictions.safetensors", remarks),
        remarks,
    )
    if not run.records:
        remarks.append("No epoch has ended yet: there are no curves.")
    if not run.result:
        remarks.append("The run has not come to its end: there are no figures of a test set yet.")
    elif run.predictions is None:
        remarks.append("What the model says of each test image was not kept, so only the figures are shown.")
    return run


def _records(file, remarks):
    """The epochs, those lines that can be read."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return []
    records = [record for record in map(_parsed, lines) if isinstance(record.get("epoch"), int)]
    if len(records) < len(lines):
        remarks.append(f"{len(lines) - len(records)} lines of {file.name} are damaged and left out.")
    return [{name: _number(value) for name, value in record.items()} for record in records]


def _result(file, remarks):
    """{"best": {figure: number}, "last": …}."""
    try:
        text = file.read_bytes()
    except OSError:
        return {}
    found = {which: figures for which, figures in _parsed(text).items() if isinstance(figures, dict)}
    if not found:
        remarks.append(f"{file.name} is damaged and left out.")
    return {which: {name: _number(value) for name, value in figures.items()} for which, figures in found.items()}


def _predictions(file, remarks):
    if not file.exists():
        return None
    try:
        return load_tensors(file)
    except NumpyvitError as error:
        remarks.append(f"{file.name} is left out: {error}.")
        return None


def _parsed(text):
    """The object in a text of JSON, {} where it holds none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value):
    return value if isinstance(value, Real) and math.isfinite(value) else None
