"""Random streams made where the arrays live."""

import types
from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from .arrays import Array


class Random:
    """A stream of uniform float32 draws in [0, 1) from one seed, made where the arrays live.

    `state` can be read and set again, which replays the draws that followed it.
    """

    def __init__(self, seed: int | Sequence[int], xp: types.ModuleType = np):
        try:
            self._xp, self._seed, self._draws = xp, np.random.SeedSequence(seed), 0
        except (TypeError, ValueError):
            raise ConfigError(f"seed must be a non-negative int or a sequence of them, got {seed!r}") from None
        # SFC64 is NumPy's fastest generator; dropout masks are a visible share of a step
        self._host = np.random.Generator(np.random.SFC64(self._seed)) if xp is np else None

    def random(self, shape: tuple[int, ...]) -> Array:
        if self._host is not None:
            return self._host.random(shape, dtype=np.float32)
        # a device generator cannot be rewound, so each draw has its own, named by its number
        self._draws += 1
        words = np.random.SeedSequence([*self._seed.generate_state(2), self._draws]).generate_state(2)
        return self._xp.random.default_rng(int(words[0]) << 31 ^ int(words[1])).random(shape, dtype=np.float32)

    @property
    def state(self) -> dict | int:
        return self._host.bit_generator.state if self._host is not None else self._draws

    @state.setter
    def state(self, state: dict | int) -> None:
        if self._host is not None:
            self._host.bit_generator.state = state
        else:
            self._draws = state
