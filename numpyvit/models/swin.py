"""The Swin Transformer (Liu et al. 2021, arXiv:2103.14030): attention in shifted windows, on maps that get coarser.

Shapes: B batch, C image channels, H×W pixels, D width of the first stage, K classes; stage s has maps of
(H/(P·2ˢ), W/(P·2ˢ)) tokens of width D·2ˢ.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from ..backend import Array
from ..core import FORGET, Layer, Seed, as_dtype, make_rng
from ..data.preprocessing import Preprocessing
from ..layers import DynamicPatchEmbed, Linear, MapHead, PatchEmbed, PatchMerging, Sequence, SwinBlock, SwinStage
from ..layers.window import swin_norm
from ..weights.swin import fit_windows
from .checks import check_sizes, places
from .model import IMAGENET, Model
from .swin_attention import attention_in_windows, attention_on_grid
from .swin_sizes import coarser, count_multiply_adds, count_parameters, stage_sizes

_SMALLEST_MAP = 100_000  # numbers of a shard in the last stage, whose calls are the shortest


class SwinTransformer(Model):
    """Patches through stages of blocks with windowed attention, each stage at half the resolution and twice the width.

    img_size, patch_size: int or (height, width). The grid of patches may have any size: where windows do not divide
                       it, it is padded, and where it is smaller, they shrink to it.
    num_classes:       0 leaves the head out; the model then returns the mean of the last map.
    embed_dim, depths, num_heads: width of the first stage; blocks and heads of each stage.
    window_size:       int or (rows, columns), or one of these for each stage.
    mlp_ratio:         width of the MLPs over that of the stage; one for all or for each stage.
    drop_rate:         dropout before the head; proj_drop_rate: in the MLPs and after the attention's projection.
    attn_drop_rate:    dropout on the attention probabilities.
    drop_path_rate:    DropPath of the last block; it rises linearly from 0 at the first.
    norm_layer:        called as norm_layer(dim, dtype=…).
    head_dim:          width of a head, one for all or for each stage; default the stage's width over its heads.
    always_partition:  keep windows larger than the map, padded and shifted.
    dynamic_img_size:  take images of any size that the patches divide; strict_img_size=False says the same.
    pad_first:         pad before the shift, and rather than shrink windows, as torchvision does; timm shifts first.

    x: (B, in_chans, H, W) floating point -> logits (B, K). Names, options and initial values are timm's.
    """

    class_layers = ("head.fc",)

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: int | tuple[int, ...] = (3, 6, 12, 24),
        window_size: int | tuple = 7,
        mlp_ratio: float | tuple[float, ...] = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_layer: Callable[..., Layer] | None = None,
        *,
        proj_drop_rate: float = 0.0,
        head_dim: int | tuple[int, ...] | None = None,
        always_partition: bool = False,
        strict_img_size: bool = True,
        dynamic_img_size: bool = False,
        pad_first: bool = False,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        norm_layer, made = norm_layer or swin_norm, dict(dtype=as_dtype(dtype), seed=make_rng(seed))
        patches = DynamicPatchEmbed if dynamic_img_size or not strict_img_size else PatchEmbed
        stages = stage_sizes(embed_dim, depths, num_heads, head_dim, window_size, mlp_ratio)
        for stage in stages:
            sizes = dict(in_chans=in_chans, embed_dim=embed_dim, depths=stage.depth, num_heads=stage.heads)
            check_sizes(num_classes, hidden=stage.dim * stage.mlp_ratio, **sizes)
        self.patch_embed = patches(img_size, patch_size, in_chans, embed_dim, norm_layer, **made)
        rates = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        options = dict(
            always_partition=always_partition,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop_rate,
            attn_drop=attn_drop_rate,
            norm_layer=norm_layer,
            pad_first=pad_first,
            **made,
        )

        def swin_stage(i, stage):
            merging = PatchMerging(stage.dim // 2, stage.dim, norm_layer, **made) if i else None
            grid = coarser(self.patch_embed.grid_size, i)
            sizes = (stage.dim, grid, stage.heads, stage.head_dim, stage.window)
            shifts = [(0, 0), tuple(side // 2 for side in stage.window)]
            return SwinStage(
                merging,
                [
                    SwinBlock(*sizes, shifts[j % 2], mlp_ratio=stage.mlp_ratio, drop_path=next(rates), **options)
                    for j in range(stage.depth)
                ],
            )

        self.layers = Sequence(swin_stage(i, stage) for i, stage in enumerate(stages))
        self.num_classes, self.num_features = num_classes, stages[-1].dim
        smallest = self.num_features * math.prod(coarser(self.patch_embed.grid_size, len(stages) - 1))
        self.min_shard = _SMALLEST_MAP * math.prod(self.input_shape) // smallest
        self.norm = norm_layer(self.num_features, dtype=dtype)
        self.head = MapHead(self.num_features, num_classes, drop_rate, **made)
        self.set_paths()

    def forward(self, x, tape=FORGET):
        """(B, C, H, W) -> logits (B, K)."""
        return self.head.forward(self.norm.forward(self.features(x, tape), tape), tape)

    def backward(self, dy, tape):
        return self.features_backward(self.norm.backward(self.head.backward(dy, tape), tape), tape)

    def features(self, x, tape=FORGET):
        """(B, C, H, W) -> the map after the last stage, before the norm: (B, rows, columns, num_features)."""
        return self.layers.forward(self._embed(x, tape), tape)

    def features_backward(self, dy, tape):
        """The gradient of what `features` returned -> the gradient of the images, or None where nobody wants it."""
        return self._embed_backward(self.layers.backward(dy, tape), tape)

    def pyramid(self, x, tape=FORGET, stages=None):
        """The map after each stage, or after the first `stages`: what a detector's neck or a segmentation stands on.

        (B, C, H, W) -> list of (B, width, rows, columns), each half as fine and twice as wide as the one before.
        """
        return [level.transpose(0, 3, 1, 2) for level in self.layers.outputs(self._embed(x, tape), tape, stages)]

    def pyramid_backward(self, dlevels, tape):
        """The gradients of what `pyramid` returned -> that of the images, as for features_backward.

        They add up at each stage. One may be None where a map was not used, but not the last.
        """
        dmaps = [None if dlevel is None else dlevel.transpose(0, 2, 3, 1) for dlevel in dlevels]
        return self._embed_backward(self.layers.outputs_backward(dmaps, tape), tape)

    def _embed(self, x, tape):
        """(B, C, H, W) -> the first map (B, rows, columns, embed_dim)."""
        tokens = self.patch_embed.forward(x, tape.at(self.patch_embed))
        return tokens.reshape(len(x), *self.grid_for(x.shape[2:]), -1)

    def _embed_backward(self, dy, tape):
        if not tape.reaches(self.patch_embed):
            return None
        return self.patch_embed.backward(dy.reshape(len(dy), -1, dy.shape[-1]), tape)

    def forward_features(self, x: Array) -> Array:
        """The last map behind the norm, as timm returns it: (B, rows, columns, num_features)."""
        return self.norm(self.features(x))

    def forward_intermediates(self, x: Array, indices: Iterable[int] | None = None, norm: bool = False) -> list[Array]:
        """The pyramid: the map after each stage, or after those in `indices` (negative ones count from the end).

        norm: put the last one through the norm. -> list of (B, width, rows, columns), as timm has them.
        """
        wanted = places(indices, len(self.layers), "stages")
        found = self.layers.outputs(self._embed(x, FORGET))
        if norm:
            found[-1] = self.norm(found[-1])
        return [found[i].transpose(0, 3, 1, 2) for i in wanted]

    @property
    def attention_layers(self) -> list[Layer]:
        return [block.attn for stage in self.layers for block in stage.blocks]

    def parameter_depth(self, name: str) -> int:
        """0 for the embedding, i + 1 for the i-th block of all stages, one more for what follows the blocks.

        A merging of patches belongs to the block behind it.
        """
        before = np.cumsum([0, *(len(stage.blocks) for stage in self.layers)]).tolist()
        part, *rest = name.split(".")
        if part != "layers":
            return 0 if part == "patch_embed" else before[-1] + 1
        return 1 + before[int(rest[0])] + (int(rest[2]) if rest[1] == "blocks" else 0)

    def adapt_weights(self, arrays: dict, origin: str) -> None:
        """See Model; tables of relative position bias are resized."""
        super().adapt_weights(arrays, origin)
        fit_windows(self, arrays)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let each block keep only its input for backward and run forward again there (see core.Recompute)."""
        for stage in self.layers:
            stage.blocks.set_recompute(enable)

    attention_on_grid, attention_in_windows = attention_on_grid, attention_in_windows
    count_parameters = staticmethod(count_parameters)
    count_multiply_adds = staticmethod(count_multiply_adds)


class NarrowSwinTransformer(SwinTransformer):
    """A SwinTransformer of a few dozen to a few hundred units of width, to be trained from scratch.

    Matrices in the stages start at 1/√in instead of timm's 0.02, as in NarrowVisionTransformer.
    """

    def __init__(self, *args, seed: Seed = 0, **options) -> None:
        super().__init__(*args, seed=seed, **options)
        for _, layer in self.layers.named_layers():
            if isinstance(layer, Linear):
                layer.weight.data *= layer.weight.data.shape[1] ** -0.5 / 0.02


_TINY = (96, (2, 2, 6, 2), (3, 6, 12, 24))
_SMALL = (96, (2, 2, 18, 2), (3, 6, 12, 24))
_BASE = (128, (2, 2, 18, 2), (4, 8, 16, 32))


def _sizes(patch_size, window_size, img_size, size):
    embed_dim, depths, num_heads = size
    named = dict(img_size=img_size, patch_size=patch_size, window_size=window_size)
    return {**named, "embed_dim": embed_dim, "depths": depths, "num_heads": num_heads}


def _swin(*row, crop_pct=0.9):
    return SwinTransformer, _sizes(*row), replace(IMAGENET, crop_pct=crop_pct)


def _narrow(*row):
    return NarrowSwinTransformer, {**_sizes(*row), "num_classes": 10, "mlp_ratio": 2.0}, Preprocessing()


# name: class, options and preprocessing. Names and sizes are timm's; those for 32 pixels are our own.
VARIANTS = {
    "swin_tiny_patch4_window7_224": _swin(4, 7, 224, _TINY),
    "swin_small_patch4_window7_224": _swin(4, 7, 224, _SMALL),
    "swin_base_patch4_window7_224": _swin(4, 7, 224, _BASE),
    "swin_base_patch4_window12_384": _swin(4, 12, 384, _BASE, crop_pct=1.0),
    "swin_micro_patch2_window4_32": _narrow(2, 4, 32, (32, (2, 4, 2), (1, 2, 4))),
    "swin_mini_patch2_window4_32": _narrow(2, 4, 32, (96, (2, 6, 4), (3, 6, 12))),
}
