"""Attention inside windows, the block of Swin around it, and the merging of patches (arXiv:2103.14030).

Shapes: B batch, H×W rows and columns of tokens, C channels, n windows a map, N tokens a window, d channels a head.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from .. import functional as F
from ..backend import Array, array_module, to_module
from ..core import FORGET, Buffer, Layer, Parameter, Seed, as_dtype, make_rng
from ..errors import ConfigError, ShapeError
from .activations import GELU, Identity
from .checks import check_width
from .dropout import Dropout, DropPath
from .heads import linear_or_identity
from .init import trunc_normal
from .linear import Linear, Mlp
from .norm import LayerNorm
from .patches import pair
from .sequence import Sequence


class WindowAttention(Layer):
    """Each token looks at the tokens of its window: per head, out = softmax(s q kᵀ + b + mask) v   (§3.2, eq. 4).

    q, k, v are the three parts of one product, qkv x; heads are joined again and go through proj. s is 1/√d.
    b is learned, one number for each head and relative position: b[i, j] = table[i − j].

    Backward as for Attention; ds, the gradient of the scores, is that of b, so   dtable[δ] = Σ ds[i, j] over all
    windows and all i − j = δ.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        window_size: int | tuple[int, int] = 7,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        if num_heads < 1 or (head_dim is None and dim % num_heads):
            raise ConfigError(f"the width {dim} must be divisible by num_heads={num_heads}, or head_dim be given")
        dtype, rng = as_dtype(dtype), make_rng(seed)
        self.dim, self.num_heads, self.window_size = dim, num_heads, pair(window_size, "window_size")
        head_dim = head_dim or dim // num_heads
        self.scale = head_dim**-0.5
        self.qkv = Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias, dtype=dtype, seed=rng)
        rows, columns = map(F.relative_positions, self.window_size)
        self.relative_position_bias_table = Parameter(
            trunc_normal(rng, (len(rows) * len(columns), num_heads), 0.02, dtype), decay=False
        )
        self.rows, self.columns = Buffer(rows.astype(dtype)), Buffer(columns.astype(dtype))
        self.attn_drop = Dropout(attn_drop)
        self.proj = Linear(num_heads * head_dim, dim, dtype=dtype, seed=rng)
        self.proj_drop = Dropout(proj_drop)

    def forward(self, x, tape=FORGET, mask=None):
        """x: windows (B·n, N, C); mask: (n, 1, N, N), added to the scores of each map's n windows."""
        N = self.window_size[0] * self.window_size[1]
        if x.ndim != 3 or x.shape[1] != N:
            raise ShapeError(f"{self.path}: got an array of shape {x.shape}, expected (windows, {N}, {self.dim})")
        bias = F.relative_bias(self.relative_position_bias_table.data, self.rows.data, self.columns.data)
        q, k, v = F.split_heads(self.qkv.forward(x, tape), 3, self.num_heads)
        if mask is not None:
            bias = mask + bias
            q, k, v = (part.reshape(-1, len(mask), *part.shape[1:]) for part in (q, k, v))  # B, n, heads, N, d
        keep = self.attn_drop.mask((*q.shape[:-1], N), x.dtype, tape)
        out, p = F.attention(q, k, v, self.scale, bias, keep)
        tape.push(self, q, k, v, p, keep)
        out = F.join_heads((out.reshape(-1, *out.shape[-3:]),))
        return self.proj_drop.forward(self.proj.forward(out, tape), tape)

    def backward(self, dy, tape):
        dout = self.proj.backward(self.proj_drop.backward(dy, tape), tape)
        (dout,) = F.split_heads(dout, 1, self.num_heads)
        q, k, v, p, keep = tape.pop(self)
        dqkv = array_module(dy).empty((*dy.shape[:2], len(self.qkv.weight.data)), dtype=dy.dtype)
        parts = [part.reshape(q.shape) for part in F.split_heads(dqkv, 3, self.num_heads)]
        *_, ds = F.attention_backward(dout.reshape(q.shape), q, k, v, p, self.scale, keep, out=parts)
        if tape.wants(self.relative_position_bias_table):
            scores = ds.shape[-3:]
            dbias = F.sum_over_rows(ds.reshape(-1, math.prod(scores))).reshape(scores)
            dtable = F.relative_bias_backward(dbias, self.rows.data, self.columns.data)
            tape.add(self.relative_position_bias_table, dtable)
        return self.qkv.backward(dqkv, tape)

    def own_multiply_adds(self, y: Array, x: Array, *others: Array) -> int:
        """Of q kᵀ and p v, for each pair of a query and a key of a window."""
        windows, N, _ = x.shape
        return 2 * windows * N * N * self.proj.weight.data.shape[1]

    @staticmethod
    def probabilities(residuals: tuple) -> Array:
        """What forward kept on the tape -> the attention probabilities (B·n, heads, N, N), window by window."""
        p = residuals[3]
        return p.reshape(-1, *p.shape[-3:])


class SwinBlock(Layer):
    """y = x + attn(norm1 x) in windows, then y + mlp(norm2 y); DropPath on both branches   (§3.2, eq. 3).

    Every other block shifts its windows by shift_size, so that tokens meet across their borders; a mask keeps apart
    what came round from the other side. Windows that do not divide the map are padded with zeros behind norm1.

    input_resolution: (rows, columns) of the map that windows and mask are made for; maps of other sizes are taken.
    window_size:      int or (rows, columns). Along an axis where the map is not longer than the window, the window
                      shrinks to the map and is not shifted, unless always_partition.
    pad_first:        pad before the shift, and rather than shrink the window, as torchvision does; else as timm does.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: int | tuple[int, int],
        num_heads: int,
        head_dim: int | None = None,
        window_size: int | tuple[int, int] = 7,
        shift_size: int | tuple[int, int] = 0,
        always_partition: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[..., Layer] = GELU,
        norm_layer: Callable[..., Layer] | None = None,
        *,
        pad_first: bool = False,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        dtype, rng, norm_layer = as_dtype(dtype), make_rng(seed), norm_layer or swin_norm
        self.dim, self.input_resolution, self.pad_first = dim, pair(input_resolution, "input_resolution"), pad_first
        self.window_size, self.shift_size = pair(window_size, "window_size"), pair(shift_size, "shift_size", least=0)
        if not always_partition:
            self._fit_windows()
        self.norm1 = norm_layer(dim, dtype=dtype)
        self.attn = WindowAttention(
            dim, num_heads, head_dim, self.window_size, qkv_bias, attn_drop, proj_drop, dtype=dtype, seed=rng
        )
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(dim, dtype=dtype)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, dtype=dtype, seed=rng)
        self.drop_path2 = DropPath(drop_path)
        mask = F.shift_mask(self.input_resolution, self.window_size, self.shift_size)
        self.attn_mask = None if mask is None else Buffer(mask.astype(dtype))

    def _fit_windows(self):
        """An axis that is one window needs no shift, and one shorter than that no padding: the window shrinks."""
        axes = list(zip(self.input_resolution, self.window_size, self.shift_size))
        self.shift_size = tuple(shift if length > window else 0 for length, window, shift in axes)
        if not self.pad_first:
            self.window_size = tuple(min(length, window) for length, window, _ in axes)

    def mask(self, x: Array) -> Array | None:
        """The mask for maps like x: (n, 1, N, N), or None where windows are not shifted."""
        size = x.shape[1:3]
        if self.attn_mask is None or size == self.input_resolution:
            return self.attn_mask and self.attn_mask.data
        mask = F.shift_mask(size, self.window_size, self.shift_size)
        return to_module(mask.astype(self.attn_mask.data.dtype), array_module(x))

    def forward(self, x, tape=FORGET):
        _check_map(self, x, self.dim)
        cut = (self.window_size, self.shift_size)
        windows = F.to_windows(self.norm1.forward(x, tape), *cut, self.pad_first)
        windows = self.attn.forward(windows, tape, self.mask(x))
        branch = F.from_windows(windows, *cut, x.shape[1:3], self.pad_first)
        x = x + self.drop_path1.forward(branch, tape)
        branch = self.mlp.forward(self.norm2.forward(x, tape), tape)
        return x + self.drop_path2.forward(branch, tape)

    def attention_on_map(self, residuals: tuple, size: tuple[int, int], token: tuple[int, int] | None = None) -> Array:
        """What the attention kept for maps of `size`, stitched together: (B, heads, *size), 1 an even share.

        What each token receives from those of its window; or with token=(row, column), what that token gives to each,
        0 outside its window.
        """
        p = self.attn.probabilities(residuals)
        xp = array_module(p)
        queries = xp.ones(size, p.dtype) if token is None else xp.zeros(size, p.dtype)
        if token is not None:
            queries[token] = p.shape[-1]  # an even share is 1/N
        return F.attention_from(p, queries, self.window_size, self.shift_size, self.pad_first)

    def attention_in_windows(self, residuals: tuple, size: tuple[int, int]) -> tuple[np.ndarray, Array]:
        """What the attention kept for one map of `size`: (n, N) and (heads, n, N, N).

        The first tells which token of the map, row by row, each of a window is, −1 for padding.
        """
        places = np.arange(1, size[0] * size[1] + 1).reshape(1, *size, 1)  # padding is 0
        tokens = F.to_windows(places, self.window_size, self.shift_size, self.pad_first)[..., 0] - 1
        return tokens, self.attn.probabilities(residuals).swapaxes(0, 1)

    def backward(self, dy, tape):
        cut = (self.window_size, self.shift_size)
        dy = dy + self.norm2.backward(self.mlp.backward(self.drop_path2.backward(dy, tape), tape), tape)
        windows = F.to_windows(self.drop_path1.backward(dy, tape), *cut, self.pad_first)
        windows = self.attn.backward(windows, tape)
        branch = F.from_windows(windows, *cut, dy.shape[1:3], self.pad_first)
        return dy + self.norm1.backward(branch, tape)


class PatchMerging(Layer):
    """y = reduction(norm(merged x)), merged each 2×2 tokens as one of 4C channels: (B, H, W, C) -> (B, H/2, W/2, out).

    An odd row or column is padded with zeros. The order is (0,0), (1,0), (0,1), (1,1); reduction has no bias.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int | None = None,
        norm_layer: Callable[..., Layer] | None = None,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        self.dim = dim
        self.norm = (norm_layer or swin_norm)(4 * dim, dtype=dtype)
        self.reduction = Linear(4 * dim, out_dim or 2 * dim, bias=False, dtype=dtype, seed=seed)

    def forward(self, x, tape=FORGET):
        _check_map(self, x, self.dim)
        tape.push(self, x.shape[1:3])
        return self.reduction.forward(self.norm.forward(F.merge_patches(x), tape), tape)

    def backward(self, dy, tape):
        dy = self.norm.backward(self.reduction.backward(dy, tape), tape)
        (size,) = tape.pop(self)
        return F.merge_patches_backward(dy, size)


class SwinStage(Layer):
    """Blocks on maps of one size, each second one shifted, behind the merging of patches.

    downsample: a PatchMerging, or None for the first stage. blocks: SwinBlocks.
    """

    def __init__(
        self, downsample: PatchMerging | None, blocks: Iterable[SwinBlock], *, dtype: str = "float32", seed: Seed = 0
    ):
        super().__init__(dtype=dtype, seed=seed)
        self.downsample, self.blocks = downsample or Identity(), Sequence(blocks)

    def forward(self, x, tape=FORGET):
        return self.blocks.forward(self.downsample.forward(x, tape.at(self.downsample)), tape)

    def backward(self, dy, tape):
        dy = self.blocks.backward(dy, tape)
        return self.downsample.backward(dy, tape) if tape.reaches(self.downsample) else None


class MapHead(Layer):
    """y = fc(drop(mean of the tokens)).   (B, H, W, C) -> (B, K);   each token gets dmean/(H·W)."""

    def __init__(
        self, in_features: int, num_classes: int, drop_rate: float = 0.0, *, dtype: str = "float32", seed: Seed = 0
    ):
        self.dim, self.drop = in_features, Dropout(drop_rate)
        self.fc = linear_or_identity(in_features, num_classes, dtype, make_rng(seed))

    def forward(self, x, tape=FORGET):
        _check_map(self, x, self.dim)
        tape.push(self, x.shape)
        return self.fc.forward(self.drop.forward(x.mean((1, 2)), tape), tape)

    def backward(self, dy, tape):
        dy = self.drop.backward(self.fc.backward(dy, tape), tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).empty(shape, dtype=dy.dtype)
        dx[...] = (dy / (shape[1] * shape[2]))[:, None, None]
        return dx


def swin_norm(dim: int, *, dtype: str = "float32") -> LayerNorm:
    """Swin's LayerNorm, whose ε is PyTorch's 1e-5."""
    return LayerNorm(dim, 1e-5, dtype=dtype)


def _check_map(layer, x, width):
    check_width(layer, x, width)
    if x.ndim != 4:
        raise ShapeError(f"{layer.path}: got an array of shape {x.shape}, expected (batch, rows, columns, {width})")
