"""From images to the tokens that a ViT works on.

Shapes: B batch, T class and other prefix tokens, N patches, D width.
"""

from collections.abc import Callable

import numpy as np

from ..backend import Array, array_module, to_host, to_module
from ..core import FORGET, Forget, Layer, Parameter, Seed, Tape, as_dtype, make_rng
from ..functional.resample import WAYS, resize_backward, resize_pos_embed
from .activations import Identity
from .checks import check_counts
from .dropout import Dropout
from .init import trunc_normal
from .norm import LayerNorm
from .patches import PatchEmbed


class Embed(Layer):
    """y = norm_pre(dropout([tokens, patches] + pos_embed)).   (B, C, H, W) -> (B, T+N, D)   (arXiv:2010.11929, eq. 1).

    patch_embed:    called with images; gives the patches (B, N, D).
    cls_token, dist_token, reg_tokens: which learned tokens stand before the patches, and how many registers.
    no_embed_class: the position embedding is for the patches alone.
    pre_norm:       a norm behind the sum (CLIP), made as norm_layer(dim, dtype=…).

    Backward: dpos = Σ dy over the batch,   dtoken the same at the token's place,   dpatches = the rest of dy.
    """

    transparent = True

    def __init__(
        self,
        patch_embed: PatchEmbed,
        dim: int,
        *,
        cls_token: bool = True,
        dist_token: bool = False,
        reg_tokens: int = 0,
        no_embed_class: bool = False,
        drop_rate: float = 0.0,
        pre_norm: bool = False,
        norm_layer: Callable[..., Layer] = LayerNorm,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        check_counts(0, reg_tokens=reg_tokens)
        dtype, rng = as_dtype(dtype), make_rng(seed)

        def tokens(count, std):
            return Parameter(trunc_normal(rng, (1, count, dim), std, dtype), decay=False) if count else None

        self.patch_embed = patch_embed
        self.cls_token = tokens(int(cls_token), 1e-6)
        self.dist_token = tokens(int(dist_token), 0.02)
        self.reg_token = tokens(reg_tokens, 1e-6)
        self.num_prefix_tokens = sum(token.data.shape[1] for token in self.prefix_tokens)
        self.num_prefix_positions = 0 if no_embed_class else self.num_prefix_tokens
        self.pos_embed = tokens(patch_embed.num_patches + self.num_prefix_positions, 0.02)
        self.pos_drop = Dropout(drop_rate)
        self.norm_pre = norm_layer(dim, dtype=dtype) if pre_norm else Identity()

    @property
    def prefix_tokens(self) -> list[Parameter]:
        """The learned tokens that stand before the patches: a list of parameters (1, n, D)."""
        return [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]

    def forward(self, x, tape=FORGET):
        patches = self.patch_embed.forward(x, tape.at(self.patch_embed))
        xp, B = array_module(patches), len(patches)
        tokens = [xp.broadcast_to(token.data, (B, *token.data.shape[1:])) for token in self.prefix_tokens]
        y = xp.concatenate([*tokens, patches], axis=1)
        y[:, self.num_prefix_tokens - self.num_prefix_positions :] += self.position(x.shape[2:], tape)
        return self.norm_pre.forward(self.pos_drop.forward(y, tape), tape)

    def backward(self, dy, tape):
        dy = self.pos_drop.backward(self.norm_pre.backward(dy, tape), tape)
        dpos, start = dy.sum(0, keepdims=True), 0
        self.position_backward(dpos[:, self.num_prefix_tokens - self.num_prefix_positions :], tape)
        for token in self.prefix_tokens:
            stop = start + token.data.shape[1]
            tape.add(token, dpos[:, start:stop])
            start = stop
        return self.patch_embed.backward(dy[:, start:], tape) if tape.reaches(self.patch_embed) else None

    def position(self, image_size: tuple[int, int], tape: Tape | Forget) -> Array:
        """The position embedding for images of that size: (1, positions, D)."""
        return self.pos_embed.data

    def position_backward(self, dpos: Array, tape: Tape) -> None:
        tape.add(self.pos_embed, dpos)


class DynamicEmbed(Embed):
    """Embed for images of any size that the patches divide: the position embedding is resized in each pass.

    Bicubic and antialiased as in timm (dynamic_img_size), and learned through the resize:  dpos = Rᵀ dpos', R the
    resize.
    """

    def position(self, image_size: tuple[int, int], tape: Tape | Forget) -> Array:
        own, grid = self.patch_embed.grid_size, self.patch_embed.grid_for(image_size)
        tape.push(self, grid)
        if grid == own:
            return self.pos_embed.data
        resized = resize_pos_embed(to_host(self.pos_embed.data), self.num_prefix_positions, own, grid, "timm")
        return to_module(resized, array_module(self.pos_embed.data))

    def position_backward(self, dpos: Array, tape: Tape) -> None:
        own, (grid,) = self.patch_embed.grid_size, tape.pop(self)
        if grid != own:
            tokens, dgrid = np.split(to_host(dpos)[0], [self.num_prefix_positions])
            dgrid = resize_backward(dgrid.reshape(*grid, -1), own, WAYS["timm"]).reshape(-1, dgrid.shape[-1])
            dpos = to_module(np.concatenate([tokens, dgrid])[None], array_module(dpos))
        tape.add(self.pos_embed, dpos)
