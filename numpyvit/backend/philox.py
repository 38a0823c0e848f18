"""Random numbers by their place: Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3").

A number follows from a key and a counter alone, so a draw needs no state but what names it, each thread of a GPU can
make its own, and a captured step whose counter lies on the device draws other numbers each time.
"""

import math
import types
from collections.abc import Callable

import numpy as np

from .arrays import Array

_ROUNDS, _LOW = 10, 0xFFFFFFFF
_MULTIPLIERS, _WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)

KERNELS: dict[
    types.ModuleType, Callable[..., Array]
] = {}  # that make the same draws, by the namespace they make them for


def philox(counter: list[Array], key: tuple[int, int]) -> list[Array]:
    """Four arrays of uint64 that hold 32 bits each, and a key of two such numbers -> four of 32 random bits.

    In each of ten rounds, with hi and lo the halves of a product of 64 bits,
    c₀, c₁, c₂, c₃ = hi(M₁ c₂) ⊕ c₁ ⊕ k₀, lo(M₁ c₂), hi(M₀ c₀) ⊕ c₃ ⊕ k₁, lo(M₀ c₀), and k advances by Weyl's constants.
    """
    c0, c1, c2, c3 = counter
    for number in range(_ROUNDS):
        k0, k1 = ((word + number * weyl) & _LOW for word, weyl in zip(key, _WEYL))
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) ^ c3 ^ k1, p0 & _LOW
    return [c0, c1, c2, c3]


def uniform(xp: types.ModuleType, key: tuple[int, int], step: int | Array, draw: int, shape: tuple[int, ...]) -> Array:
    """Draw number `draw` of a step: float32 in [0, 1), multiples of 2⁻²⁴.

    Number i is word i mod 4 of the counter (i div 4, draw, step, 0). step may be a 0-d uint64 array on the device.
    """
    if xp in KERNELS:
        return KERNELS[xp](xp, key, step, draw, shape)
    count = math.prod(shape)
    blocks = xp.arange(-(-count // 4), dtype=np.uint64)
    zeros = xp.zeros_like(blocks)
    words = philox([blocks, zeros + draw, zeros + step, zeros], key)
    bits = xp.stack(words, axis=1).reshape(-1)[:count] >> 8
    return (bits.astype(np.float32) * 2.0**-24).reshape(shape)
