"""Random streams made where the arrays live."""

import types
from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from .arrays import Array
from .philox import uniform


class Random:
    """A stream of uniform float32 draws in [0, 1) from one seed, made where the arrays live.

    On the host they are those of SFC64, on a device those of Philox, since there a draw is named by its number alone.
    `state` can be read and set again, which replays the draws that followed it.
    step: a count on the device from which the draws of a device follow too, see backend.Count.
    """

    def __init__(self, seed: int | Sequence[int], xp: types.ModuleType = np, step: Array | int = 0):
        try:
            words = np.random.SeedSequence(seed)
        except (TypeError, ValueError):
            raise ConfigError(f"seed must be a non-negative int or a sequence of them, got {seed!r}") from None
        self._xp, self._step, self._draws = xp, step, 0
        self._key = tuple(words.generate_state(2).tolist())
        # SFC64 is NumPy's fastest generator; dropout masks are a visible share of a step
        self._host = np.random.Generator(np.random.SFC64(words)) if xp is np else None

    def random(self, shape: tuple[int, ...]) -> Array:
        if self._host is not None:
            return self._host.random(shape, dtype=np.float32)
        self._draws += 1
        return uniform(self._xp, self._key, self._step, self._draws, shape)

    @property
    def state(self) -> dict | int:
        return self._host.bit_generator.state if self._host is not None else self._draws

    @state.setter
    def state(self, state: dict | int) -> None:
        if self._host is not None:
            self._host.bit_generator.state = state
        else:
            self._draws = state
