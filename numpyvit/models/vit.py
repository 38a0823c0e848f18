"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) and DeiT's distilled form (arXiv:2012.12877).

Shapes: B batch, T class and other prefix tokens, N patches, D width, K classes.
"""

from collections.abc import Callable, Iterable

import numpy as np

from ..backend import Array
from ..core import FORGET, Layer, Seed, Tape, as_dtype, make_rng
from ..data.preprocessing import Preprocessing
from ..errors import ConfigError
from ..layers import AverageHead, Block, ClassHead, DistilledHead, Embed, LayerNorm, PatchEmbed, Sequence
from ..layers.activations import GELU
from ..weights.adapt import fit_pos_embed
from .checks import check_patch, check_sizes, places
from .model import Model
from .vit_sizes import BASE, HUGE, LARGE, SMALL, TINY, count_multiply_adds, count_parameters, sizes


class VisionTransformer(Model):
    """Patches and learned tokens, plus position embedding, through `depth` blocks; a norm and a linear head.

    img_size, patch_size: int or (height, width).
    num_classes:          0 leaves the head out; the model then returns the pooled features.
    qk_scale:             factor on the attention scores instead of 1/√(D/H).
    representation_size:  width of a hidden tanh layer before the head; ignored when distilled.
    distilled:            a second token and head; on a tape forward returns the pair of logits, else their mean.
    drop_rate:            dropout after the position embedding, in the MLPs and after the attention's projection.
    attn_drop_rate:       dropout on the attention probabilities.
    drop_path_rate:       DropPath of the last block; it rises linearly from 0 at the first.
    norm_layer:           called as norm_layer(dim, dtype=…); act_layer: called without arguments.
    global_pool:          "token", the class token; or "avg", the mean of the patches, then a norm (timm's fc_norm).
    embed_layer, embed, block: what makes the patches, the tokens of them and each block.

    x: (B, in_chans, H, W) floating point -> logits (B, K). Initial values are timm's.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        representation_size: int | None = None,
        distilled: bool = False,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[..., Layer] | None = None,
        act_layer: Callable[[], Layer] | None = None,
        global_pool: str = "token",
        embed_layer: Callable[..., PatchEmbed] = PatchEmbed,
        *,
        embed: Callable[..., Embed] = Embed,
        block: Callable[..., Block] = Block,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        check_sizes(
            num_classes,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            hidden=embed_dim * mlp_ratio,
            representation_size=1 if representation_size is None else representation_size,
        )
        norm_layer, made = norm_layer or LayerNorm, dict(dtype=as_dtype(dtype), seed=make_rng(seed))
        patches = embed_layer(img_size, patch_size, in_chans, embed_dim, **made)
        self.embed = embed(patches, embed_dim, dist_token=distilled, drop_rate=drop_rate, norm_layer=norm_layer, **made)
        width = (embed_dim, num_heads, mlp_ratio, qkv_bias, qk_scale, drop_rate, attn_drop_rate)
        self.blocks = Sequence(
            block(*width, float(rate), act_layer or GELU, norm_layer, **made)
            for rate in np.linspace(0, drop_path_rate, depth)
        )
        if global_pool not in ("token", "avg") or (distilled and global_pool == "avg"):
            raise ConfigError(
                f"global_pool must be 'token', or 'avg' for a model that is not distilled; got {global_pool!r}"
            )
        if global_pool == "token" and self.embed.cls_token is None:
            raise ConfigError("class_token=False needs global_pool='avg'")
        made |= dict(norm_layer=norm_layer)
        self.distilled = distilled
        if distilled:
            self.classifier = DistilledHead(embed_dim, num_classes, **made)
        elif global_pool == "avg":
            prefix = self.embed.num_prefix_tokens
            self.classifier = AverageHead(embed_dim, num_classes, prefix, representation_size, **made)
        else:
            self.classifier = ClassHead(embed_dim, num_classes, representation_size, **made)
        self.set_paths()

    def forward(self, x, tape=FORGET):
        """(B, C, H, W) -> logits (B, K); in training those of a distilled model are a pair."""
        return self.classifier.forward(self.features(x, tape, self.classifier.reads), tape)

    def backward(self, dy, tape):
        return self.features_backward(self.classifier.backward(dy, tape), tape)

    def features(self, x, tape=FORGET, first=None):
        """(B, C, H, W) -> the tokens after the last block (B, T+N, D), or the `first` of them."""
        return self.blocks.forward(self.embed.forward(x, tape.at(self.embed)), tape, first)

    def features_backward(self, dy, tape):
        """The gradient of what `features` returned -> the gradient of the images, or None where nobody wants it."""
        dy = self.blocks.backward(dy, tape)
        return self.embed.backward(dy, tape) if tape.reaches(self.embed) else None

    def forward_features(self, x: Array) -> Array:
        """The tokens after the last block and the norm, as timm returns them: (B, T+N, D)."""
        return self.classifier.normalized(self.features(x))

    def forward_intermediates(self, x: Array, indices: Iterable[int] | None = None, norm: bool = False) -> list[Array]:
        """The tokens after each block, or after those in `indices` (negative ones count from the end).

        norm: put each through the final norm. -> list of (B, T+N, D).
        """
        wanted = places(indices, len(self.blocks), "blocks")
        found = self.blocks.outputs(self.embed(x))
        return [self.classifier.normalized(found[i]) if norm else found[i] for i in wanted]

    @property
    def has_class_token(self) -> bool:
        return self.cls_token is not None

    @property
    def attention_layers(self) -> list[Layer]:
        return [block.attn for block in self.blocks]

    def attention_on_grid(
        self, tape: Tape, image_size: tuple[int, int], patch: tuple[int, int] | None = None
    ) -> list[Array]:
        """What a pass on a tape with record_all looked at, block by block: [(B, H, rows, columns), …], 1 an even share.

        The class token's attention to the patches, or that of patch=(row, column); without a class token, the mean over
        all patches.
        """
        kept, grid, T = dict(tape.residuals()), self.grid_for(image_size), self.num_prefix_tokens
        if patch is not None:
            row, column = check_patch(patch, grid)
            start = T + row * grid[1] + column
            queries = slice(start, start + 1)
        else:
            queries = slice(0, 1) if self.has_class_token else slice(T, None)
        found = [layer.values_and_probabilities(kept[layer])[1] for layer in self.attention_layers]
        return [p[:, :, queries, T:].mean(2).reshape(*p.shape[:2], *grid) * p.shape[-1] for p in found]

    def parameter_depth(self, name: str) -> int:
        """0 for the embedding, i + 1 for the i-th block, one more for what follows the blocks."""
        if name.startswith("blocks."):
            return 1 + int(name.split(".")[1])
        embedding = name.startswith(("patch_embed.", "norm_pre.")) or name.endswith(("_token", "pos_embed"))
        return 0 if embedding else len(self.blocks) + 1

    def adapt_weights(self, arrays: dict, origin: str) -> None:
        """See Model; the position embedding is resized, as the file's library does."""
        super().adapt_weights(arrays, origin)
        fit_pos_embed(arrays, self.pos_embed.data.shape, self.num_prefix_positions, self.patch_embed.grid_size, origin)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let each block keep only its input for backward and run forward again there (see core.Recompute)."""
        self.blocks.set_recompute(enable)

    count_parameters = staticmethod(count_parameters)
    count_multiply_adds = staticmethod(count_multiply_adds)


class NarrowVisionTransformer(VisionTransformer):
    """A VisionTransformer of a few dozen to a few hundred units of width, to be trained from scratch.

    timm's deviation of 0.02 for every matrix suits width 768; at width 64 the residual branches contribute little, and
    the position embedding is negligible beside the patch embeddings. So here matrices in the blocks start at 1/√in
    (LeCun et al. 1998, "Efficient BackProp", §4.6) and the position embedding at 1. On MNIST the first epoch then ends
    at 95% instead of 76%.
    """

    def __init__(self, *args, seed: Seed = 0, **options) -> None:
        super().__init__(*args, seed=seed, **options)
        for block in self.blocks:
            for _, parameter in block.named_parameters():
                if parameter.data.ndim == 2:
                    parameter.data *= parameter.data.shape[1] ** -0.5 / 0.02
        self.pos_embed.data *= 1 / 0.02


def _vit(*row, crop_pct=0.9):
    return VisionTransformer, sizes(*row), Preprocessing(crop_pct=crop_pct)


def _narrow(*row, **options):
    return NarrowVisionTransformer, sizes(*row, num_classes=10, **options), Preprocessing()


# name: class, options, preprocessing. Names, sizes and defaults are timm's; those for 8, 28 and 32 pixels our own.
VARIANTS = {
    "vit_tiny_patch16_224": _vit(16, TINY),
    "vit_small_patch16_224": _vit(16, SMALL),
    "vit_small_patch32_224": _vit(32, SMALL),
    "vit_base_patch16_224": _vit(16, BASE),
    "vit_base_patch16_384": _vit(16, BASE, 384, crop_pct=1.0),
    "vit_base_patch32_224": _vit(32, BASE),
    "vit_large_patch16_224": _vit(16, LARGE),
    "vit_large_patch32_224": _vit(32, LARGE),
    "vit_huge_patch14_224": _vit(14, HUGE),
    "vit_micro_patch2_8": _narrow(2, (64, 4, 4), 8, in_chans=1, mlp_ratio=2.0),
    "vit_micro_patch7_28": _narrow(7, (64, 4, 4), 28, in_chans=1),
    "vit_micro_patch4_28": _narrow(4, (64, 6, 4), 28, in_chans=1, mlp_ratio=2.0),
    "vit_micro_patch4_32": _narrow(4, (96, 6, 4), 32, mlp_ratio=2.0),
    "vit_mini_patch4_32": _narrow(4, (192, 6, 3), 32),
}
