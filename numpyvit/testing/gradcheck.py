"""A layer's backward, or a loss's gradient, against central differences."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array
from ..core import Layer, Tape
from ..errors import GradientError


def gradcheck(
    layer: Layer,
    *inputs: Array,
    seed: int | None = None,
    rtol: float = 1e-6,
    eps: float = 1e-5,
    rng_seed: int = 0,
    **options,
) -> dict[str, float]:
    """Compare a layer's backward with central differences in float64.

    For each floating input and each trainable parameter a, and one random direction v with no component near zero:

        ⟨da, v⟩   must equal   Σ (y(a + ε v) − y(a − ε v)) · dy / 2ε

    layer:   is copied and converted to float64; the caller's layer and inputs are left as they are.
    seed:    turns dropout on, with the same masks in every pass.
    rtol:    the largest error allowed, relative to the larger side, with a floor for gradients that are exactly 0.
    options: passed on to forward.
    Returns {array: relative error}, inputs under "input 0", parameters under their dotted names.
    Errors: GradientError naming the array, also where backward leaves residuals on the tape, changes an array that it
    was given, or returns a gradient of another shape.
    """
    layer = copy.deepcopy(layer).astype("float64")
    inputs = [np.array(x, np.float64) if np.asarray(x).dtype.kind == "f" else np.array(x) for x in inputs]
    rng = np.random.default_rng((rng_seed, *b"gradcheck"))  # callers draw x from small seeds; dy must not repeat it
    check = _Check(layer, inputs, options, seed, rng)
    gradients = check.analytic()
    errors = {}
    for name, (array, gradient) in gradients.items():
        v = _direction(rng, array.shape)
        numeric = check.numeric(array, v, eps)
        analytic = float((gradient * v).sum())
        errors[name] = abs(numeric - analytic) / max(abs(numeric), abs(analytic), check.floor)
        if not errors[name] <= rtol:
            raise GradientError(
                f"{type(layer).__name__}: the gradient of {name} is off by {errors[name]:.1e} (allowed {rtol:.0e}): "
                f"differences give {numeric:.9g}, backward {analytic:.9g} along one direction"
            )
    return errors


def gradcheck_loss(
    loss: Callable, logits: Array | tuple[Array, ...], *args: Any, rtol: float = 1e-7, eps: float = 1e-5, **options
) -> dict[str, float]:
    """The same for a loss: loss(logits, …) -> (value, gradient); logits an array or a tuple of them."""

    class LossLayer(Layer):
        def forward(self, *heads, tape):
            value, gradient = loss(heads if isinstance(logits, tuple) else heads[0], *args, **options)
            tape.push(self, gradient)
            return np.asarray(value)

        def backward(self, dy, tape):
            (gradient,) = tape.pop(self)
            return tuple(g * dy for g in gradient) if isinstance(gradient, tuple) else gradient * dy

    return gradcheck(LossLayer(), *(logits if isinstance(logits, tuple) else (logits,)), rtol=rtol, eps=eps)


class _Check:
    """One layer, its inputs and the fixed gradient dy of its outputs."""

    def __init__(self, layer, inputs, options, seed, rng):
        self.layer, self.inputs, self.options, self.seed = layer, inputs, options, seed
        self.kind = type(layer).__name__
        outputs = self.forward(self.tape())
        self.dy = [rng.standard_normal(y.shape) for y in outputs]
        # the error of a gradient that is exactly 0 (a key's bias) is measured against this instead
        self.floor = 1e-3 * float(np.sqrt(sum((dy * dy).sum() for dy in self.dy))) + 1e-300

    def tape(self):
        return Tape(self.layer, self.seed)

    def forward(self, tape):
        outputs = self.layer.forward(*self.inputs, tape=tape, **self.options)
        self.tuple = isinstance(outputs, tuple)
        return outputs if self.tuple else (outputs,)

    def analytic(self):
        """{name: (array, its gradient)} by one backward, having seen that it leaves everything else alone."""
        tape = self.tape()
        before = [x.copy() for x in self.inputs]
        self.forward(tape)
        dy = tuple(d.copy() for d in self.dy)
        dx = self.layer.backward(dy if self.tuple else dy[0], tape)
        if tape.pending:
            raise GradientError(f"{self.kind}: backward left the residuals of {tape.pending} layers on the tape")
        if any((a != b).any() for a, b in zip(dy, self.dy)):
            raise GradientError(f"{self.kind}: backward changed the gradient array that it was given")
        if any((a != b).any() for a, b in zip(self.inputs, before)):
            raise GradientError(f"{self.kind}: the input array was changed in place")
        found = {f"input {i}": pair for i, pair in self._input_gradients(dx).items()}
        found |= {name: (p.data, tape.gradient(p)) for name, p in self.layer.named_parameters() if tape.wants(p)}
        for name, (array, gradient) in found.items():
            if array.shape != gradient.shape:
                raise GradientError(f"{self.kind}: {name} has shape {array.shape}, its gradient {gradient.shape}")
        return found

    def _input_gradients(self, dx):
        """{position: (input, gradient)}; None stands for an input that needs no gradient."""
        dx = dx if isinstance(dx, (tuple, list)) else (dx,)
        pairs = enumerate(zip(self.inputs, dx))
        return {i: (x, d) for i, (x, d) in pairs if d is not None and x.dtype.kind == "f"}

    def numeric(self, array, v, eps):
        keep, outputs = array.copy(), []
        for sign in (1, -1):
            array[...] = keep + sign * eps * v
            outputs.append([y.copy() for y in self.forward(self.tape())])  # a copy: Identity returns its input
        array[...] = keep
        # differences before the sum: equal digits cancel element by element
        return sum(float(((plus - minus) * dy).sum()) for plus, minus, dy in zip(*outputs, self.dy)) / (2 * eps)


def _direction(rng, shape):
    """A random unit direction whose components are all at least 0.1/√n, so that no entry can hide."""
    v = rng.standard_normal(shape)
    n = max(v.size, 1)
    return np.copysign(np.sqrt(0.99 * v * v / max((v * v).sum(), 1e-300) + 0.01 / n), v)


def randomize(layer: Layer, seed: int = 0, std: float = 0.3) -> Layer:
    """Give every parameter normal values, around 1 for scales: a check at initial zeros and ones shows too little."""
    rng = np.random.default_rng(seed)
    for name, parameter in layer.named_parameters():
        center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data[...] = center + std * rng.standard_normal(parameter.data.shape)
    return layer
