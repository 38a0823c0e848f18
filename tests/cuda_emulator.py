"""The GPU's kernels compiled for the CPU, launched on arrays of the stand-in for CuPy."""

import contextlib
import ctypes
import pathlib
import re
import shutil
import subprocess

import numpy as np

from numpyvit.backend import philox
from numpyvit.gpu import table
from numpyvit.gpu.program import PROGRAMS, source
from numpyvit.kernels import SETS
from numpyvit.testing import stand_in

COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
_OPTIONS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-w")
_KERNEL = re.compile(r"__global__ void\s+(?:__launch_bounds__\([\d, ]+\)\s+)?(\w+)\(")
_GUARD, _CANARY = 64, np.float32(-1.5e38)  # numbers on each side of an array


def kernel_names(code: str) -> list[str]:
    return _KERNEL.findall(code)


class Emulator:
    """A numpyvit.gpu.program.Program. `reversed` runs the threads of each block from the last to the first."""

    def __init__(self, folder: pathlib.Path, code: str | None = None):
        code = source() if code is None else code
        exports = "".join(f"EMULATE({name})\n" for name in kernel_names(code))
        (folder / "emulated.cpp").write_text(f'#include "cuda_emulator.h"\n{code}\n{exports}')
        here = pathlib.Path(__file__).parent
        command = [COMPILER, *_OPTIONS, f"-I{here}", str(folder / "emulated.cpp"), "-o", str(folder / "emulated.so")]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(folder / "emulated.so"))
        self.reversed = False
        self.launched = []

    def launch(self, name, grid, block, arguments, shared_bytes):
        self.launched.append(name)
        stand_in.launch(name, lambda: self._run(name, grid, block, arguments, shared_bytes))

    def _run(self, name, grid, block, arguments, shared_bytes):
        function = self._library[f"emulate_{name}"]
        function.restype = ctypes.c_char_p
        values = [np.uint64(a._array.ctypes.data) if hasattr(a, "_array") else a for a in arguments]
        places = [np.array(value) for value in values]  # each argument in memory, as cuLaunchKernel wants it
        pointers = (ctypes.c_void_p * len(places))(*(place.ctypes.data for place in places))
        sizes = [(ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size))) for size in (grid, block)]
        trouble = function(*sizes, ctypes.c_size_t(shared_bytes), int(self.reversed), pointers)
        if trouble is not None:
            raise RuntimeError(f"{name}: {trouble.decode()}")
        for array in arguments:
            if hasattr(array, "_array"):
                check_guards(array._array, name)


def guarded(shape, dtype) -> np.ndarray:
    """An array of NaN, or of the largest integers, with a guard before and behind it in memory."""
    dtype = np.dtype(dtype)
    size, guard = int(np.prod(shape)) * dtype.itemsize, _GUARD * _CANARY.itemsize
    memory = np.full(2 * guard + size + -size % 4, 0xFF, np.uint8)
    memory[:guard].view(np.float32)[:] = memory[-guard:].view(np.float32)[:] = _CANARY
    return memory[guard : guard + size].view(dtype).reshape(shape)


def check_guards(array: np.ndarray, name: str) -> None:
    """Errors: AssertionError where a kernel wrote beside an array that `guarded` made."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    if memory.dtype == np.uint8 and memory.ndim == 1 and memory is not array:
        guards = memory.view(np.float32)[[*range(_GUARD), *range(-_GUARD, 0)]]
        assert (guards == _CANARY).all(), f"{name} wrote beside an array of shape {array.shape}"


def on_stand_in(array: np.ndarray):
    """An array of the stand-in in the same memory."""
    return stand_in.ndarray(array)


@contextlib.contextmanager
def kernels_on_stand_in(program):
    """While open, arrays of the stand-in are served by GPU kernels, which `program` launches."""
    before = {name: dict(kernels) for name, kernels in SETS.items()}
    table.register(stand_in, program)
    try:
        yield
    finally:
        del PROGRAMS[stand_in], philox.KERNELS[stand_in]
        for name, kernels in before.items():
            SETS[name].clear()
            SETS[name].update(kernels)
