"""LayerNorm and GroupNorm in place, with their sums as products."""

import numpy as np

from ...backend import Array, rows
from .. import kernel
from .linear import sum_over_last, sum_over_rows


@kernel("standardize", np, "fd", tolerance=5e-6, gain=1.5)
def standardize(x: Array, eps: float) -> tuple[Array, Array]:
    x2 = rows(x)
    width = x2.shape[1]
    mean = sum_over_last(x2)
    mean /= width
    xhat = x2 - mean
    var = np.einsum("ij,ij->i", xhat, xhat)
    var /= width
    var += eps
    rstd = (1 / np.sqrt(var))[:, None]
    xhat *= rstd
    return xhat.reshape(x.shape), rstd.reshape(*x.shape[:-1], 1)


@kernel("layer_norm", np, "fd", tolerance=5e-6, gain=1.6)
def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    xhat, rstd = standardize(x, eps)
    y = xhat * weight
    y += bias
    return y, xhat, rstd


@kernel("layer_norm_backward", np, "fd", tolerance=5e-6, gain=1.6)
def layer_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """The means of g and of g x̂, with g = γ dy, are products of dy and dy x̂ with γ."""
    dy2, xhat2 = rows(dy), rows(xhat)
    width = dy2.shape[1]
    dy_xhat = dy2 * xhat2
    dweight, dbias = sum_over_rows(dy_xhat), sum_over_rows(dy2)
    mean_g = dy2 @ weight
    mean_g /= width
    mean_g_xhat = dy_xhat @ weight
    mean_g_xhat /= width
    dx = dy2 * weight
    dx -= mean_g[:, None]
    dx -= np.multiply(xhat2, mean_g_xhat[:, None], out=dy_xhat)
    dx *= rstd.reshape(-1, 1)
    return dx.reshape(dy.shape), dweight, dbias


@kernel("group_norm", np, "fd", tolerance=5e-6, gain=1.5)
def group_norm(x: Array, weight: Array, bias: Array, groups: int, eps: float) -> tuple[Array, Array, Array]:
    x2 = x.reshape(len(x) * groups, -1)
    mean = sum_over_last(x2)
    mean /= x2.shape[1]
    xhat = x2 - mean
    var = np.einsum("ij,ij->i", xhat, xhat)
    var /= x2.shape[1]
    var += eps
    rstd = (1 / np.sqrt(var))[:, None]
    xhat *= rstd
    xhat = xhat.reshape(x.shape)
    y = xhat * weight[:, None, None]
    y += bias[:, None, None]
    return y, xhat, rstd.reshape(len(x), groups, 1)


@kernel("group_norm_backward", np, "fd", tolerance=5e-6, gain=2.0)
def group_norm_backward(dy: Array, weight: Array, xhat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """All means follow from two sums for each channel of an image, and dx is two factors for it and a number."""
    (B, C), (_, G, _) = dy.shape[:2], rstd.shape
    dy3, xhat3 = dy.reshape(B, C, -1), xhat.reshape(B, C, -1)
    of_channel = sum_over_last(dy3)[..., 0], np.einsum("bcn,bcn->bc", dy3, xhat3)  # of dy and dy x̂
    dbias, dweight = (sums.sum(0) for sums in of_channel)
    per_group = xhat3.shape[2] * C // G
    means = [(sums * weight).reshape(B, G, -1).sum(-1, keepdims=True) / per_group for sums in of_channel]  # of g, g x̂
    shift, slope, rstd = (np.repeat(of_group, C // G, axis=1) for of_group in (means[0] * rstd, means[1] * rstd, rstd))
    dx = dy3 * (weight[:, None] * rstd)
    dx -= xhat3 * slope
    dx -= shift
    return dx.reshape(dy.shape), dweight, dbias
