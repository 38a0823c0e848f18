"""PyTorch's files since 1.6: a zip of a pickle, which names tensors, and of the storages that the tensors lie in."""

import math
import zipfile

import numpy as np

from ..errors import CheckpointError
from ..files import pickles
from ..files.budget import ARRAY, Budget
from .reading import check_shape, read_numbers

_STORAGES = {
    "torch.FloatStorage": "<f4", "torch.HalfStorage": "<f2", "torch.DoubleStorage": "<f8",
    "torch.BFloat16Storage": "<u2", "torch.LongStorage": "<i8", "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2", "torch.CharStorage": "i1", "torch.ByteStorage": "u1", "torch.BoolStorage": "?",
}  # fmt: skip
_PAIR = 256  # bytes that a key and its value take in a dict


def pickle_name(archive: zipfile.ZipFile) -> str | None:
    """The name of PyTorch's pickle in a zip, None where there is none."""
    return next((name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"), None)


def read_torch(archive: zipfile.ZipFile, budget: Budget) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """-> (arrays by name, metadata), metadata {"wrapped": "model"} where the state dict lies in a dict with "model"."""
    pickle = pickle_name(archive)
    folder = pickle.removesuffix("data.pkl")
    byteorder = folder + "byteorder"
    if byteorder in archive.namelist() and _read_whole(archive, byteorder, 16, budget) != b"little":
        raise CheckpointError("was written on a big-endian machine; save it again on another")
    try:
        program = _read_whole(archive, pickle, budget.left // 7, budget)  # reading it draws five times its size
        budget.draw(len(program))
        value = pickles.read(program, _CONSTRUCTORS, _Storages(archive, folder, budget), budget)
    except pickles.PickleError as error:
        raise CheckpointError(str(error)) from None
    wrapped = {"wrapped": "model"} if isinstance(value, dict) and "model" in value else {}
    tensors = {name: item for name, item in _state_dict(value).items() if isinstance(item, _Tensor)}
    return {name: tensor.array for name, tensor in tensors.items()}, wrapped


def _read_whole(archive, name, most, budget):
    size = archive.getinfo(name).file_size
    if size > most:
        raise CheckpointError(f"holds {size:,} bytes as {name!r:.80}, expected at most {most:,}")
    with archive.open(name) as stream:
        return read_numbers(stream, size, np.uint8, budget).tobytes()


def _state_dict(value):
    """The state dict inside what training scripts save around it."""
    for _ in range(4):
        inside = [value[key] for key in _WRAPPERS if isinstance(value, dict) and isinstance(value.get(key), dict)]
        if not inside:
            break
        value = inside[0]
    if not isinstance(value, dict) or not any(isinstance(item, _Tensor) for item in value.values()):
        raise CheckpointError(f"holds a {type(value).__name__} without weights; expected a state dict")
    return value


_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


class _Storage:
    """The numbers of one storage. Tensors that share it are counted as if they did not once they are more than it."""

    def __init__(self, kind, values):
        self.kind, self.values, self.uncounted = kind, values, values.nbytes

    def count(self, nbytes, budget):
        budget.draw(max(nbytes - self.uncounted, 0) + ARRAY)
        self.uncounted = max(self.uncounted - nbytes, 0)


class _Storages:
    """The storages of a file by the persistent ids of the pickle; each is read once."""

    def __init__(self, archive, folder, budget):
        self.archive, self.folder, self.budget = archive, folder, budget
        self.found = {}

    def __call__(self, identity):
        """identity: ("storage", type, key, where it was, how many numbers)."""
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise CheckpointError("refers to something that is not a storage of numbers")
        _, kind, key, _, _ = identity
        if not isinstance(kind, pickles.Name) or kind.name not in _STORAGES or not isinstance(key, str):
            raise CheckpointError("refers to something that is not a storage of numbers")
        if key not in self.found:
            self.found[key] = self._read(kind.name, key)
        if self.found[key].kind != kind.name:
            raise CheckpointError(f"names storage {key!r:.80} as numbers of two types; save or fetch it again")
        return self.found[key]

    def _read(self, kind, key):
        dtype = np.dtype(_STORAGES[kind])
        try:
            member = self.archive.getinfo(f"{self.folder}data/{key}")
        except KeyError:
            raise CheckpointError(f"lacks its storage {key!r:.80}; save or fetch it again") from None
        count, rest = divmod(member.file_size, dtype.itemsize)
        if rest:
            raise CheckpointError(f"has a storage {key!r:.80} that ends within a number; save or fetch it again")
        with self.archive.open(member) as stream:
            bfloat16 = kind == "torch.BFloat16Storage"
            return _Storage(kind, read_numbers(stream, count, dtype, self.budget, bfloat16))


# ---- what the pickle may name ---------------------------------------------------------------------------------------


class _StateDict(pickles.Stateful, dict):
    """collections.OrderedDict; the attributes that a module's state dict carries are its state."""


def _ordered_dict(budget, items=()):
    if not isinstance(items, (list, tuple)):
        raise CheckpointError("makes an OrderedDict of something else than a list; save or fetch it again")
    budget.draw(_PAIR * len(items))
    return _StateDict((pickles.plain_key(key), value) for key, value in items)


class _Tensor(pickles.Stateful):
    """A storage seen with an offset, a size and strides, all in numbers."""

    def __init__(self, budget, storage, offset, size, stride, *_):
        if not isinstance(storage, _Storage):
            raise CheckpointError("has a tensor without a storage; save or fetch it again")
        check_shape("a tensor", (offset,))
        check_shape("a tensor", size)
        check_shape("a tensor", stride)
        if len(size) != len(stride):
            raise CheckpointError(f"has a tensor of {len(size)} sides with {len(stride)} strides; save it again")
        values, count = storage.values, math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if count else 0
        if count > values.size or (count and last >= values.size):
            raise CheckpointError(f"has a tensor that reaches beyond its storage of {values.size:,} numbers")
        storage.count(count * values.itemsize, budget)
        steps = [step * values.itemsize for step in stride]
        if count:
            self.array = np.ndarray(size, values.dtype, values, offset * values.itemsize, steps)
        else:
            self.array = np.empty(size, values.dtype)


def _parameter(budget, tensor, *_):
    return tensor


_CONSTRUCTORS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
