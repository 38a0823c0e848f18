"""From images to tokens.

Shapes: B batch, C channels, H×W pixels, Ph×Pw patch, N = H/Ph · W/Pw patches, D width.
"""

import numpy as np

from .. import functional as F
from ..backend import on_host
from ..core import FORGET, Layer, Parameter, as_dtype, make_rng
from ..errors import ConfigError, DtypeError, InputError, ShapeError
from .activations import Identity
from .init import uniform


def pair(size, name, least=1):
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
        img_size=224,
        patch_size=16,
        in_chans=3,
        embed_dim=768,
        norm_layer=None,
        *,
        bias=True,
        dtype="float32",
        seed=0,
    ):
        self.img_size, self.patch_size = pair(img_size, "img_size"), pair(patch_size, "patch_size")
        (H, W), (ph, pw) = self.img_size, self.patch_size
        if H % ph or W % pw:
            raise ConfigError(f"img_size={self.img_size} must be divisible by patch_size={self.patch_size}")
        self.grid_size = self.grid_for(self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = PatchProjection(in_chans, embed_dim, self.patch_size, bias=bias, dtype=dtype, seed=seed)
        self.norm = norm_layer(embed_dim, dtype=dtype) if norm_layer else Identity()

    def forward(self, x, tape=FORGET):
        self._check(x)
        return self.norm.forward(self.proj.forward(x, tape), tape)

    def backward(self, dy, tape):
        return self.proj.backward(self.norm.backward(dy, tape), tape)

    def grid_for(self, image_size):
        """(rows, columns) of patches in an image of (height, width)."""
        return tuple(side // patch for side, patch in zip(image_size, self.patch_size))

    def _check(self, x):
        self._check_for(x, self.img_size)

    def _check_for(self, x, img_size):
        expected = (self.proj.weight.data.shape[1], *img_size)
        if not hasattr(x, "dtype") or isinstance(x, np.ma.MaskedArray):
            raise DtypeError(
                f"{self.path}: got a {type(x).__name__}, expected an array of images; "
                "convert it, for example with numpy.asarray(x, 'float32')"
            )
        if x.dtype.kind != "f":
            raise DtypeError(
                f"{self.path}: got images of {x.dtype}, expected floating point; scale and convert them first, "
                "for example (x / 255).astype('float32')"
            )
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ShapeError(
                f"{self.path}: got images of shape {tuple(x.shape)}, "
                f"expected (batch, {', '.join(map(str, expected))}); "
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

    def _check(self, x):
        size = tuple(getattr(x, "shape", ())[2:])
        if len(size) == 2 and not (size[0] % self.patch_size[0] or size[1] % self.patch_size[1]):
            self._check_for(x, size)
        else:
            self._check_for(x, self.img_size)


class PatchProjection(Layer):
    """The product of PatchEmbed, with a convolution's weight (D, C, Ph, Pw)."""

    def __init__(self, in_chans, embed_dim, patch_size, *, bias=True, dtype="float32", seed=0):
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
            tape.add(self.bias, F.sum_rows(dy))
        if not tape.wants_input(self):
            return None
        return F.col2im(F.linear_input_gradient(dy, weight.reshape(len(weight), -1)), weight.shape[2:], image_shape)
