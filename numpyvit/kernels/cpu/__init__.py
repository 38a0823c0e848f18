"""Kernels for NumPy arrays: fewer passes over memory, sums as products, work in place."""

from . import attention, convolution, gelu, linear, norm, softmax, updates

__all__ = ["attention", "convolution", "gelu", "linear", "norm", "softmax", "updates"]
