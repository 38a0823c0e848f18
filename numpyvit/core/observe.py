"""Looking at what the layers of a model return."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from .layer import Layer


def observing(model: Layer, callback: Callable, method: str = "forward") -> AbstractContextManager[None]:
    """While open, each layer's forward (or backward) inside `model` calls `callback(dotted name, layer, output)`.

    For looking and for finding faults: it shadows the methods of this model on all threads.
    """
    return observing_calls(model, lambda name, layer, inputs, output: callback(name, layer, output), method)


@contextlib.contextmanager
def observing_calls(model: Layer, callback: Callable, method: str = "forward") -> Iterator[None]:
    """The same with what each method was given: `callback(dotted name, layer, inputs, output)`."""
    layers = [(name, layer) for name, layer in model.named_layers() if method not in vars(layer)]
    for name, layer in layers:

        def observed(*inputs, _name=name, _layer=layer, **options):
            output = getattr(type(_layer), method)(_layer, *inputs, **options)
            callback(_name, _layer, inputs, output)
            return output

        vars(layer)[method] = observed
    try:
        yield
    finally:
        for _, layer in layers:
            vars(layer).pop(method, None)
