"""Where arrays live: NumPy on the host, CuPy on a GPU. The only file that imports cupy.

Everything else asks `xp = array_module(x)` and calls `xp.f`, so one source serves both.
"""

import importlib.util
import types
import warnings
from collections.abc import Callable

import numpy as np

from ..errors import ConfigError, DtypeError

Array = np.ndarray  # in type hints: a NumPy array, or a CuPy array, which passes since CuPy has no types

_MODULES = {np.ndarray: np, np.generic: np}  # array type -> its namespace; CuPy and stand-ins are added on first use
_WAITING = []  # for CuPy


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
    while _WAITING:
        _WAITING.pop()(cupy)
    return cupy


def when_cupy_is_used(call: Callable[[types.ModuleType], None]) -> Callable:
    """Have call(cupy) made once, when the first device array or device='cuda' is met; at once where one was."""
    if array_types := [kind for kind in _MODULES if kind.__module__.split(".")[0] == "cupy"]:
        call(_MODULES[array_types[0]])
    else:
        _WAITING.append(call)
    return call


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


def cuda_with_nccl() -> types.ModuleType:
    """cupy.cuda, with its module nccl loaded. Errors: ConfigError where CuPy, a GPU or NCCL is missing."""
    cupy = device_module("cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns where it finds no NCCL
        nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        raise ConfigError(
            "ranks on GPUs need NCCL, which CuPy does not find; install it with pip install nvidia-nccl-cu12, or "
            "nvidia-nccl-cu13 for CUDA 13"
        )
    return cupy.cuda


def as_array(x: object) -> object:
    """What another library holds, as a NumPy array: a tensor of PyTorch, an array of JAX, an image of Pillow, a table.

    Whatever has `__array__`, `__array_interface__` or `__dlpack__` is taken. Memory on the host is shared, not copied,
    where the library allows it. In tuples, lists and dicts each item is converted. Arrays of NumPy (memory-mapped ones
    too) and CuPy stay as they are, and so does what is no array: the layer that is given it says so.
    Errors: DtypeError where there is no conversion, such as for a tensor on a GPU, one that requires a gradient, or a
    sparse matrix.
    """
    if type(x) is np.ndarray:
        return x
    if type(x) in (tuple, list):
        return type(x)(map(as_array, x))
    if type(x) is dict:
        return {name: as_array(item) for name, item in x.items()}
    if isinstance(x, (np.ndarray, np.generic)) or not on_host(x):
        return x
    return _from_other_library(x)


def _from_other_library(x):
    kind = type(x).__name__
    if hasattr(x, "toarray"):
        raise DtypeError(f"got a sparse {kind}, expected a dense array; convert it with x.toarray()")
    try:
        if hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
            return np.asarray(x)
        return np.from_dlpack(x) if hasattr(x, "__dlpack__") else x
    except Exception as error:  # each library raises classes of its own
        raise DtypeError(
            f"a {kind} could not be read as a NumPy array ({error}); convert it before, "
            "a tensor for example with x.detach().float().cpu().numpy()"
        ) from None


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
