"""The trainable parameters of a model in one flat buffer."""

import types

import numpy as np

from ..backend import Array, array_module
from ..errors import ConfigError
from .layer import Layer


class Layout:
    """Where each trainable parameter lies in one flat buffer, decayed parameters first.

    Gradients, weights and optimizer moments share it, so that clearing, clipping, summing and updating are one pass.
    """

    def __init__(self, model: Layer):
        every = list(model.named_parameters())
        named = [(name, parameter) for name, parameter in every if parameter.trainable]
        named.sort(key=lambda item: not item[1].decay)  # a stable sort: the model's order within each part
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.frozen = [parameter for _, parameter in every if not parameter.trainable]
        self.sizes = [parameter.data.size for parameter in self.parameters]
        self.size = sum(self.sizes)
        self.decayed = sum(size for size, parameter in zip(self.sizes, self.parameters) if parameter.decay)
        arrays = [parameter.data for _, parameter in every]
        if len({(type(data), data.dtype) for data in arrays}) > 1:
            raise ConfigError(
                f"parameters must share one dtype and device, found {sorted({str(data.dtype) for data in arrays})}; "
                "use model.astype('float32') and model.to('cpu')"
            )
        first = arrays[0] if arrays else np.empty(0, np.float32)
        self._example = array_module(first).empty(0, dtype=first.dtype)  # tells dtype and device

    def __eq__(self, other):
        return self._facts() == other._facts()

    def _facts(self):
        return self.parameters, self.sizes, self.decayed, self.dtype, self.xp

    @property
    def xp(self) -> types.ModuleType:
        return array_module(self._example)

    @property
    def dtype(self) -> np.dtype:
        return self._example.dtype

    def zeros(self) -> Array:
        return self.xp.zeros(self.size, dtype=self.dtype)

    def views(self, flat: Array) -> list[Array]:
        """One view of `flat` a parameter, in the parameters' shapes."""
        offsets = np.cumsum([0, *self.sizes]).tolist()
        return [
            flat[start : start + size].reshape(parameter.data.shape)
            for start, size, parameter in zip(offsets, self.sizes, self.parameters)
        ]


class FlatWeights:
    """The trainable parameters of a model moved into one buffer, of which they become views."""

    def __init__(self, model: Layer):
        self.model, self.layout = model, Layout(model)
        self._move_in()

    def _move_in(self):
        self.flat = self.layout.zeros()
        self._views = self.layout.views(self.flat)
        self.adopt()

    def __getstate__(self):
        return {"model": self.model, "layout": self.layout}

    def __setstate__(self, state):
        vars(self).update(state)
        self._move_in()  # a copy of a view is not a view

    def current(self) -> Array:
        """All weights as one array, parameters that were replaced taken in first."""
        self.adopt()
        return self.flat

    def check_trainable(self) -> None:
        """Errors: ConfigError where parameters were frozen or unfrozen since."""
        trained, frozen = self.layout.parameters, self.layout.frozen
        if not all(p.trainable for p in trained) or any(p.trainable for p in frozen):
            raise ConfigError(
                "parameters were frozen or unfrozen since the optimizer or moving average was made; make a new one"
            )

    def adopt(self) -> None:
        """Take in any parameter whose array was replaced since (by `parameter.data = …`)."""
        replaced = [pair for pair in zip(self.layout.parameters, self._views) if pair[0].data is not pair[1]]
        arrays = [parameter.data.copy() for parameter, _ in replaced]  # they may lie in the buffer themselves
        for (parameter, view), array in zip(replaced, arrays):
            if array.dtype != view.dtype or array.shape != view.shape:
                name = self.layout.names[self.layout.parameters.index(parameter)]
                raise ConfigError(
                    f"the parameter {name} changed from {view.dtype}{view.shape} to {array.dtype}{array.shape}; "
                    "make a new optimizer"
                )
            view[...] = array
            parameter.data = view


def flat_weights(model: Layer) -> FlatWeights:
    """The FlatWeights of a model, made once: its optimizer and its moving average work on the same buffer."""
    layout, known = Layout(model), vars(model).get("_flat_weights")
    if known is None or known.layout != layout:
        known = model._flat_weights = FlatWeights(model)
    return known
