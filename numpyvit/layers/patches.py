"""From images to tokens.

Shapes: B batch, C channels, H×W pixels, Ph×Pw patch, N = H/Ph · W/Pw patches, D width.
"""

import math
from collections.abc import Callable

import numpy as np

from .. import functional as F
from ..backend import Array, on_host
from ..core import FORGET, Layer, Parameter, Seed, as_dtype, make_rng
from ..errors import ConfigError, DtypeError, InputError, ShapeError
from .activations import Identity
from .init import uniform


def pair(size: int | tuple[int, int], name: str, least: int = 1) -> tuple[int, int]:
    """An int or (height, width) as (height, width)."""
    both = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(both) != 2 or not all(isinstance(side, (int, np.integer)) and side >= least for side in both):
        kind = "a positive int" if least == 1 else f"an int of at least {least}"
        raise ConfigError(f"{name} must be {kind} or (height, width), got {size!r}")
    return int(both[0]), int(both[1])


class PatchEmbed(Layer):
    """Cut each image into patches and project each to a token: a convolution whose stride is its kernel.

    im2col turns it into one product:   y = cols Wᵀ + b,   cols: (B, N, C·Ph·Pw), W: (D, C, Ph, Pw), y: (B, N, D).
    Backward is Linear's:   dW = Σ dyᵀ cols,   db = Σ dy,   dcols = dy W, folded back to (B, C, H, W).
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        norm_layer: Callable[..., Layer] | None = None,
        *,
        bias: bool = True,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        self.img_size, self.patch_size = pair(img_size, "img_size"), pair(patch_size, "patch_size")
        (H, W), (ph, pw) = self.img_size, self.patch_size
        if H % ph or W % pw:
            raise ConfigError(f"img_size={self.img_size} must be divisible by patch_size={self.patch_size}")
        self.grid_size = self.grid_for(self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = PatchProjection(in_chans, embed_dim, self.patch_size, bias=bias, dtype=dtype, seed=seed)
        self.norm = norm_layer(embed_dim, dtype=dtype) if norm_layer else Identity()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was made for."""
        return self.proj.weight.data.shape[1], *self.img_size

    def takes(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether it takes images of shape (C, H, W)."""
        return tuple(image_shape) == self.input_shape

    def forward(self, x, tape=FORGET):
        self._check(x)
        return self.norm.forward(self.proj.forward(x, tape), tape)

    def backward(self, dy, tape):
        return self.proj.backward(self.norm.backward(dy, tape), tape)

    def grid_for(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches in an image of (height, width)."""
        return tuple(side // patch for side, patch in zip(image_size, self.patch_size))

    def _check(self, x):
        if not hasattr(getattr(x, "dtype", None), "kind") or isinstance(x, np.ma.MaskedArray):
            raise DtypeError(
                f"{self.path}: got a {type(x).__name__}, expected an array of images; "
                "convert it, for example with numpy.asarray(x, 'float32')"
            )
        if x.dtype.kind != "f":
            raise DtypeError(
                f"{self.path}: got images of {x.dtype}, expected floating point; scale and convert them first, "
                "for example (x / 255).astype('float32')"
            )
        if x.ndim != 4 or not self.takes(x.shape[1:]):
            raise ShapeError(
                f"{self.path}: got images of shape {tuple(x.shape)}, "
                f"expected (batch, {', '.join(map(str, self.input_shape))}); "
                "resize them, or create the model with this img_size and in_chans"
            )
        if x.shape[0] == 0:
            raise InputError(f"{self.path}: got an empty batch, expected at least one image")
        if on_host(x) and not np.isfinite(x).all():  # on a device the look would stall the step
            raise InputError(
                f"{self.path}: the images hold NaN or infinite pixels; check how they were read and scaled"
            )


class DynamicPatchEmbed(PatchEmbed):
    """A PatchEmbed for images of any size that the patches divide."""

    def takes(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether it takes images of shape (C, H, W): of any size that the patches divide."""
        channels, *size = image_shape
        fits = [side > 0 and side % patch == 0 for side, patch in zip(size, self.patch_size)]
        return channels == self.input_shape[0] and all(fits)


class PatchProjection(Layer):
    """The product of PatchEmbed, with a convolution's weight (D, C, Ph, Pw)."""

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        patch_size: tuple[int, int],
        *,
        bias: bool = True,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        dtype, rng = as_dtype(dtype), make_rng(seed)
        shape = (embed_dim, in_chans, *patch_size)
        fan_in = in_chans * patch_size[0] * patch_size[1]
        self.weight = Parameter(uniform(rng, shape, fan_in, dtype))
        self.bias = Parameter(uniform(rng, embed_dim, fan_in, dtype)) if bias else None

    def forward(self, x, tape=FORGET):
        weight = self.weight.data
        cols = F.im2col(x.astype(weight.dtype, copy=False), weight.shape[2:])
        tape.push(self, cols, x.shape)
        return F.linear(cols, weight.reshape(len(weight), -1), self.bias.data if self.bias else None)

    def backward(self, dy, tape):
        cols, image_shape = tape.pop(self)
        weight = self.weight.data
        if tape.wants(self.weight):
            tape.add(self.weight, F.linear_weight_gradient(dy, cols).reshape(weight.shape))
        if self.bias and tape.wants(self.bias):
            tape.add(self.bias, F.sum_over_rows(dy))
        if not tape.wants_input(self):
            return None
        return F.col2im(F.linear_input_gradient(dy, weight.reshape(len(weight), -1)), weight.shape[2:], image_shape)

    def own_multiply_adds(self, y: Array, *inputs: Array) -> int:
        return y.size * math.prod(self.weight.data.shape[1:])
