"""What a model is trained for."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core import Layer
from ..data.loader import ImageSet
from ..errors import ConfigError
from .settings import Settings

# by the `kind` of a set or a model: the task that it is for, a name in numpyvit.training
TASKS = {"classification": "Classification", "detection": "Detection"}

Result = dict[str, Any]  # one thing that a model found in an image, for people and for JSON


class Task:
    """What targets are, the loss, how well a model does, and what is shown of it.

    Inputs, outputs and targets may be nested tuples, lists and dicts of arrays, the batch axis first. What a subclass
    does not define stays as it is here. It holds nothing that changes in a run, and it can be pickled.

    best:   a figure of `evaluate`, and whether higher is better: by which the best weights are chosen. Of equal epochs
            it is the one with the lower loss, then the first.
    curves: {title of a panel: its figures}. A run's records hold these of `evaluate`, as val_loss and so on.
    shares: figures in 0..1, shown in percent.
    results, columns: what JSON calls the results for an image, and the keys of each.
    per_image: whether `evaluate` takes per_image=True, and then gives {"per_image": {name: array}} as well: what the
            model says of each image, which a run keeps of its test set.
    top, draws_results: how many of them are shown if nothing else is said, and whether draw_result draws them.
    shares_evaluation: whether `evaluate` takes group=, the ranks among which it divides its work (see over_batches).
    """

    best: tuple[str, bool] = ("loss", False)
    curves: Mapping[str, tuple[str, ...]] = {"loss": ("loss",)}
    shares: tuple[str, ...] = ()
    results: str = "results"
    columns: tuple[str, ...] = ()
    top: int | None = None
    draws_results: bool = False
    shares_evaluation: bool = False
    per_image: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> "Task":
        """The task with what the settings of a run say about it."""
        return cls()

    def config(self) -> dict:
        """What config.json keeps of the task; a run is resumed with an equal one only."""
        return {"name": type(self).__name__}

    def check(self, model: Layer, dataset) -> None:
        """Called before the first step. Errors: ConfigError where the two do not suit the task."""

    def batch(self, model, inputs, labels, rng: np.random.Generator, threads: int | None = None) -> tuple[Any, Any]:
        """-> what the model is given and what its outputs are compared with, from a piece of a batch of the loader.

        A batch is divided into pieces, shards of it, which are worked on by themselves, on other ranks too. All targets
        together are those of the batch: arrays, tuples or dicts of such, or a list with an item for each image.
        rng: a NumPy generator that follows from the seed and the numbers of the step and the piece.
        A task that has `most` is given it as well, most=…, the largest of the batch.
        """
        return inputs, labels

    # most(labels) -> int: a number of which all pieces of a batch take the largest, such as the boxes of an image
    most: Callable[[Any], int] | None = None

    def loss(self, outputs, targets) -> tuple:
        """-> (value, the mean over the batch; gradient, nested as the outputs), or with a third, {"name": a mean}.

        The outputs and targets are those of the whole batch. The third are parts of the value, averaged over an epoch
        as the loss is, and shown as it is.
        """
        raise NotImplementedError

    def score(self, outputs, targets) -> dict:
        """-> {"name": a sum over the batch}; sums of batches add up. Nothing is read from a device."""
        return {}

    def summary(self, sums: Mapping, count: int) -> dict:
        """-> {"accuracy": …} of an epoch of training on `count` images, from the summed scores."""
        return {}

    def evaluate(self, model: Layer, dataset, *, threads: int | None = None, batch_size: int = 256) -> dict:
        """-> {"loss": …, further figures of a whole set}. Those that are numbers are kept of the test set.

        A figure that a set does not define, such as the mean of nothing, is NaN; files hold it as null.
        A subclass may take further keywords, which numpyvit.evaluate hands on.
        """
        raise NotImplementedError

    def show(self, name: str, value: float | None) -> str:
        """A figure as people read it: "90.00%" of a share, else "0.5000"; "none" of one that is not defined."""
        if value is None:
            return "none"
        return f"{value:.2%}" if name in self.shares else f"{value:.4f}"

    def describe(self, figures: Mapping[str, float | None]) -> str:
        """{"loss": 0.5, "accuracy": 0.9} -> "loss 0.5000  accuracy 90.00%"."""
        return "  ".join(f"{name} {self.show(name, value)}" for name, value in figures.items())

    def report(self, model: Layer, figures: Mapping) -> str:
        """What `numpyvit evaluate` prints of the figures of `evaluate`."""
        return self.describe(number_figures(figures))

    def draw(self, model: Layer, dataset, path) -> None:
        """Draw what the model makes of some images to `path`, a PNG; called after an epoch. Nothing by default."""

    # -- images of one's own, for `numpyvit predict`

    def read(self, model: Layer, path) -> Any:
        """An image file as `predict` takes it. Errors: DataError."""
        raise NotImplementedError

    def predict(
        self,
        model: Layer,
        images: list,
        *,
        threads: int | None = None,
        top: int | None = None,
        run: Callable[[Any], Any] | None = None,
    ) -> list:
        """[what the model finds in it, a list of results, for each of the images].

        top: no more results an image. run: what gives model(x), for many calls, such as a Predictor; None: infer.
        """
        raise NotImplementedError

    def show_result(self, result: Result) -> str:
        """A result as a line of text."""
        raise NotImplementedError

    def draw_result(self, model: Layer, image: Any, results: list[Result], path) -> None:
        """Draw the results into their image, a PNG."""
        raise NotImplementedError


def number_figures(figures: Mapping) -> dict:
    """The figures that are single numbers, timings aside; None for one that is not finite."""
    timings = ("seconds", "images_per_second")
    return {
        name: value if math.isfinite(value) else None
        for name, value in figures.items()
        if isinstance(value, numbers.Real) and name not in timings
    }


def kind_of(dataset: ImageSet | Layer) -> str:
    """What is to be learned of a set, such as "classification"."""
    return getattr(dataset, "kind", "classification")


def task_for(dataset: ImageSet | Layer, settings: Settings | None = None) -> Task:
    """The task that a set is for, by its `kind`, with what the settings say about it."""
    from .. import training

    kind = kind_of(dataset)
    if kind not in TASKS:
        raise ConfigError(f"the data set is of kind {kind!r}, expected {' or '.join(TASKS)}; name its task with task=…")
    task = getattr(training, TASKS[kind])
    return task() if settings is None else task.from_settings(settings)
