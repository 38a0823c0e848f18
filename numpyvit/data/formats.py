"""The file forms that small image sets come in: IDX (MNIST), CIFAR's binary and Python batches, archives of them.

Every reader checks sizes before it makes an array and raises DataError naming the file and what to do.
"""

import hashlib
import math
import os
import pathlib
import struct
import tarfile
import zlib
from collections.abc import Collection

import numpy as np

from ..errors import DataError
from ..files import pickles
from .paths import naming, open_file

_PIECE = 1 << 13  # bytes of a gzip file at a time; zlib copies what is left of a piece at the end of each member
_MOST_RATIO, _MOST_FREE = 8, 64 << 20  # MNIST's files unpack to 5 times their size


def read_bytes(path: str | os.PathLike) -> bytes | bytearray:
    """The content of a file as bytes or a bytearray, unpacked where it is gzipped; gzip's own checksum finds damage.

    Errors: DataError for a file that cannot be read, is damaged, or unpacks to more than 8 times its size and 64 MiB.
    """
    with open_file(path) as file, naming(path):
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read()
        file.seek(0)
        try:
            return _unzip(file, _MOST_RATIO * os.fstat(file.fileno()).st_size + _MOST_FREE)
        except (EOFError, zlib.error) as error:
            raise DataError(f"{path}: the gzip file is damaged or cut short ({error}); fetch it again") from None
        except OverflowError as error:
            raise DataError(f"{path}: {error}; fetch the file again") from None


def _unzip(file, limit):
    """The content of a gzip file, which may have several members, zeros between them."""
    content, inflate, packed = bytearray(), None, b""
    while packed or (packed := file.read(_PIECE)):
        if inflate is None:
            packed = packed.lstrip(b"\0")
            inflate = zlib.decompressobj(wbits=31) if packed else None  # 31: with gzip's header and checksum
            continue
        content += inflate.decompress(packed)  # a thousand times as much at most
        if len(content) > limit:
            raise OverflowError(f"unpacks to more than {limit:,} bytes, which is not a set of images")
        packed = inflate.unused_data
        inflate = None if inflate.eof else inflate
    if inflate is not None:
        raise EOFError("it ends within its data")
    return content


def read_archive(path: str | os.PathLike, names: Collection[str]) -> dict[str, bytes]:
    """{base name: content} of the wanted members of a .tar or .tar.gz. Nothing is unpacked to disk."""
    try:
        return {name: bytes(content) for name, content in _plain_members(read_bytes(path)) if name in names}
    except tarfile.TarError as error:
        raise DataError(f"{path}: the archive is damaged or cut short ({error}); fetch it again") from None


_BLOCK = tarfile.BLOCKSIZE
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)


def _plain_members(data):
    """(base name, content) of each plain file in a tar archive; links, sparse files and extensions are passed over.

    tarfile's own reader follows those, and so makes terabytes out of a few blocks.
    """
    data, place = memoryview(data), 0
    while place < len(data):
        header = bytes(data[place : place + _BLOCK])
        if not any(header):  # the end
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        place += _BLOCK
        size = 0 if member.type in _WITHOUT_CONTENT else member.size
        if not 0 <= size <= len(data) - place:
            raise tarfile.ReadError(f"{member.name[:100]!r} has {size:,} bytes, {len(data) - place:,} are left")
        if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield pathlib.PurePosixPath(member.name).name, data[place : place + size]
        place += -(-size // _BLOCK) * _BLOCK


def check_md5(source: object, data: bytes | bytearray, md5: str) -> None:
    """Errors: DataError where the content of an official file differs from the published one."""
    if hashlib.md5(data).hexdigest() != md5:
        raise DataError(f"{source}: the content differs from the published file (checksum); fetch it again")


_IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def parse_idx(data: bytes | bytearray, source: object) -> np.ndarray:
    """An IDX file (MNIST's form) as an array: 0, 0, type, dimensions, each length as a big-endian uint32, values."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES or data[3] > 8:
        raise DataError(
            f"{source}: is not an IDX file (it begins with {data[:4].hex(' ') or 'nothing'}); fetch it again"
        )
    dtype, dimensions = np.dtype(_IDX_DTYPES[data[2]]), data[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", data[4:start]) if len(data) >= start else ()
    expected = start + dtype.itemsize * math.prod(shape)
    if len(data) != expected:
        raise DataError(f"{source}: has {len(data):,} bytes, its header promises {expected:,}; fetch it again")
    if 0 in shape:
        raise DataError(f"{source}: is empty, its header gives the shape {shape}; fetch it again")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def parse_cifar_binary(data: bytes, source: object, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR's binary form: rows of `label_bytes` labels (the last counts) and 3·32·32 pixels."""
    row = label_bytes + 3072
    if not data or len(data) % row:
        raise DataError(f"{source}: has {len(data):,} bytes, expected a multiple of {row}; fetch it again")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1]


def parse_cifar_python(data: bytes, source: object) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR's Python form, a pickle that is read without executing anything: 'data' and 'labels' or 'fine_labels'."""
    batch = _plain_pickle(data, source)
    labels = batch.get("fine_labels", batch.get("labels"))
    try:
        images = pickles.as_array(batch.get("data"))
    except pickles.PickleError as error:
        raise DataError(f"{source}: is not a CIFAR batch ({error})") from None
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        raise DataError(f"{source}: 'data' has shape {images.shape} and type {images.dtype}, expected (N, 3072) uint8")
    if (
        not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(type(i) is int and 0 <= i < 100 for i in labels)
    ):
        raise DataError(f"{source}: expected a list of {len(images)} labels from 0 to 99")
    return images.reshape(-1, 3, 32, 32), np.array(labels)


def parse_cifar_names(data: bytes, source: object) -> list[str]:
    """The class names of CIFAR's batches.meta or meta."""
    meta = _plain_pickle(data, source)
    names = meta.get("fine_label_names", meta.get("label_names"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{source}: holds no list of class names")
    return names


def _plain_pickle(data, source):
    try:
        value = pickles.read(bytes(data), pickles.NUMPY_CONSTRUCTORS)
    except pickles.PickleError as error:
        raise DataError(f"{source}: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{source}: is not a CIFAR batch (it holds a {type(value).__name__}, expected a dict)")
    batch = {}
    for key, item in value.items():
        key = _text(key)
        batch[key] = [_text(name) for name in item] if str(key).endswith("names") and isinstance(item, list) else item
    return batch


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
