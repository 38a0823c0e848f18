"""The kernels in cuda/ as one program, and how they are launched."""

import functools
import importlib.resources
import types
from typing import Protocol

import numpy as np

from ..backend import Array, array_module

OPTIONS = ("--std=c++17",)  # CuPy adds -ftz=true: numbers below 1e-38 count as 0
WARP = 32  # threads
WARPS = 8  # of a block
THREADS = WARP * WARPS
SHARED_BYTES = 48 * 1024  # of shared memory, which every GPU gives a block without being asked

Size = tuple[int, ...]  # of a grid in blocks or of a block in threads, up to three numbers


def source() -> str:
    """All of cuda/, common.cu first. Each file begins with a #line, so that the compiler's messages name it."""
    files = importlib.resources.files(__package__).joinpath("cuda").iterdir()
    files = sorted(files, key=lambda file: (file.name != "common.cu", file.name))
    return "".join(f'#line 1 "{file.name}"\n{file.read_text("utf-8")}\n' for file in files)


class Program(Protocol):
    """What can launch a kernel of cuda/ by its name."""

    def launch(self, name: str, grid: Size, block: Size, arguments: tuple, shared_bytes: int) -> None: ...


class CupyProgram:
    """The program on a GPU. NVRTC compiles it at the first launch; CuPy keeps the result on disk."""

    def __init__(self, cupy: types.ModuleType):
        self._cupy = cupy

    def launch(self, name: str, grid: Size, block: Size, arguments: tuple, shared_bytes: int) -> None:
        self._kernel(name)(grid, block, arguments, shared_mem=shared_bytes)

    @functools.cached_property
    def _kernel(self):
        """name -> kernel."""
        return functools.cache(self._cupy.RawModule(code=source(), options=OPTIONS).get_function)


PROGRAMS: dict[types.ModuleType, Program] = {}  # by the namespace whose arrays it takes


def launch(
    name: str, grid: Size, block: Size, *arguments: Array | np.ndarray | float | None, shared_floats: int = 0
) -> None:
    """Run the kernel `name` on the current stream.

    arguments: device arrays, the first of them one, which the kernel gets as pointers, and None as a null pointer;
    numbers, ints and floats in 32 bits; and what `struct` made.
    """
    program = PROGRAMS[array_module(arguments[0])]
    program.launch(name, grid, block, tuple(map(_as_argument, arguments)), 4 * shared_floats)


def launch_for_each(
    name: str, size: int, *arguments: Array | np.ndarray | float | None, shared_floats: int = 0
) -> None:
    """Run a kernel that has one thread for each of `size` numbers."""
    launch(name, (blocks(size, THREADS),), (THREADS,), *arguments, shared_floats=shared_floats)


def launch_for_each_row(name: str, rows: int, *arguments: Array | np.ndarray | float | None) -> None:
    """Run a kernel that has one warp for each of `rows` rows."""
    launch(name, (blocks(rows, WARPS),), (THREADS,), *arguments)


def struct(**fields: float | tuple[int, ...] | np.generic) -> np.ndarray:
    """What a kernel takes as a struct by value: ints and floats of 32 bits, tuples as arrays of ints, others as is."""
    values = {name: np.array(_as_argument(value)) for name, value in fields.items()}
    types = [(name, value.dtype, value.shape) for name, value in values.items()]
    return np.array(tuple(values.values()), np.dtype(types, align=True))


def _as_argument(value):
    if value is None:
        return np.uint64(0)
    if type(value) is float:
        return np.float32(value)
    return np.asarray(value, np.int32)[()] if type(value) in (int, tuple) else value


def blocks(count: int, size: int) -> int:
    """How many blocks of `size` hold `count`."""
    return -(-count // size)
