"""The machine: arrays on the host or a GPU, random streams, threads, ranks, settings of the process."""

from .arrays import (
    Array,
    array_module,
    as_array,
    device_module,
    erf,
    on_host,
    register,
    rows,
    to_host,
    to_module,
    transposed,
    when_cupy_is_used,
)
from .count import Count
from .process import tune_process
from .random import Random
from .ranks import ALONE, Group, check_alike
from .threads import available_threads, blas_name, blas_threads, shared_workers

__all__ = [
    "ALONE",
    "Array",
    "Count",
    "Group",
    "Random",
    "array_module",
    "as_array",
    "available_threads",
    "blas_name",
    "blas_threads",
    "check_alike",
    "device_module",
    "erf",
    "on_host",
    "register",
    "rows",
    "shared_workers",
    "to_host",
    "to_module",
    "transposed",
    "tune_process",
    "when_cupy_is_used",
]
