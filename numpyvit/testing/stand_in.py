"""A stand-in for CuPy that runs on the CPU and fails where CuPy would.

`stand_in` is a namespace over NumPy that knows only the names and keywords that CuPy has (cupy_names.json, read from
CuPy itself), refuses to mix in host arrays, and refuses implicit reads of device values. Layers that run on it run on a
GPU, short of kernels themselves:

    model.to(stand_in); model(stand_in.asarray(x))

It also counts what costs time on a GPU, see counting.py, and captures and replays graphs, see recording.py.
"""

import json
import pathlib
import types
from collections.abc import Callable

import numpy as np

from ..backend import register
from .counting import SYNCHRONIZATIONS, TRANSFERS, count, count_launches, counting
from .recording import perform, refuse
from .stand_in_cuda import MemoryPool, cuda

_NAMES = json.loads((pathlib.Path(__file__).parent / "cupy_names.json").read_text())


class HostRead(RuntimeError):
    """A device value was read on the host, which stalls a GPU and cannot be captured in a graph."""


def _unwrap(value):
    if isinstance(value, DeviceArray):
        return value._array
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(item) for item in value)
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type numpy.ndarray: CuPy does not copy host arrays to the device by itself")
    return value


def _wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(_wrap(item) for item in value)
    return value


def _call(name, function, accepted, args, keywords):
    """Call a NumPy function with device arrays, with the keywords that CuPy accepts."""
    if accepted == "ufunc" and "where" in keywords:
        raise TypeError(f"Wrong arguments {{'where'}}: CuPy's {name} has no where=")
    if isinstance(accepted, list) and not {"kwargs", "args"} & set(accepted):
        for keyword in keywords:
            if keyword not in accepted:
                raise TypeError(f"CuPy's {name} has no keyword {keyword!r}; it has {accepted}")
    out = keywords.get("out")
    result = _run(name, function, args, keywords, writes=out is not None or name in _IN_PLACE)
    return result if out is None else out


_IN_PLACE = ("fill", "partition", "sort")  # methods that change their own array


def _run(name, function, args, keywords=None, writes=False):
    """What every operation goes through: done, counted, and part of a graph that is captured."""
    own = [_unwrap(arg) for arg in args]
    options = {key: _unwrap(value) for key, value in (keywords or {}).items()}
    result = perform(function, own, options, writes)
    if count_launches(name, own, None if writes else result):
        refuse(name)
    return _wrap(result)


def _same_memory(value, array, key):
    """Whether `value` is array[key] itself, as at the end of `array[key] += x`; CuPy then does nothing."""
    if not isinstance(value, np.ndarray) or not np.may_share_memory(value, array):
        return False
    place = array[key]
    return value.__array_interface__["data"] == place.__array_interface__["data"] and value.strides == place.strides


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that is on the device as far as anyone can tell."""

    __array_priority__ = 100

    def __init__(self, array: np.ndarray):
        self._array = array

    @property
    def data(self) -> types.SimpleNamespace:
        """Where its numbers lie, as data.ptr."""
        return types.SimpleNamespace(ptr=self._array.ctypes.data)

    def __array__(self, *args, **keywords):
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        if "where" in keywords:
            raise TypeError("Wrong arguments {'where'}")
        if method == "reduce" and ufunc.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`{ufunc.__name__}.reduce` is not supported yet")
        if ufunc is np.matmul:
            refuse("a product by @")
        if out is not None:
            keywords["out"] = out
        result = _run(ufunc.__name__, getattr(ufunc, method), inputs, keywords, writes=out is not None)
        return result if out is None else out[0]

    def _host_read(self, *args):
        raise HostRead("this reads a device value on the host")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = item = tolist = _host_read

    def get(self) -> np.ndarray:
        refuse("a transfer to the host")
        count(TRANSFERS, "get")
        count(SYNCHRONIZATIONS, "get")
        return self._array.copy()

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return map(_wrap, self._array)

    def __getitem__(self, key):
        key = _unwrap(key)
        if any(isinstance(part, np.ndarray) and part.dtype.kind == "b" for part in np.index_exp[key]):
            refuse("an index by a mask")
            count(SYNCHRONIZATIONS, "index by a mask")
        return _run("take", lambda array: array[key], [self])

    def __setitem__(self, key, value):
        key = _unwrap(key)
        if _same_memory(_unwrap(value), self._array, key):
            return
        _run("copy", lambda array, given: array.__setitem__(key, given), [self, value], writes=True)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._array, name)
        if not callable(value):
            return _wrap(value) if isinstance(value, np.ndarray) else value
        if name not in _NAMES["methods"]:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        function = getattr(type(self._array), name)
        return lambda *args, **keywords: _call(name, function, None, (self, *args), keywords)


class _Namespace:
    """A module of CuPy: NumPy's functions by the names in `accepted`."""

    def __init__(self, name, module, accepted):
        self._name, self._module, self._accepted = name, module, accepted

    def __getattr__(self, name):
        found = getattr(self._module, name, None)
        if name in self._accepted and found is not None:
            accepted = self._accepted[name]
            return lambda *args, **keywords: _call(name, found, accepted, args, keywords)
        if isinstance(found, (type, float)):  # dtypes and constants
            return found
        raise AttributeError(f"module {self._name!r} has no attribute {name!r}")


class _Generator:
    def __init__(self, seed):
        self._generator = np.random.default_rng(seed)

    def __getattr__(self, name):
        if name not in _NAMES["generator"]:
            raise AttributeError(f"'cupy.random.Generator' object has no attribute {name!r}")
        method = getattr(self._generator, name)
        return lambda *args, **keywords: _call(name, method, _NAMES["generator"][name], args, keywords)


class _RandomModule:
    @staticmethod
    def default_rng(seed):
        refuse("a new generator")
        count_launches("default_rng", [], None)  # CuPy sets up the states of its threads
        return _Generator(seed)


class StandIn(_Namespace):
    """The namespace itself, with what CuPy has beyond NumPy."""

    ndarray = DeviceArray
    random = _RandomModule()
    counting = staticmethod(counting)
    cuda = cuda

    def __init__(self):
        super().__init__("cupy", np, _NAMES["functions"])
        self.linalg = _Namespace("cupy.linalg", np.linalg, _NAMES["linalg"])

    def asarray(self, a: np.ndarray | DeviceArray, dtype: np.dtype | str | None = None) -> DeviceArray:
        """The one way from the host to the device."""
        if isinstance(a, DeviceArray):
            return a if dtype is None else a.astype(dtype, copy=False)
        refuse("a transfer from the host")
        count(TRANSFERS, "asarray")
        return DeviceArray(np.array(a, dtype=dtype))

    def asnumpy(self, a: DeviceArray) -> np.ndarray:
        """The one way back."""
        return a.get()

    def get_default_memory_pool(self) -> MemoryPool:
        return MemoryPool()

    def launch(self, name: str, kernel: Callable[[], None]) -> None:
        """Run a kernel of one's own that writes into arrays of the stand-in: counted, and captured."""
        _run(name, kernel, [], writes=True)

    def erf(self, x: DeviceArray) -> DeviceArray:
        from scipy.special import erf

        return _run("erf", erf, [x])


stand_in = StandIn()
register(DeviceArray, stand_in)
