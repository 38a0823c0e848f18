"""Resizing grids of values, each library's own way: position embeddings for another image size.

A resize along one axis is a matrix (out, in) of weights; along two it is that of the rows, then that of the columns.
"""

import math
from collections.abc import Callable

import numpy as np


def resize(values: np.ndarray, size: tuple[int, int], matrix: Callable) -> np.ndarray:
    """values (h, w, D) -> (H, W, D), with `matrix(n_in, n_out)` for either axis. In float64, returned as it came."""
    rows, columns = matrix(values.shape[0], size[0]), matrix(values.shape[1], size[1])
    wide = values.astype(np.float64)
    return np.einsum("Hh,Ww,hwd->HWd", rows, columns, wide, optimize=True).astype(values.dtype)


def resize_backward(dvalues: np.ndarray, size: tuple[int, int], matrix: Callable) -> np.ndarray:
    """The adjoint of resize: (H, W, D) -> (h, w, D) for a grid that had `size`."""
    rows, columns = matrix(size[0], dvalues.shape[0]), matrix(size[1], dvalues.shape[1])
    wide = dvalues.astype(np.float64)
    return np.einsum("Hh,Ww,HWd->hwd", rows, columns, wide, optimize=True).astype(dvalues.dtype)


def linear(n_in: int, n_out: int) -> np.ndarray:
    """Corners on corners, straight lines between: Google's resize of position embeddings."""
    places = _corner_places(n_in, n_out)
    return _weights(places, n_in, lambda distance: np.maximum(1 - np.abs(distance), 0), 1)


def bicubic(n_in: int, n_out: int) -> np.ndarray:
    """PyTorch's bicubic, pixel centers on pixel centers, a = −3/4: Hugging Face and DeiT."""
    return _weights(_center_places(n_in, n_out), n_in, lambda d: _cubic(d, -0.75), 2)


def bicubic_corners(n_in: int, n_out: int) -> np.ndarray:
    """PyTorch's bicubic with align_corners=True, a = −3/4: torchvision."""
    return _weights(_corner_places(n_in, n_out), n_in, lambda d: _cubic(d, -0.75), 2)


def bicubic_antialias(n_in: int, n_out: int) -> np.ndarray:
    """PyTorch's bicubic with antialias=True: a = −1/2, and the kernel widens where the grid shrinks: timm."""
    scale = max(n_in / n_out, 1.0)
    distance = (np.arange(n_in) - _center_places(n_in, n_out)[:, None]) / scale
    weights = _cubic(distance, -0.5)
    return weights / weights.sum(1, keepdims=True)


def _center_places(n_in, n_out):
    """Where the center of each output cell lies, in input cells."""
    return (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5


def _corner_places(n_in, n_out):
    return np.arange(n_out) * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)


def _weights(places, n_in, kernel, reach):
    """Each place mixes the 2·reach inputs around it; beyond the border the outermost value goes on."""
    matrix = np.zeros((len(places), n_in))
    for offset in range(1 - reach, reach + 1):
        neighbor = np.floor(places).astype(int) + offset
        np.add.at(matrix, (np.arange(len(places)), np.clip(neighbor, 0, n_in - 1)), kernel(places - neighbor))
    return matrix


def _cubic(distance, a):
    """Keys' cubic convolution kernel (1981, IEEE Trans. ASSP 29, §II)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


WAYS = {
    "google": linear,
    "timm": bicubic_antialias,
    "deit": bicubic,
    "huggingface": bicubic,
    "torchvision": bicubic_corners,
}


def resize_pos_embed(
    pos_embed: np.ndarray, prefix: int, old_grid: tuple[int, int], new_grid: tuple[int, int], way: str
) -> np.ndarray:
    """(1, T+N, D) for a grid of other size: the first `prefix` rows belong to tokens and stay."""
    grid = pos_embed[0, prefix:].reshape(*old_grid, -1)
    resized = resize(grid, new_grid, WAYS[way]).reshape(1, math.prod(new_grid), -1)
    return np.concatenate([pos_embed[:, :prefix], resized], axis=1)
