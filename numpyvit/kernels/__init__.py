"""Faster forms of the formulas in numpyvit.functional, by (name, array module, dtype), and which of them are in use.

A formula declared `accelerated` runs a kernel where the chosen set has one for the array it is given. Each kernel
states how far it may be off and what it gained; tests compare every kernel with its formula, and
`python -m benchmarks.kernels` measures the gains. `with plain():` runs everything on the formulas alone.
"""

import contextlib
import contextvars
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..backend import array_module
from ..errors import ConfigError


@dataclass(frozen=True)
class Kernel:
    """A faster form of the formula `name`.

    tolerance: how far a result may lie from the formula's in float32, relative to the largest value.
    gain:      time of the formula over time of the kernel in float32 on 64 images, one thread of an Intel Xeon with
               AVX-512, by `python -m benchmarks.kernels`; NaN where it was not measured.
    """

    name: str
    function: Callable
    tolerance: float
    gain: float


SETS: dict[str, dict[tuple, Kernel]] = {"plain": {}, "numpy": {}, "fast": {}}
_chosen = contextvars.ContextVar("kernels", default=SETS["numpy"])


def kernel(
    name: str,
    module: types.ModuleType,
    dtypes: str,
    *,
    tolerance: float,
    gain: float,
    sets: tuple[str, ...] = ("numpy",),
) -> Callable:
    """Register a function as the kernel `name` for arrays of `module`; dtypes: "f" float32, "d" float64, "fd" both."""

    def register(function):
        for dtype in dtypes:
            for chosen in sets:
                SETS[chosen][name, module, dtype] = Kernel(name, function, tolerance, gain)
        return function

    return register


def accelerated(formula: Callable) -> Callable:
    """A formula that a kernel of its name may stand in for, chosen by its first argument; formula.plain is itself.

    A kernel returns NotImplemented for arguments that it does not serve, and the formula runs.
    """
    name = formula.__name__

    @functools.wraps(formula)
    def run(*arrays, **options):
        x = arrays[0] if arrays else next(iter(options.values()))
        found = _chosen.get().get((name, array_module(x), x.dtype.char))
        result = found.function(*arrays, **options) if found else NotImplemented
        return formula(*arrays, **options) if result is NotImplemented else result

    run.plain = formula
    return run


class choose:
    """Choose a set of kernels: "numpy", "fast" for compiled ones as well, or "plain" for the formulas alone.

    nv.kernels("fast")                 from now on, in this thread and those that share its work
    with nv.kernels("plain"): …        for a while
    Errors: ConfigError for an unknown name, and for "fast" without Numba.
    """

    def __init__(self, name: str):
        if name not in SETS:
            raise ConfigError(f"kernels must be one of {', '.join(map(repr, SETS))}, got {name!r}")
        if name == "fast" and not SETS["fast"]:
            _load_compiled()
        self._set = SETS[name]
        self._tokens = [_chosen.set(self._set)]  # used up by the first `with`

    def __enter__(self):
        if not self._tokens:
            self._tokens.append(_chosen.set(self._set))
        return self

    def __exit__(self, *error):
        _chosen.reset(self._tokens.pop())


def chosen() -> str:
    """The name of the set that is in use here."""
    return next(name for name, found in SETS.items() if found is _chosen.get())


def _load_compiled():
    try:
        importlib.import_module(".fast", __name__)
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        message = "the fast kernels are compiled by Numba, which is not installed: pip install 'numpyvit[fast]'"
        raise ConfigError(message) from None


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """`with plain():` every formula as it is written, without kernels."""
    with choose("plain"):
        yield


from . import cpu as cpu  # noqa: E402  (it registers its kernels in the table above)


class _Callable(types.ModuleType):
    """nv.kernels is this module, and nv.kernels("numpy") chooses a set."""

    def __call__(self, name: str):
        return choose(name)


sys.modules[__name__].__class__ = _Callable
