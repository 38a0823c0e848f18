"""Products of matrices by cuBLASLt, called through ctypes.

CuPy's own products cannot be captured in a CUDA graph, copy operands of more than two dimensions, and have no bf16.
Here all share one handle, one workspace and CuPy's stream. So a captured step can hold them, a transposed operand is
read where it lies, and a bias is added as the result is written.

precision.chosen() says how float32 operands are multiplied: as they are, rounded to TF32 (11 bits) by the GPU, or
rounded to bf16 (8 bits) by a kernel of ours. Sums and results are float32 in each.
"""

import ctypes
import itertools
import math
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_module, rows
from . import precision
from .program import launch_for_each
from .table import device_kernel

WORKSPACE_BYTES = 32 * 2**20

# cublas_api.h, library_types.h
_COMPUTE = {"float32": 68, "tf32": 77, "bf16": 68}  # CUBLAS_COMPUTE_32F, …_FAST_TF32
_FLOAT32, _BF16 = 0, 14  # CUDA_R_32F, CUDA_R_16BF
# cublasLt.h
_OPERATIONS = (3, 4)  # CUBLASLT_MATMUL_DESC_TRANSA, …_TRANSB
_EPILOGUE, _BIAS_POINTER, _WITH_BIAS = 7, 8, 4  # CUBLASLT_MATMUL_DESC_…, CUBLASLT_EPILOGUE_BIAS
_BATCH_COUNT, _BATCH_STRIDE = 5, 6  # CUBLASLT_MATRIX_LAYOUT_…
_MOST_WORKSPACE, _ALIGNMENTS = 1, (5, 6, 7, 8)  # CUBLASLT_MATMUL_PREF_…, of A, B, C and D
_BEST_ALIGNMENT = 256  # bytes

PRODUCTS: dict[types.ModuleType, Callable[[], "CublasLt"]] = {}  # how to get it for the arrays of a namespace


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace_bytes", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


@dataclass(frozen=True)
class Operand:
    """A batch of matrices in memory, as cuBLAS sees it: column after column, `leading` numbers apart.

    What NumPy calls a matrix in row-major order is its transpose there. transposed: whether it lies in column-major
    order for NumPy, such as x.T.   step: from one matrix of the batch to the next, 0 for one that all share.
    """

    rows: int
    columns: int
    leading: int
    step: int
    transposed: bool
    alignment: int
    kind: int = _FLOAT32

    @classmethod
    def of(cls, x: Array, address: int, kind: int = _FLOAT32) -> "Operand":
        """x: (batch, r, c), rows or columns of numbers next to each other; address: of its first number, in bytes."""
        count, r, c = x.shape
        step, row, column = (stride // x.itemsize for stride in x.strides)
        step = step if count > 1 else 0
        alignment = _alignment(address | step * x.itemsize)
        if _in_rows(x):
            return cls(c, r, row if r > 1 else c, step, False, alignment, kind)
        return cls(r, c, column if c > 1 else r, step, True, alignment, kind)


class CublasLt:
    """Products on one GPU, on the stream that is current in CuPy."""

    def __init__(self, xp: types.ModuleType, library: Any = None):
        self._xp, self._library = xp, _load() if library is None else library
        self._handle = self._create("Create")
        self._workspace = xp.empty((WORKSPACE_BYTES,), dtype=np.uint8)
        self._plans, self._lock = {}, threading.Lock()

    def product(self, a: Array, b: Array, out: Array, bias: Array | None, chosen: str) -> None:
        """out = a b + bias.   a: (batch, M, K), b: (batch, K, N), out: (batch, M, N) in row-major order, bias: (N,).

        For cuBLAS these are transposes, and outᵀ = bᵀ aᵀ.
        """
        kind = _BF16 if chosen == "bf16" else _FLOAT32
        operands = [Operand.of(x, self.address(x), k) for x, k in ((b, kind), (a, kind), (out, _FLOAT32))]
        key = (*operands, len(out), 0 if bias is None else _alignment(self.address(bias)), chosen)
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        description, layouts, heuristic = self._plans[key]
        (of_b, of_a, of_out), one, zero = layouts, ctypes.c_float(1), ctypes.c_float(0)
        at_b, at_a, at_out, at_workspace = (ctypes.c_void_p(self.address(x)) for x in (b, a, out, self._workspace))
        inputs = (ctypes.byref(one), at_b, of_b, at_a, of_a, ctypes.byref(zero), at_out, of_out)
        room = (at_workspace, ctypes.c_size_t(WORKSPACE_BYTES), ctypes.c_void_p(self.stream()))
        algorithm = ctypes.byref(heuristic, _Heuristic.algorithm.offset)
        with self._lock:  # the description of a plan, which holds the bias, is shared by threads
            if bias is not None:
                self._set("MatmulDesc", description, _BIAS_POINTER, ctypes.c_void_p(self.address(bias)))
            self._call("Matmul", self._handle, description, *inputs, at_out, of_out, algorithm, *room)

    def address(self, x: Array) -> int:
        """Of an array's first number on the device, in bytes."""
        return x.data.ptr

    def stream(self) -> int:
        """The stream on which the caller's other work runs."""
        return self._xp.cuda.get_current_stream().ptr

    def _plan(self, a, b, out, count, bias_alignment, chosen):
        """What describes a product to cuBLAS, a and b in its order, and the algorithm that it finds best."""
        description = self._create("MatmulDescCreate", ctypes.c_int(_COMPUTE[chosen]), ctypes.c_int(_FLOAT32))
        for attribute, operand in zip(_OPERATIONS, (a, b)):
            self._set("MatmulDesc", description, attribute, ctypes.c_int(operand.transposed))
        if bias_alignment:
            self._set("MatmulDesc", description, _EPILOGUE, ctypes.c_int(_WITH_BIAS))
            self._set("MatmulDesc", description, _BIAS_POINTER, ctypes.c_void_p(bias_alignment))  # only looked at
        layouts = [self._layout(operand, count) for operand in (a, b, out)]
        preference = self._create("MatmulPreferenceCreate")
        self._set("MatmulPreference", preference, _MOST_WORKSPACE, ctypes.c_uint64(WORKSPACE_BYTES))
        for attribute, operand in zip(_ALIGNMENTS, (a, b, out, out)):
            self._set("MatmulPreference", preference, attribute, ctypes.c_uint32(operand.alignment))
        heuristic, found = _Heuristic(), ctypes.c_int()
        what, best = (description, *layouts, layouts[-1], preference), (ctypes.c_int(1), ctypes.byref(heuristic))
        self._call("MatmulAlgoGetHeuristic", self._handle, *what, *best, ctypes.byref(found))
        if not found.value:
            raise RuntimeError(f"cuBLASLt has no algorithm for {a} times {b} in {chosen}")
        return description, layouts, heuristic

    def _layout(self, operand, count):
        sizes = (ctypes.c_uint64(operand.rows), ctypes.c_uint64(operand.columns), ctypes.c_int64(operand.leading))
        layout = self._create("MatrixLayoutCreate", ctypes.c_int(operand.kind), *sizes)
        self._set("MatrixLayout", layout, _BATCH_COUNT, ctypes.c_int32(count))
        self._set("MatrixLayout", layout, _BATCH_STRIDE, ctypes.c_int64(operand.step))
        return layout

    def _create(self, name, *arguments):
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made), *arguments)
        return made

    def _set(self, what, handle, attribute, value):
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._call(f"{what}SetAttribute", handle, ctypes.c_int(attribute), ctypes.byref(value), size)

    def _call(self, name, *arguments):
        status = getattr(self._library, f"cublasLt{name}")(*arguments)
        if status:
            raise RuntimeError(f"cublasLt{name} failed with status {status}")


@device_kernel
def matmul(a: Array, b: Array) -> Array:
    return _product(a, b, None)


@device_kernel
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    if bias is not None and len(bias) < len(weight):
        return NotImplemented
    y = _product(rows(x), weight.T, bias)
    return y if y is NotImplemented else y.reshape(*x.shape[:-1], weight.shape[0])


def _product(a, b, bias):
    library, operands = PRODUCTS.get(array_module(a)), [a, b] if bias is None else [a, b, bias]
    if library is None or not all(array.dtype.char == "f" and array.size for array in operands):
        return NotImplemented
    xp, batch = array_module(a), np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
    a, b = (_as_batch(array, batch) for array in (a, b))
    bias = None if bias is None else xp.ascontiguousarray(bias)
    chosen = precision.chosen()
    if chosen == "bf16":
        a, b = _rounded(a), _rounded(b)
    library().product(a, b, out.reshape(-1, *out.shape[-2:]), bias, chosen)
    return out


def _alignment(address):
    return min(address & -address, _BEST_ALIGNMENT)


def _as_batch(x, batch):
    """(..., r, c) -> (count, r, c), copied where matrices do not lie at equal distances or have gaps between numbers.

    What all of a batch share has the distance 0.
    """
    xp, matrix, count = array_module(x), x.shape[-2:], math.prod(batch)
    if not _in_rows(x) and not _in_rows(x.swapaxes(-1, -2)):
        x = xp.ascontiguousarray(x)
    if math.prod(x.shape[:-2]) == 1:
        return xp.broadcast_to(x[(0,) * (x.ndim - 2)], (count, *matrix))
    x = xp.broadcast_to(x, (*batch, *matrix))
    steps = [(stride, n) for stride, n in zip(x.strides, batch) if n > 1]
    if any(outer != inner * n for (outer, _), (inner, n) in itertools.pairwise(steps)):
        x = xp.ascontiguousarray(x)
    return x.reshape(count, *matrix)


def _in_rows(x):
    """Whether the numbers of a row lie next to each other, and rows behind one another."""
    (r, c), (row, column) = x.shape[-2:], x.strides[-2:]
    return (column == x.itemsize or c == 1) and (row >= c * x.itemsize or r == 1)


def _rounded(x):
    """(batch, r, c) rounded to bf16, the upper half of a float32, in the same order of memory."""
    if not _in_rows(x):
        return _rounded(x.swapaxes(1, 2)).swapaxes(1, 2)
    xp, shape = array_module(x), x.shape
    x = xp.ascontiguousarray(x[:1] if x.strides[0] == 0 else x)
    y = xp.empty(x.shape, dtype=np.uint16)
    launch_for_each("bf16_from_float32", x.size, x, y, x.size)
    return xp.broadcast_to(y, shape)


def _load():
    """The cuBLASLt that CuPy itself uses."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
