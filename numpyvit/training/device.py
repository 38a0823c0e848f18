"""What a run on a GPU adds: its data there, products of less precision, losses read now and then, too little memory."""

import types
from collections.abc import Callable

import numpy as np

from ..backend import ALONE, Array, Group, to_host
from ..core import Layer, Tape
from ..data import Dataset
from ..data.loader import ImageSet
from ..data.on_device import OnDevice
from ..errors import ConfigError, DeviceMemoryError
from ..gpu import device
from .nested import Nested, first_array, take

_MIB, _GIB = 1 << 20, 1 << 30
_SHARE = 0.5  # of the free memory that data may take


def check_precision(precision: str, xp: types.ModuleType, dtype: np.dtype) -> None:
    """Errors: ConfigError where products have one precision alone: on the CPU, and of float64."""
    if precision == "float32":
        return
    if xp is np:
        raise ConfigError(
            f"precision {precision!r} is for a GPU, the CPU works in float32; leave it out or take device='cuda'"
        )
    if dtype != np.float32:
        raise ConfigError(f"precision {precision!r} is for a model of float32, this one is of {dtype}; leave it out")


def place(dataset: ImageSet, xp: types.ModuleType, group: Group) -> tuple[ImageSet, str | None]:
    """-> the set in the memory of a GPU without other ranks, where it fits, and a line that says so; else as it is."""
    if xp is np or group is not ALONE or not isinstance(dataset, Dataset):
        return dataset, None
    free, total = device.memory(xp)
    if dataset.images.nbytes > _SHARE * free:
        return dataset, None
    size = f"{dataset.images.nbytes / _MIB:.0f} MiB of {total / _GIB:.0f} GiB"
    return OnDevice(dataset, xp), f"data on the device: {size}"


class Losses:
    """The losses of some steps in a ring on the device, read together: each look stalls a GPU."""

    def __init__(self, xp: types.ModuleType, length: int):
        self._ring, self._added = xp.zeros(length), 0

    def add(self, loss: Array) -> None:
        self._ring[self._added % len(self._ring)] = loss
        self._added += 1

    def first_not_finite(self) -> tuple[int, float] | None:
        """Where the ring is full: how many losses ago the first came that is not finite (0: the last), and it."""
        if self._added % len(self._ring):
            return None
        values = to_host(self._ring)
        wrong = np.flatnonzero(~np.isfinite(values))
        return (len(values) - 1 - int(wrong[0]), float(values[wrong[0]])) if len(wrong) else None


# ---- too little memory ----------------------------------------------------------------------------------------------


def memory_errors(xp: types.ModuleType) -> tuple[type, ...]:
    """What the device raises where its memory does not suffice; nothing for the host."""
    return () if xp is np else (xp.cuda.memory.OutOfMemoryError,)


def too_large(model: Layer, loss: Callable, x: Nested, targets: Nested, xp: types.ModuleType) -> DeviceMemoryError:
    """The error for a step on x for which memory did not suffice. It names the largest part of the batch that fits.

    Parts are tried, each half as large as the one before, forward and backward. The weights do not change.
    """
    count = len(first_array(x))
    fitting = count // 2
    while fitting and not _fits(model, loss, x, targets, fitting, xp):
        fitting //= 2
    advice = f"{fitting} would do (--batch-size {fitting})" if fitting else "not even 1 would do; take a smaller model"
    return DeviceMemoryError(
        f"the memory of the GPU ({device.describe(xp)}) does not suffice for a step of {count} images; {advice}, "
        "or keep less for backward (--grad-checkpointing)"
    )


def _fits(model, loss, x, targets, count, xp):
    xp.get_default_memory_pool().free_all_blocks()
    try:
        tape = Tape(model, input_gradient=False)
        outputs = model.forward(take(x, slice(count)), tape)
        part = targets[:count] if isinstance(targets, list) else take(targets, slice(count))
        model.backward(loss(outputs, part)[1], tape)
    except memory_errors(xp):
        return False
    return True
