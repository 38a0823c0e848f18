"""What a model is trained for."""

from typing import Any, Protocol


class Task(Protocol):
    """What targets are, the loss, and what is counted of the outputs.

    Inputs, outputs and targets may be nested tuples, lists and dicts of arrays, the batch axis first.
    """

    def check(self, model, dataset) -> None:
        """Called before the first step. Errors: ConfigError where the two do not suit the task."""

    def targets(self, inputs, labels, threads=None) -> Any:
        """What outputs are compared with, from a batch of augmented inputs and the labels of the set."""

    def loss(self, outputs, targets) -> tuple:
        """-> (value, the mean over the batch; gradient, nested as the outputs)."""

    def score(self, outputs, targets) -> dict:
        """-> {"name": a sum over the batch}; sums of batches add up. Nothing is read from a device."""

    def summary(self, sums, count) -> dict:
        """-> {"accuracy": …} of so many images, from the summed scores."""
