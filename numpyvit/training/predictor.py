"""A model made ready for inference once, and then fast."""

import functools
import weakref
from collections.abc import Callable

from ..backend import on_host, shared_workers
from ..core import Layer
from ..models import Model
from ..models.folding import folded
from .inference import infer
from .nested import Nested


class Predictor:
    """predictor(x) = model(x), for many calls: norms and scales are folded into the products (see models.folding).

    It holds weights of its own, those that the model had when it was made; `refresh` takes them again. Beside them it
    keeps nothing of the model, which may be dropped. Threads may call it at once; results are the caller's own.

    threads: default all processors that this process may use. As for `infer`, the result does not depend on it, the
             last digits of a single image aside.
    x:       as for the model, also of another library, or a nesting such as (images, mask).
    Errors: those of the model, ConfigError where threads is not an int above 0.
    """

    def __init__(self, model: Layer, threads: int | None = None):
        shared_workers(threads)
        self.threads, self._model = threads, weakref.ref(model)
        self.refresh()

    def __call__(self, x: Nested) -> Nested:
        return infer(self._folded, x, self.threads)

    def refresh(self) -> None:
        """Take the model's weights as they are now. Calls that are under way end with the former ones."""
        if (model := self._model()) is not None:  # nobody could have changed one that nobody holds
            self._folded = folded(model)


def prepared(model: Layer, threads: int | None = None) -> Callable[[Nested], Nested]:
    """What gives model(x) for many batches, while the weights stay as they are: a Predictor, or `infer` on a GPU."""
    if isinstance(model, Model) and all(on_host(parameter.data) for _, parameter in model.named_parameters()):
        return Predictor(model, threads)
    return functools.partial(infer, model, threads=threads)
