"""The containers that weights come in: safetensors, NumPy's .npz, PyTorch's zip and ONNX. Each reader returns plain
arrays.

No reader executes anything or trusts a size: what is made is drawn from a budget first (see budget.py), and what cannot
be right ends in a CheckpointError.
"""

import contextlib
import io
import math
import os
import pathlib
import re
import stat
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from ..errors import CheckpointError
from ..files.budget import SLACK, Budget, TooLarge
from .onnx_files import read_onnx
from .reading import check_name, check_shape, parse_json, read_numbers
from .torch_files import pickle_name, read_torch

_LEGACY_TORCH = b"\x80\x02\x8a\x0a"


def budget_for(path: str | os.PathLike, times: int = 2) -> Budget:
    """What reading a weight file may hold at a time: `times` its size (widening doubles bfloat16) and 48 MiB.

    Errors: CheckpointError where there is no such file.
    """
    path = pathlib.Path(path)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path}: there is no such checkpoint file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
    if stat.S_ISDIR(status.st_mode):
        best = path / "best.safetensors"
        advice = f"name the file in it, {best}" if best.exists() else "name a weight file"
        raise CheckpointError(f"{path}: is a directory; {advice}")
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: is not a regular file; name a weight file")
    return Budget(times * status.st_size + SLACK)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """While open, whatever a damaged file leads to becomes a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except TooLarge as error:
        raise CheckpointError(f"{path}: {error}; save it without compression and with weights only") from None
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes fail anywhere, in other libraries too
        raise CheckpointError(
            f"{path}: is damaged or in no known format ({type(error).__name__}: {error!s:.200}); save or fetch it again"
        ) from None


def read_container(
    path: str | os.PathLike, budget: Budget | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """-> (arrays by name, metadata, container), container one of "safetensors", "npz", "torch", "onnx"."""
    budget = budget or budget_for(path)
    with naming(path):
        with open(path, "rb") as file:
            head = file.read(9)
        if head[:4] == _LEGACY_TORCH:
            raise CheckpointError("was written by PyTorch before 1.6; load and save it again with a newer PyTorch")
        arrays, metadata, container = _reader_for(head)(path, budget)
        for name in arrays:
            check_name(name)
        return arrays, metadata, container


def _reader_for(head):
    if head[:2] == b"PK":
        return _read_zip
    if head[:1] == b"\x08" and head[8:] != b"{":  # the version of ONNX's format; safetensors has JSON behind a length
        return _read_onnx
    return _read_safetensors


def _read_onnx(path, budget):
    return *read_onnx(path, budget), "onnx"


# ---- safetensors ----------------------------------------------------------------------------------------------------

_SAFETENSORS_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _read_safetensors(path, budget):
    """Eight bytes of length, a header in JSON, then the arrays' numbers one after another without gaps.

    The safetensors library would hold the whole file beside the arrays, and bfloat16 a third time.
    """
    size = pathlib.Path(path).stat().st_size
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if 8 + length > size:
            raise CheckpointError("is damaged or in no known format (its header is longer than the file)")
        header = parse_json(file.read(length), budget)
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise CheckpointError("is damaged (its metadata is not text by name); save or fetch it again")
        tensors, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            check_name(name)
            check_shape(name, entry["shape"])
            if entry["dtype"] not in _SAFETENSORS_DTYPES:
                raise CheckpointError(f"{name} has type {entry['dtype']!r:.40}, which is not read")
            dtype, count = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]]), math.prod(entry["shape"])
            start, end = end, end + count * dtype.itemsize
            if entry["data_offsets"] != [start, end]:
                raise CheckpointError(f"{name} lies elsewhere than its shape demands; save or fetch it again")
            array = read_numbers(file, count, dtype, budget, entry["dtype"] == "BF16")
            tensors[name] = array.reshape(entry["shape"])
        if 8 + length + end != size:
            raise CheckpointError("has bytes that belong to no array; save or fetch it again")
    return tensors, metadata, "safetensors"


# ---- zip: PyTorch and .npz ------------------------------------------------------------------------------------------

_MOST_DIRECTORY = 4 << 20  # bytes of a zip's list of members, enough for 30,000
_MEMBER = 600  # bytes that zipfile keeps of each


class _ZipSource(io.BufferedReader):
    """A file for zipfile, which believes the lengths that it finds and makes room for so much before it reads."""

    def __init__(self, path):
        super().__init__(io.FileIO(path))
        self.size = pathlib.Path(path).stat().st_size

    def read(self, n=-1):
        left = max(self.size - self.tell(), 0)
        n = left if n is None or n < 0 else min(n, left)
        if n > _MOST_DIRECTORY:
            raise CheckpointError(f"has a list of members of {n:,} bytes, expected at most {_MOST_DIRECTORY:,}")
        return super().read(n)


def _read_zip(path, budget):
    with _ZipSource(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        budget.draw(_MEMBER * len(members))
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise CheckpointError("uses a compression other than deflate; save it again")
        for member in members:
            stored = member.file_size if member.compress_type == zipfile.ZIP_STORED else member.compress_size
            if max(stored, member.compress_size) > file.size:
                raise CheckpointError(f"is damaged ({member.filename!r:.80} is larger than the file); fetch it again")
        promised = sum(member.file_size for member in members)
        if promised > budget.limit:
            raise CheckpointError(f"promises {promised:,} bytes of content in a file of {file.size:,}; it is refused")
        if pickle_name(archive) is not None:
            return *read_torch(archive, budget), "torch"
        return {m.filename.removesuffix(".npy"): _read_npy(archive, m, budget) for m in members}, {}, "npz"


_NPY_FIELDS = [  # of a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
    re.compile(r"['\"]descr['\"]\s*:\s*['\"]([<>|=]?(?:[fiub][1248]|V2))['\"]"),
    re.compile(r"['\"]fortran_order['\"]\s*:\s*(True|False)"),
    re.compile(r"['\"]shape['\"]\s*:\s*\(([\d\sL,]*)\)"),
]


def _read_npy(archive, member, budget):
    """One .npy file: magic, version, the length of a header with dtype, order and shape, then numbers."""
    name = f"{member.filename!r:.80}"
    if not member.filename.endswith(".npy"):
        raise CheckpointError(f"holds {name}, which is neither a NumPy array nor part of a PyTorch file")
    with archive.open(member) as stream:
        head = stream.read(8)
        if head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3):
            raise CheckpointError(f"{name} is not a NumPy array")
        form = "<H" if head[6] == 1 else "<I"
        (length,) = struct.unpack(form, stream.read(struct.calcsize(form)))
        if length > 10_000:
            raise CheckpointError(f"{name} has an absurdly long header")
        header = stream.read(length).decode("latin-1")
        descr, fortran, shape = (match and match[1] for match in (field.search(header) for field in _NPY_FIELDS))
        if None in (descr, fortran, shape):
            raise CheckpointError(f"{name} says {header!r:.80}, expected numbers; pickled objects are refused")
        shape = tuple(int(side) for side in re.findall(r"\d+", shape))
        bfloat16 = descr.endswith("V2")  # how NumPy stores the bfloat16 of JAX
        dtype, count = np.dtype("<u2" if bfloat16 else descr), math.prod(shape)
        held = member.file_size - 8 - struct.calcsize(form) - length
        if held != count * dtype.itemsize:
            raise CheckpointError(f"{name} promises shape {shape}, but holds {held:,} bytes")
        array = read_numbers(stream, count, dtype, budget, bfloat16)
        return array.reshape(shape, order="F" if fortran == "True" else "C")
