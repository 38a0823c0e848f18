"""What ViTs after the first have: LayerScale, normed queries and keys, register tokens, no class token."""

from functools import partial

import numpy as np

from ..backend import array_module, to_host, to_module
from ..core import FORGET, Parameter
from ..errors import ConfigError
from ..layers import DynamicPatchEmbed, QKNormAttention, ScaledBlock
from ..layers.attention import Block
from ..layers.init import trunc_normal
from ..resample import WAYS, resize_backward, resize_pos_embed
from .vit import VisionTransformer


class QKNormBlock(Block):
    attention = QKNormAttention


class ScaledQKNormBlock(ScaledBlock):
    attention = QKNormAttention


class ModernVisionTransformer(VisionTransformer):
    """A VisionTransformer with what DeiT-III (arXiv:2204.07118) and DINOv2 (arXiv:2304.07193, 2309.16588) add.

    init_values:    initial value of LayerScale's factors on both branches of a block; None leaves them out.
    qk_norm:        queries and keys are normed head by head.
    reg_tokens:     how many register tokens stand between the class token and the patches.
    no_embed_class: the position embedding is for the patches alone.
    class_token:    False leaves the class token out; then global_pool must be "avg".
    dynamic_img_size: images of any size that the patches divide; the position embedding is resized in each pass,
                    bicubic and antialiased as in timm, and learns through that.
    pre_norm:       a norm on the embedded tokens, before the first block; the patches then have no bias.
    """

    def __init__(
        self,
        *args,
        init_values=None,
        qk_norm=False,
        reg_tokens=0,
        no_embed_class=False,
        class_token=True,
        pre_norm=False,
        dynamic_img_size=False,
        dtype="float32",
        seed=0,
        **options,
    ):
        if options.get("distilled"):
            raise ConfigError("a distilled model has no register tokens and options like them; use VisionTransformer")
        if not class_token and options.get("global_pool", "token") != "avg":
            raise ConfigError("class_token=False needs global_pool='avg'")
        self.no_embed_class, self._reg_tokens, self._class_token = no_embed_class, reg_tokens, class_token
        if init_values is not None:
            self.make_block = partial(ScaledQKNormBlock if qk_norm else ScaledBlock, init_values=init_values)
        elif qk_norm:
            self.make_block = QKNormBlock
        if dynamic_img_size:
            options["embed_layer"] = DynamicPatchEmbed
        super().__init__(*args, dtype=dtype, seed=seed, **options)
        self.norm_pre = None
        if pre_norm:
            width = self.patch_embed.proj.weight.data.shape[0]
            self.patch_embed.proj.bias = None  # as in timm and CLIP: the norm follows at once
            self.norm_pre = (options.get("norm_layer") or type(self.blocks[0].norm1))(width, dtype=dtype)
        self.set_paths()

    def make_tokens(self, embed_dim, dtype, rng):
        if not self._class_token:
            self.cls_token = None
        self.reg_token = None
        if self._reg_tokens:
            self.reg_token = Parameter(trunc_normal(rng, (1, self._reg_tokens, embed_dim), 1e-6, dtype), decay=False)

    @property
    def prefix_tokens(self):
        return [token for token in (self.cls_token, self.reg_token) if token is not None]

    @property
    def num_placed_tokens(self):
        return 0 if self.no_embed_class else self.num_prefix_tokens

    def embed(self, x, tape=FORGET):
        x = super().embed(x, tape)
        return x if self.norm_pre is None else self.norm_pre.forward(x, tape)

    def embed_backward(self, dy, tape):
        return super().embed_backward(dy if self.norm_pre is None else self.norm_pre.backward(dy, tape), tape)

    def position(self, image_size, tape):
        own, grid = self.patch_embed.grid_size, self._grid(image_size)
        tape.push(self, grid)
        if grid == own:
            return self.pos_embed.data
        resized = resize_pos_embed(to_host(self.pos_embed.data), self.num_placed_tokens, own, grid, "timm")
        return to_module(resized, array_module(self.pos_embed.data))

    def position_backward(self, dpos, tape):
        own, (grid,) = self.patch_embed.grid_size, tape.pop(self)
        if grid != own:
            tokens, dgrid = np.split(to_host(dpos)[0], [self.num_placed_tokens])
            dgrid = resize_backward(dgrid.reshape(*grid, -1), own, WAYS["timm"]).reshape(-1, dgrid.shape[-1])
            dpos = to_module(np.concatenate([tokens, dgrid])[None], array_module(dpos))
        tape.add(self.pos_embed, dpos)

    def _grid(self, image_size):
        return tuple(side // patch for side, patch in zip(image_size, self.patch_embed.patch_size))
