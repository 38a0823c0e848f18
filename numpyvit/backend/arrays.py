"""Where arrays live: NumPy on the host, CuPy on a GPU. The only file that imports cupy.

Everything else asks `xp = array_module(x)` and calls `xp.f`, so one source serves both.
"""

import importlib.util
import types

import numpy as np

from ..errors import ConfigError

Array = np.ndarray  # in type hints: a NumPy array, or a CuPy array, which passes since CuPy has no types

_MODULES = {np.ndarray: np, np.generic: np}  # array type -> its namespace; CuPy and stand-ins are added on first use


def register(array_type: type, namespace: types.ModuleType) -> None:
    """Let arrays of `array_type` be served by `namespace`, a module with NumPy's names."""
    _MODULES[array_type] = namespace


def array_module(x: object) -> types.ModuleType:
    """The namespace (numpy, cupy or a stand-in) that `x` belongs to."""
    for kind in type(x).__mro__:
        if kind in _MODULES:
            return _MODULES[kind]
    if type(x).__module__.split(".")[0] == "cupy":
        return _cupy()
    return np


def on_host(x: object) -> bool:
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


def device_module(device: str | types.ModuleType) -> types.ModuleType:
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


def to_module(x: Array, xp: types.ModuleType) -> Array:
    """`x` as an array of namespace `xp`, copied only where it lives elsewhere."""
    here = array_module(x)
    if here is xp:
        return x
    host = x if here is np else here.asnumpy(x)
    return xp.asarray(host)


def to_host(x: Array) -> np.ndarray:
    """`x` as a NumPy array."""
    return to_module(x, np)


def rows(x: Array) -> Array:
    """(..., D) -> (M, D): GEMM wants two dimensions; with more, NumPy loops over the batch and CuPy copies."""
    return x.reshape(-1, x.shape[-1])


def transposed(x: Array) -> Array:
    """The last two axes swapped, a view."""
    return x.swapaxes(-1, -2)


def erf(x: Array) -> Array:
    """The error function, 2/√π ∫₀ˣ exp(−t²) dt, elementwise (scipy on the host, cupyx on a GPU)."""
    xp = array_module(x)
    if xp is np:
        from scipy.special import erf as scipy_erf

        return scipy_erf(x)
    if hasattr(xp, "erf"):
        return xp.erf(x)
    from cupyx.scipy.special import erf as cupyx_erf

    return cupyx_erf(x)
