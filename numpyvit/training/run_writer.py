"""What a run writes into its directory while it goes on: weights, metrics, images, its state, the test figures."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from .. import viz
from ..backend import Group
from ..core import Layer
from ..models import class_names
from ..optim import EMA, Optimizer
from ..weights.checkpoint import load_checkpoint, save_checkpoint
from .environment import environment
from .evaluation import evaluate_task
from .records import best_record
from .run_directory import RunDirectory
from .task import Task, number_figures


def averaged(ema: EMA | None) -> AbstractContextManager:
    """A context. While open, the model's weights are those that count: the average where one is kept."""
    return ema.applied() if ema is not None else contextlib.nullcontext()


class RunWriter:
    """Writes what a run leaves, and reads back its state.

    directory: a RunDirectory on the leading rank of the group; others write nothing and have none.
    notes: what each file of weights says beside them. threads: for inference.
    """

    def __init__(
        self,
        directory: RunDirectory | None,
        model: Layer,
        optimizer: Optimizer,
        ema: EMA | None,
        task: Task,
        notes: Mapping,
        threads: int | None,
        group: Group,
    ):
        self.directory, self.model, self.optimizer, self.ema = directory, model, optimizer, ema
        self.task, self.notes, self.threads, self.group = task, notes, threads, group

    # -- results

    def remove_result(self):
        """Remove result.json, which a run that goes on makes stale."""
        if self.group.leads:
            self.directory.remove_result()

    def write_results(self, records):
        """What the weights after the last record are worth, and the weights themselves."""
        if not self.group.leads:
            return
        last, best = records[-1], f"val_{self.task.best[0]}"
        measured = {best: last[best]} if best in last else {}
        names = ["last.safetensors"] + (["best.safetensors"] if best_record(records, self.task.best) is last else [])
        with averaged(self.ema):
            for name in names:
                save_checkpoint(self.directory.file(name), self.model, **self.notes, epoch=last["epoch"], **measured)
        self.directory.write_metrics(records)

    def draw(self, records, dataset):
        """The curves, and what the task draws of a set. Whatever goes wrong there, the run goes on."""
        if not self.group.leads:
            return
        best = best_record(records, self.task.best)["epoch"] if "val_loss" in records[-1] else None
        with noted("curves.png"):
            viz.draw_curves(records, self.directory.file("curves.png"), self.task.curves, self.task.shares, best)
        with noted("samples.png"), averaged(self.ema):
            self.task.draw(self.model, dataset, self.directory.file("samples.png"))

    def write_test(self, records, dataset):
        """The test figures of the last and of the best weights, once, at the end. The model keeps the last ones.

        What the best weights say of each image is kept too, by a task that tells it.
        """
        leads = self.group.leads
        if self.group.from_first(leads and self.directory.has_result()):
            return
        last, best = records[-1], best_record(records, self.task.best)
        scores = {"last": self._measure(dataset, last)}
        if best is last:
            scores["best"] = scores["last"]
        else:
            weights = self.model.state_dict()
            try:
                file = self.directory.file("best.safetensors") if leads else None
                self.model.load_state_dict(self.group.from_first(load_checkpoint(file) if leads else None))
                scores["best"] = self._measure(dataset, best)
            finally:
                self.model.load_state_dict(weights)
        if leads:
            self._write_figures(scores, best)

    def _write_figures(self, scores, best):
        if self.task.per_image:
            notes = {"results": self.task.results, "classes": class_names(self.model), "epoch": best["epoch"]}
            notes["environment"] = environment()
            self.directory.write_predictions(scores["best"]["per_image"], notes)
        self.directory.write_result({which: number_figures(figures) for which, figures in scores.items()})

    def _measure(self, dataset, record):
        options = {"per_image": True} if self.task.per_image else {}
        figures = evaluate_task(self.task, self.model, dataset, self.group, threads=self.threads, **options)
        return {**figures, "epoch": record["epoch"]}

    # -- all that continuing needs

    def save_state(self, position):
        """position: where the loop is, for JSON."""
        if not self.group.leads:
            return
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": array for name, array in self.ema.state_dict().items()}
        self.directory.save_state(tensors, position)

    def load_state(self):
        """Go back to where a saved state was. -> its position, or None where there is none."""
        state = self.group.from_first(self.directory.load_state() if self.group.leads else None)
        if state is None:
            return None
        tensors, position = state
        part = lambda name: {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}  # noqa: E731
        self.model.load_state_dict(part("model."))
        self.optimizer.load_state_dict(part("optimizer."))
        if self.ema is not None:
            self.ema.load_state_dict(part("ema."))
        return position


@contextlib.contextmanager
def noted(name: str) -> Iterator[None]:
    """An error inside becomes a warning that the file was not drawn."""
    try:
        yield
    except Exception as error:
        warnings.warn(f"{name} was not drawn ({type(error).__name__}: {error})", stacklevel=2)
