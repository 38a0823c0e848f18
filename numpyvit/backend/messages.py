"""Nested values as bytes and back: JSON for their form, the arrays' own bytes behind. Nothing in it is executed."""

import io
import json
import struct
from typing import Any

import numpy as np

from ..errors import DtypeError
from .arrays import on_host, to_host

_LENGTH = struct.Struct("<Q")


def pack(value: Any) -> bytes:
    """Tuples, lists and dicts with text as keys, of arrays, numbers, texts and None, as bytes.

    A device's array is read on the host; a named tuple becomes a plain one. Errors: DtypeError for anything else.
    """
    arrays = []
    form = json.dumps(_form(value, arrays)).encode()
    return b"".join([_LENGTH.pack(len(form)), form, *arrays])


def unpack(data: bytes) -> Any:
    """What `pack` was given."""
    stream = io.BytesIO(data)
    (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
    return _value(json.loads(stream.read(length)), stream)


def _form(value, arrays):
    """The value for JSON, what JSON does not know as {kind: …}. The bytes of arrays are added to a list."""
    if value is None or (isinstance(value, (str, bool, int, float)) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, list):
        return [_form(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_form(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": [[key, _form(item, arrays)] for key, item in value.items()]}
    if isinstance(value, (np.ndarray, np.generic)) or not on_host(value):
        array = to_host(value)
        if array.dtype.kind in "biufc":
            arrays.append(array.tobytes())
            return {"array": [array.dtype.str, array.shape, isinstance(value, np.generic)]}
    raise DtypeError(
        f"ranks exchange tuples, lists and dicts of arrays, numbers and texts, got a {type(value).__name__}"
    )


def _value(form, stream):
    if isinstance(form, list):
        return [_value(item, stream) for item in form]
    if not isinstance(form, dict):
        return form
    ((kind, inner),) = form.items()
    if kind == "tuple":
        return tuple(_value(item, stream) for item in inner)
    if kind == "dict":
        return {key: _value(item, stream) for key, item in inner}
    dtype, shape, scalar = inner
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(stream.read(array.nbytes), np.uint8)
    return array[()] if scalar else array
