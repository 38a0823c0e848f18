"""NumPy's arrays in a pickle."""

import math

import numpy as np

from .machine import PickleError, Stateful

_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "b1"}


class _Dtype(Stateful):
    def __init__(self, budget, code, *_):
        if not isinstance(code, str) or code.lstrip("<>|=") not in _DTYPES:
            raise PickleError("an array that holds no plain numbers is refused")
        self.dtype = np.dtype(code)

    def build(self, budget, state):
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order) if order in ("<", ">", "=", "|") else self.dtype


class _Array(Stateful):
    """An array whose shape and bytes arrive with its state."""

    array = None

    def __init__(self, budget, *_):
        pass

    def build(self, budget, state):
        _, shape, dtype, fortran, data = state
        self.array = _frombuffer(budget, data, dtype, shape, "F" if fortran else "C").array


def _frombuffer(budget, data, dtype, shape, order="C"):
    data = _encode(budget, data, "latin1") if isinstance(data, str) else data
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise PickleError("damaged pickle: an array without bytes or type")
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise PickleError("damaged pickle: an array without a shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise PickleError(f"damaged pickle: an array's {len(data):,} bytes do not fill its shape")
    result = _Array(budget)
    result.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return result


def _encode(budget, text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise PickleError("the pickle encodes text otherwise than as latin1; it is refused")
    budget.draw(len(text))
    return text.encode("latin-1")


NUMPY_CONSTRUCTORS = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
}


def as_array(value: object) -> np.ndarray:
    """What `read` returned for a NumPy array, as the array."""
    if not isinstance(value, _Array) or value.array is None:
        raise PickleError(f"expected an array, found a {type(value).__name__}")
    return value.array
