"""The moving average of weights."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np

from ..backend import to_host
from ..core import Layer, flat_weights
from ..errors import CheckpointError
from .optimizers import check_number


class EMA:
    """Exponential moving average of the trainable weights:   s = β s + (1 − β) θ,   β = min(decay, (1 + t)/(10 + t)).

    The second form of β lets the average follow the first steps. Its weights are used inside `with ema.applied():`.
    """

    def __init__(self, model: Layer, decay: float = 0.999):
        check_number("the decay of the moving average", decay, below=1)
        self.decay, self.steps = decay, 0
        self.weights = flat_weights(model)
        self.shadow = self.weights.current().copy()

    def update(self) -> None:
        """Take in the weights after a step. Errors: ConfigError where parameters were frozen or unfrozen since."""
        self.weights.check_trainable()
        self.steps += 1
        beta = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.shadow *= beta
        self.shadow += (1 - beta) * self.weights.current()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the model's weights are the average."""
        own = self.weights.current().copy()
        self.copy_to_model()
        try:
            yield
        finally:
            self.weights.current()[...] = own

    def copy_to_model(self) -> None:
        """Give the model the average for good."""
        self.weights.current()[...] = self.shadow

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"step": np.array(self.steps), "shadow": np.array(to_host(self.shadow))}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        missing = [name for name in ("step", "shadow") if name not in state]
        if missing:
            raise CheckpointError(f"the moving average's state has no {missing[0]!r}; give what state_dict() returned")
        if state["shadow"].shape != self.shadow.shape:
            raise CheckpointError(
                f"the moving average has {state['shadow'].size} weights, the model {self.shadow.size}; "
                "it belongs to another model"
            )
        self.shadow[...] = self.weights.layout.xp.asarray(state["shadow"], dtype=self.shadow.dtype)
        self.steps = int(state["step"])
