"""The containers that weights come in: safetensors, NumPy's .npz, PyTorch's zip. Each reader returns plain arrays.

No reader executes anything or trusts a size before it has compared it with the file: what cannot be right ends in a
CheckpointError. bfloat16, which NumPy lacks, is widened to float32.
"""

import ast
import io
import json
import math
import pathlib
import struct
import zipfile

import numpy as np

from . import pickles
from .errors import CheckpointError

_LEGACY_TORCH = b"\x80\x02\x8a\x0a"
_SMALL = 1 << 26  # bytes that a compressed file may always unpack to, however small it is


def read_container(path):
    """-> (arrays by name, metadata, container), container one of "safetensors", "npz", "torch"."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file")
    try:
        with open(path, "rb") as file:
            head = file.read(8)
        if head[:4] == _LEGACY_TORCH:
            raise CheckpointError("was written by PyTorch before 1.6; load and save it again with a newer PyTorch")
        if head[:2] == b"PK":
            return _read_zip(path)
        return *_read_safetensors(path), "safetensors"
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes fail anywhere in three libraries
        raise CheckpointError(
            f"{path}: is damaged or in no known format ({type(error).__name__}: {error}); save or fetch it again"
        ) from None


def from_bfloat16(bits):
    """uint16 bit patterns of bfloat16 -> float32: the upper half of its bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


# ---- safetensors ----------------------------------------------------------------------------------------------------

_SAFETENSORS_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _read_safetensors(path):
    from safetensors import deserialize

    data = path.read_bytes()
    tensors = {}
    for name, entry in deserialize(data):
        kind = entry["dtype"]
        if kind not in _SAFETENSORS_DTYPES:
            raise CheckpointError(f"{name} has type {kind}, which is not read")
        array = np.frombuffer(entry["data"], _SAFETENSORS_DTYPES[kind]).reshape(entry["shape"])
        tensors[name] = from_bfloat16(array) if kind == "BF16" else array
    (length,) = struct.unpack("<Q", data[:8])
    return tensors, json.loads(data[8 : 8 + length]).get("__metadata__") or {}


# ---- zip: .npz and PyTorch ------------------------------------------------------------------------------------------


class _File(io.BufferedReader):
    """A file that is never asked for more bytes than it has: read(n) makes room for n before it looks."""

    def __init__(self, path):
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, n=-1):
        left = max(self.size - self.tell(), 0)
        return super().read(left if n is None or n < 0 else min(n, left))


def _read_zip(path):
    with _File(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total, size = sum(member.file_size for member in members), file.size
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise CheckpointError("uses a compression other than deflate; save it again")
        if total > max(2 * size, _SMALL):
            raise CheckpointError(f"promises {total:,} bytes of content in a file of {size:,}; it is refused")
        if any(pathlib.PurePosixPath(member.filename).name == "data.pkl" for member in members):
            return *_read_torch(archive, members), "torch"
        return _read_npz(archive, members), {}, "npz"


def _read_npz(archive, members):
    arrays = {}
    for member in members:
        if not member.filename.endswith(".npy"):
            raise CheckpointError(
                f"holds {member.filename!r}, which is neither a NumPy array nor part of a PyTorch file"
            )
        arrays[member.filename.removesuffix(".npy")] = _parse_npy(archive.read(member), member.filename)
    return arrays


def _parse_npy(data, name):
    """One .npy file: magic, version, the length of a Python literal with dtype, order and shape, then values."""
    if data[:6] != b"\x93NUMPY" or data[6] not in (1, 2, 3):
        raise CheckpointError(f"{name} is no NumPy array")
    start, form = (10, "<H") if data[6] == 1 else (12, "<I")
    (length,) = struct.unpack(form, data[8:start])
    if length > 10_000:
        raise CheckpointError(f"{name} has an absurdly long header")
    header = ast.literal_eval(data[start : start + length].decode("latin-1"))
    shape, descr = header["shape"], header["descr"]
    dtype = np.dtype(descr) if isinstance(descr, str) else None
    if dtype is None or not (dtype.kind in "fiub" or dtype == np.dtype("V2")):
        raise CheckpointError(f"{name} holds {descr!r}, expected numbers; pickled objects are refused")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise CheckpointError(f"{name} has the shape {shape}")
    values = data[start + length :]
    if len(values) != dtype.itemsize * math.prod(shape):
        raise CheckpointError(f"{name} promises shape {shape}, but holds {len(values):,} bytes")
    if dtype.kind == "V":  # how NumPy stores the bfloat16 of JAX
        return from_bfloat16(np.frombuffer(values, "<u2")).reshape(shape, order=_order(header))
    return np.frombuffer(values, dtype).reshape(shape, order=_order(header))


def _order(header):
    return "F" if header["fortran_order"] else "C"


# ---- PyTorch --------------------------------------------------------------------------------------------------------

_STORAGES = {
    "torch.FloatStorage": "<f4", "torch.HalfStorage": "<f2", "torch.DoubleStorage": "<f8",
    "torch.BFloat16Storage": "<u2", "torch.LongStorage": "<i8", "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2", "torch.CharStorage": "i1", "torch.ByteStorage": "u1", "torch.BoolStorage": "?",
}  # fmt: skip


class _StateDict(dict):
    """collections.OrderedDict, and the attributes that a module's state dict carries, which are not needed."""

    def __init__(self, *items):
        super().__init__(*items)

    def build(self, state):
        pass


class _Tensor:
    """A storage seen with an offset, a size and strides, all in elements."""

    def __init__(self, storage, offset, size, stride, *_):
        values, bfloat16 = storage
        if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
            raise CheckpointError(f"a tensor has size {size}, strides {stride} and offset {offset}")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if count else 0
        if count > values.size or (count and last >= values.size):
            raise CheckpointError(f"a tensor of size {size} reaches beyond its storage of {values.size:,} values")
        steps = [step * values.itemsize for step in stride]
        view = np.lib.stride_tricks.as_strided(values[offset:], size, steps) if count else np.empty(size, values.dtype)
        self.array = from_bfloat16(view) if bfloat16 else view


def _parameter(tensor, *_):
    return tensor


def _read_torch(archive, members):
    pickle = next(m for m in members if pathlib.PurePosixPath(m.filename).name == "data.pkl")
    folder = pickle.filename.removesuffix("data.pkl")
    byteorder = folder + "byteorder"
    if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
        raise CheckpointError("was written on a big-endian machine; save it again on another")
    storages = {}

    def storage(identity):
        kind, storage_type, key, _, _ = identity
        if kind != "storage" or not isinstance(key, str) or getattr(storage_type, "name", None) not in _STORAGES:
            raise CheckpointError(f"refers to {identity!r}, which is no storage of numbers")
        if key not in storages:
            storages[key] = archive.read(f"{folder}data/{key}")
        name = storage_type.name
        return np.frombuffer(storages[key], _STORAGES[name]), name == "torch.BFloat16Storage"

    constructors = {
        "collections.OrderedDict": _StateDict,
        "torch._utils._rebuild_tensor_v2": _Tensor,
        "torch._utils._rebuild_parameter": _parameter,
    }
    try:
        value = pickles.read(archive.read(pickle), constructors, storage)
    except pickles.PickleError as error:
        raise CheckpointError(str(error)) from None
    wrapped = {"wrapped": "model"} if isinstance(value, dict) and "model" in value else {}
    return {name: tensor.array for name, tensor in _unwrap(value).items() if isinstance(tensor, _Tensor)}, wrapped


def _unwrap(value):
    """The state dict inside what training scripts save around it."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            return _unwrap(value[key])
    if not isinstance(value, dict) or not any(isinstance(item, _Tensor) for item in value.values()):
        raise CheckpointError(f"holds a {type(value).__name__} without weights; expected a state dict")
    return value
