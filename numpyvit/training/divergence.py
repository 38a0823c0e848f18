"""Where the numbers of a run stopped being finite."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import array_module, to_host
from ..core import Layer, observing
from .nested import arrays


def overflowed_parameter(model: Layer) -> str | None:
    """The name of the first parameter that is not finite, else None."""
    return next((name for name, parameter in model.named_parameters() if not _finite(parameter.data)), None)


def explain_non_finite(model: Layer, replay: Callable[[], Any] | None = None) -> str:
    """Name the first parameter or layer output that is not finite, for the message of a diverged run.

    replay: a function that computes once more what went wrong, such as TrainStep.replay of the batch.
    """
    name = overflowed_parameter(model)
    if name is not None:
        return f"the parameter {name} is not finite: the last update overflowed; lower lr or clip the gradients"
    if replay is None:
        return "every parameter is finite"
    found = []

    def look(name, layer, output):
        if not found and not all(map(_finite, arrays(output))):
            found.append(f"{name or 'the model'} ({type(layer).__name__})")

    with observing(model, look), np.errstate(all="ignore"):
        replay()
    if found:
        return f"the first layer whose output is not finite is {found[0]}; lower lr, clip the gradients, check the data"
    return "every layer's output is finite, so the loss itself overflowed; check the labels and the loss"


def _finite(array):
    return bool(to_host(array_module(array).isfinite(array).all()))
