"""Kernels for NumPy arrays: fewer passes over memory, sums as products, work in place."""

from . import attention, gelu, linear, norm, softmax

__all__ = ["attention", "gelu", "linear", "norm", "softmax"]
