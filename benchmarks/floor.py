"""The least time that the matrix products of a piece of work can take on this machine."""

import functools
import time

import numpy as np
import threadpoolctl

from .work import CONFIGS, numpyvit_model


def gemm_limit(kind, name, threads):
    """Milliseconds: the operations of all products of a run, at the rate that the machine reaches in large ones."""
    return 1e3 * operations(kind, name) / gemm_rate(threads)


def operations(kind, name):
    """Additions and multiplications in the products of one run; backward has two for each of forward."""
    forward = 2 * numpyvit_model(CONFIGS[name]).multiply_adds() * CONFIGS[name][-1]
    return forward if kind == "infer" else 3 * forward


@functools.cache
def gemm_rate(threads, n=1536):
    """Operations a second in float32 products of n×n matrices, the best of ten, BLAS on that many threads."""
    a, b, times = np.ones((n, n), np.float32), np.ones((n, n), np.float32), []
    with threadpoolctl.threadpool_limits(threads, "blas"):
        for _ in range(12):
            start = time.perf_counter()
            np.matmul(a, b)
            times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)
