"""Optimizers over one flat buffer, and clipping.

θ weights, g gradient, η learning rate, λ weight decay, t the number of the step, from 1. Decay leaves out biases,
norms, tokens and the position embedding (each Parameter's `decay`).
"""

import fnmatch
import math
import numbers
from collections.abc import Iterator, Mapping

import numpy as np

from .. import functional as F
from ..backend import Array, Count, to_host
from ..core import Layer, Tape, flat_weights
from ..errors import CheckpointError, ConfigError


class Optimizer:
    """Shared by the optimizers: flat weights, chunks, and state in and out. A subclass defines `_update`.

    lr may be set between steps. state_dict() holds the step's number and the flat moments. Both numbers lie on the
    device too where the weights do, and updates read them there.
    lr_scale: {parameter's name or shell pattern: factor on lr}, the first that matches; else 1. See layer_decay.
    """

    moments = ()
    chunk_size = 131_072  # numbers: five arrays of it stay near the processor, and passes are long enough to share

    def __init__(self, model: Layer, lr: float, weight_decay: float, lr_scale: Mapping[str, float] | None = None):
        check_number("lr", lr)
        check_number("weight_decay", weight_decay)
        self.weight_decay, self.weights = weight_decay, flat_weights(model)
        layout = self.weights.layout
        self.count = Count(layout.xp)
        self._lr_there = None if layout.xp is np else layout.xp.empty((), dtype=layout.dtype)
        self.lr = lr
        self._moments = [self.weights.layout.zeros() for _ in self.moments]
        self._scale = None
        if lr_scale:
            self._scale = layout.zeros()
            names = [name for name, _ in model.named_parameters()]
            for pattern in lr_scale:
                if not fnmatch.filter(names, pattern):
                    raise ConfigError(f"lr_scale: no parameter is named like {pattern!r}")
            for name, view in zip(layout.names, layout.views(self._scale)):
                view[...] = next((f for pattern, f in lr_scale.items() if fnmatch.fnmatchcase(name, pattern)), 1.0)

    def __repr__(self):
        settings = {"lr": self.lr, "weight_decay": self.weight_decay, "steps": self.steps}
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        return f"{type(self).__name__}({shown}, {self.weights.layout.size:,} weights)"

    @property
    def lr(self) -> float:
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = lr
        if self._lr_there is not None:
            self._lr_there.fill(lr)

    @property
    def steps(self) -> int:
        return self.count.value

    @steps.setter
    def steps(self, steps: int) -> None:
        self.count.value = steps

    def step(self, tape: Tape) -> None:
        """One update from the tape's gradients, in place. Clear them with tape.zero() before the next batch."""
        self.begin(tape)
        for chunk in self.chunks():
            self.update(chunk, tape.flat)

    def begin(self, tape: Tape) -> None:
        """Count the step and check that the tape belongs to the same parameters and that backward is through.

        Errors: ConfigError, TapeError.
        """
        if tape.layout != self.weights.layout:
            raise ConfigError(
                "the tape and the optimizer hold different trainable parameters; "
                "after freezing or unfreezing parameters, make both again"
            )
        tape.check_done()
        self.weights.check_trainable()
        self.weights.adopt()
        self.count.advance()

    def chunks(self) -> Iterator[tuple[int, int, float]]:
        """(start, stop, decay) of each piece that one update works on; pieces are independent of each other."""
        layout = self.weights.layout
        width = self.chunk_size if layout.xp is np else max(layout.size, 1)  # on a GPU fewer, larger kernels
        for first, last, decay in ((0, layout.decayed, self.weight_decay), (layout.decayed, layout.size, 0.0)):
            for start in range(first, last, width):
                yield start, min(start + width, last), decay

    def update(self, chunk: tuple[int, int, float], gradient: Array) -> None:
        start, stop, decay = chunk
        part = slice(start, stop)
        lr = self.lr if self._lr_there is None else self._lr_there
        lr = lr if self._scale is None else lr * self._scale[part]
        self._update(self.weights.flat[part], gradient[part], *(moment[part] for moment in self._moments), lr, decay)

    def state_dict(self) -> dict[str, np.ndarray]:
        """{"step": the count, moment name: flat NumPy array}, a snapshot."""
        moments = zip(self.moments, self._moments)
        return {"step": np.array(self.steps)} | {name: np.array(to_host(moment)) for name, moment in moments}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        if "step" not in state:
            raise CheckpointError(
                "the optimizer state has no 'step', the number of updates; give what state_dict() returned"
            )
        for name, moment in zip(self.moments, self._moments):
            if name not in state or state[name].shape != moment.shape:
                raise CheckpointError(
                    f"optimizer state {name!r} has shape {np.shape(state.get(name))}, expected {moment.shape}; "
                    "it belongs to another model or optimizer"
                )
        for name, moment in zip(self.moments, self._moments):
            moment[...] = self.weights.layout.xp.asarray(state[name], dtype=moment.dtype)
        self.steps = int(state["step"])


class AdamW(Optimizer):
    """m = β₁ m + (1 − β₁) g,   v = β₂ v + (1 − β₂) g²,   m̂ = m/(1 − β₁ᵗ),   v̂ = v/(1 − β₂ᵗ),
    θ = θ (1 − ηλ) − η m̂/(√v̂ + ε)   (Loshchilov & Hutter 2017, arXiv:1711.05101)."""

    moments = ("m", "v")

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        lr_scale: Mapping[str, float] | None = None,
    ):
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ConfigError(f"betas must be a pair such as (0.9, 0.999), got {betas!r}")
        for name, beta in zip(("the first of betas", "the second of betas"), betas):
            check_number(name, beta, below=1)
        check_number("eps", eps)
        super().__init__(model, lr, weight_decay, lr_scale)
        self.betas, self.eps = betas, eps

    def _update(self, theta, g, m, v, lr, decay):
        F.adamw_(theta, g, m, v, self.count.there, lr, self.betas, self.eps, decay)


class SGD(Optimizer):
    """g = g + λ θ,   u = μ u + g,   θ = θ − η u, or with Nesterov   θ − η (g + μ u)   (as in torch.optim.SGD)."""

    moments = ("u",)

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-2,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        lr_scale: Mapping[str, float] | None = None,
    ):
        check_number("momentum", momentum, below=1)
        if nesterov and momentum == 0:
            raise ConfigError("nesterov=True needs a momentum above 0")
        super().__init__(model, lr, weight_decay, lr_scale)
        self.momentum, self.nesterov = momentum, nesterov

    def _update(self, theta, g, u, lr, decay):
        if decay:
            g = g + decay * theta
        u *= self.momentum
        u += g
        theta -= lr * (g + self.momentum * u if self.nesterov else u)


def clip_global_norm(tape: Tape, max_norm: float) -> Array:
    """Scale all gradients by min(1, max_norm / ‖g‖), ‖g‖ over all parameters together. Returns ‖g‖ before.

    (Pascanu et al. 2012, arXiv:1211.5063.) Nothing is read from a device.
    """
    check_clip_norm(max_norm)
    xp, flat = tape.layout.xp, tape.flat
    norm = xp.sqrt(flat @ flat if xp is np else (flat * flat).sum())  # CuPy's dot cannot be captured in a graph
    flat *= xp.minimum(max_norm / (norm + 1e-6), 1).astype(flat.dtype)
    return norm


def check_number(name: str, value: float, below: float = math.inf) -> None:
    """Errors: ConfigError unless 0 ≤ value < below."""
    if not isinstance(value, numbers.Real) or not 0 <= value < below:
        expected = (
            "a finite number that is not negative" if below == math.inf else f"a number in 0..{below}, {below} left out"
        )
        raise ConfigError(f"{name} must be {expected}, got {value!r}")


def check_clip_norm(max_norm: float) -> None:
    if not max_norm > 0:
        raise ConfigError(f"the bound on the gradients' norm must be above 0, got {max_norm}; None leaves clipping out")
