"""What is measured of an epoch: sums over its images, its seconds, the line that tells of it."""

import math
from collections.abc import Mapping, Sequence

from ..backend import to_host
from ..errors import ConfigError
from .task import Task, number_figures


class Sums:
    """Loss, its parts and a task's scores summed over the images of an epoch, on the device."""

    def __init__(self, weighted: Mapping | None = None, scores: Mapping | None = None, count: int = 0):
        self.weighted, self.scores, self.count = weighted or {}, scores or {}, count

    def add(self, means, scores, count):
        """means: of the batch, such as {"loss": …}; scores: already summed over its `count` images."""
        self.weighted = _added(self.weighted, {name: _as_double(value) * count for name, value in means.items()})
        self.scores = _added(self.scores, scores)
        self.count += count

    def values(self):
        return [_read(self.weighted), _read(self.scores), self.count]

    def figures(self, task):
        means = {name: value / self.count for name, value in _read(self.weighted).items()}
        return number_figures({**means, **task.summary(_read(self.scores), self.count)})


def _added(sums, values):
    return {name: sums.get(name, 0.0) + value for name, value in values.items()}


def _read(sums):
    """The sums as numbers of the host; on a device each look stalls it."""
    return {name: float(to_host(value)) for name, value in sums.items()}


def _as_double(value):
    return value.astype("float64") if hasattr(value, "astype") else value


class Clock:
    """The seconds that the steps of an epoch took, and that they waited for batches."""

    def __init__(self, images: int = 0, seconds: float = 0.0, waited: float = 0.0):
        self.images, self.seconds, self.waited = images, seconds, waited

    def add(self, images, seconds):
        self.images += images
        self.seconds += seconds

    def values(self):
        return [self.images, self.seconds, self.waited]

    @property
    def images_per_second(self):
        return self.images / self.seconds if self.seconds else 0.0


def validation_figures(figures: Mapping, task: Task) -> dict:
    """What a record holds of a task's `evaluate`: the loss, what is drawn, and what the best epoch is chosen by."""
    found, best = number_figures(figures), task.best[0]
    for name in ("loss", best):
        if name not in found:
            raise ConfigError(f"{type(task).__name__}.evaluate returned no number {name!r}, only {', '.join(found)}")
    names = dict.fromkeys(["loss", *(name for panel in task.curves.values() for name in panel), best])
    return {f"val_{name}": found[name] for name in names if name in found}


def best_record(records: Sequence[Mapping], best: tuple[str, bool]) -> Mapping:
    """The record of the epoch that best.safetensors is from: see Task.best. Without a validation set the last.

    A figure that is None is never the best.
    """
    name, higher = best
    if "val_loss" not in records[-1]:
        return records[-1]

    def rank(record):
        value = record[f"val_{name}"]
        if value is None:
            return math.inf, record["val_loss"]
        return -value if higher else value, record["val_loss"]

    return min(records, key=rank)


def describe(record: Mapping, task: Task) -> str:
    """One line about an epoch."""
    parts = []
    for part in ("train", "val"):
        own = {key.removeprefix(f"{part}_"): value for key, value in record.items() if key.startswith(f"{part}_")}
        if own:
            parts.append(f"{part} {task.describe(own)}")
    parts.append(f"{record['images_per_second']:.0f} img/s, waited {record['loader_seconds']:.1f} s for data")
    return f"epoch {record['epoch']:3d}  {'   '.join(parts)}"
