"""Where arrays live: NumPy on the host, CuPy on a GPU. The only file that imports cupy.

Everything else asks `xp = array_module(x)` and calls `xp.f`, so one source serves both.
"""

import contextlib
import functools
import importlib.util
import sys

import numpy as np

from .errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_MODULES = {np.ndarray: np, np.generic: np}  # array type -> its namespace; CuPy and stand-ins are added on first use


def register(array_type, namespace):
    """Let arrays of `array_type` be served by `namespace`, a module with NumPy's names."""
    _MODULES[array_type] = namespace


def array_module(x):
    """The namespace (numpy, cupy or a stand-in) that `x` belongs to."""
    for kind in type(x).__mro__:
        if kind in _MODULES:
            return _MODULES[kind]
    if type(x).__module__.split(".")[0] == "cupy":
        return _cupy()
    return np


def on_host(x):
    """Whether reading a value of `x` costs no transfer from a device."""
    return array_module(x) is np


def _cupy():
    if importlib.util.find_spec("cupy") is None:
        raise ConfigError(
            "device='cuda' needs CuPy, which is not installed; "
            "install it with pip install 'numpyvit[cuda12]' or 'numpyvit[cuda13]', or use device='cpu'"
        )
    import cupy

    register(cupy.ndarray, cupy)
    return cupy


def device_module(device):
    """The namespace for a device name: 'cpu' -> numpy, 'cuda' -> cupy. A namespace is returned as it is."""
    if device == "cpu":
        return np
    if device == "cuda":
        cupy = _cupy()
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except Exception as error:  # CuPy raises a class of its own for each driver fault
            raise ConfigError(
                f"device='cuda' was asked for, but CuPy finds no GPU ({error}); use device='cpu'"
            ) from None
        if count == 0:
            raise ConfigError("device='cuda' was asked for, but this machine has no GPU; use device='cpu'")
        return cupy
    if hasattr(device, "ndarray"):
        return device
    raise ConfigError(f"device must be 'cpu' or 'cuda', got {device!r}")


def to_module(x, xp):
    """`x` as an array of namespace `xp`, copied only where it lives elsewhere."""
    here = array_module(x)
    if here is xp:
        return x
    host = x if here is np else here.asnumpy(x)
    return xp.asarray(host)


def to_host(x):
    """`x` as a NumPy array."""
    return to_module(x, np)


def erf(x):
    """The error function, 2/√π ∫₀ˣ exp(−t²) dt, elementwise (scipy on the host, cupyx on a GPU)."""
    xp = array_module(x)
    if xp is np:
        from scipy.special import erf as scipy_erf

        return scipy_erf(x)
    if hasattr(xp, "erf"):
        return xp.erf(x)
    from cupyx.scipy.special import erf as cupyx_erf

    return cupyx_erf(x)


@functools.cache
def keep_freed_memory():
    """Ask glibc to keep freed arrays for the next ones instead of returning them to the system, once a process.

    Fresh pages cost a fault each 4 KiB: a training step on small images takes a quarter longer without this.
    Does nothing where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_ARENA_MAX, 1)  # threads' own heaps would go back to the system all the same


class Random:
    """A stream of uniform float32 draws in [0, 1) from one seed, made where the arrays live.

    `state` can be read and set again, which replays the draws that followed it.
    """

    def __init__(self, seed, xp=np):
        try:
            self._xp, self._seed, self._draws = xp, np.random.SeedSequence(seed), 0
        except (TypeError, ValueError):
            raise ConfigError(f"seed must be a non-negative int or a sequence of them, got {seed!r}") from None
        # SFC64 is NumPy's fastest generator; dropout masks are a visible share of a step
        self._host = np.random.Generator(np.random.SFC64(self._seed)) if xp is np else None

    def random(self, shape):
        if self._host is not None:
            return self._host.random(shape, dtype=np.float32)
        # a device generator cannot be rewound, so each draw has its own, named by its number
        self._draws += 1
        words = np.random.SeedSequence([*self._seed.generate_state(2), self._draws]).generate_state(2)
        return self._xp.random.default_rng(int(words[0]) << 31 ^ int(words[1])).random(shape, dtype=np.float32)

    @property
    def state(self):
        return self._host.bit_generator.state if self._host is not None else self._draws

    @state.setter
    def state(self, state):
        if self._host is not None:
            self._host.bit_generator.state = state
        else:
            self._draws = state
