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
)
from .count import Count
from .process import tune_process
from .random import Random
from .ranks import ALONE, Group
from .threads import available_threads, blas_threads, shared_workers

__all__ = [
    "ALONE",
    "Array",
    "Count",
    "Group",
    "Random",
    "array_module",
    "as_array",
    "available_threads",
    "blas_threads",
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
]
