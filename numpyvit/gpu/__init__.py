"""Kernels for a GPU: faster forms of the formulas in numpyvit.functional, for CuPy arrays of float32.

They enter the table of numpyvit.kernels when the first device array appears; until then neither they nor CuPy are
imported. What a kernel does not serve (other types, arrays in another order of memory) runs as the formula.

    cuda/        the kernels in CUDA C++, each with its formula
    program.py   all of them as one program, compiled at the first launch, and the launch itself
    table.py     the functions that launch them, by the names of their formulas
    products.py  products of matrices by cuBLASLt, in the precision that precision.py holds
    graph.py     steps as CUDA graphs
"""

import functools
import types

from ..backend import when_cupy_is_used


@when_cupy_is_used
def _register(cupy: types.ModuleType) -> None:
    from . import products, program, table

    table.register(cupy, program.CupyProgram(cupy))
    products.PRODUCTS[cupy] = functools.cache(functools.partial(products.CublasLt, cupy))
