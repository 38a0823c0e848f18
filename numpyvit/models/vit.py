"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) and DeiT's distilled form (arXiv:2012.12877).

Shapes: B batch, N patches, T class and distillation tokens, D width, K classes.
"""

import inspect

import numpy as np

from .. import functional as F
from ..backend import array_module, on_host
from ..core import FORGET, Checkpoint, Layer, Parameter, as_dtype, make_rng
from ..errors import ConfigError
from ..layers import GELU, Attention, Block, Dropout, Identity, LayerNorm, Linear, PatchEmbed, Tanh
from ..layers.init import trunc_normal


class VisionTransformer(Layer):
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

    x: (B, in_chans, H, W) floating point -> logits (B, K). Initial values are timm's.
    """

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_classes=1000,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4.0,
        qkv_bias=True,
        qk_scale=None,
        representation_size=None,
        distilled=False,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=None,
        act_layer=None,
        global_pool="token",
        embed_layer=PatchEmbed,
        *,
        dtype="float32",
        seed=0,
    ):
        if global_pool not in ("token", "avg") or (distilled and global_pool == "avg"):
            raise ConfigError(
                f"global_pool must be 'token', or 'avg' for a model that is not distilled; got {global_pool!r}"
            )
        sizes = dict(in_chans=in_chans, embed_dim=embed_dim, depth=depth, num_heads=num_heads)
        for name, value in {**sizes, "representation_size": representation_size or 1}.items():
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigError(f"{name} must be at least 1 and an int, got {value!r}")
        if not isinstance(num_classes, (int, np.integer)) or num_classes < 0 or not embed_dim * mlp_ratio >= 1:
            raise ConfigError(f"num_classes and mlp_ratio must not be negative, got {num_classes!r} and {mlp_ratio!r}")
        norm_layer, act_layer = norm_layer or LayerNorm, act_layer or GELU
        dtype, rng = as_dtype(dtype), make_rng(seed)
        self.patch_embed = embed_layer(img_size, patch_size, in_chans, embed_dim, dtype=dtype, seed=rng)
        self.cls_token = Parameter(trunc_normal(rng, (1, 1, embed_dim), 1e-6, dtype), decay=False)
        self.dist_token = None
        if distilled:
            self.dist_token = Parameter(trunc_normal(rng, (1, 1, embed_dim), 0.02, dtype), decay=False)
        self.make_tokens(embed_dim, dtype, rng)
        places = self.patch_embed.num_patches + self.num_placed_tokens
        self.pos_embed = Parameter(trunc_normal(rng, (1, places, embed_dim), 0.02, dtype), decay=False)
        self.pos_drop = Dropout(drop_rate)
        self.blocks = [
            self.make_block(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias,
                qk_scale,
                drop_rate,
                attn_drop_rate,
                float(rate),
                act_layer,
                norm_layer,
                dtype=dtype,
                seed=rng,
            )
            for rate in np.linspace(0, drop_path_rate, depth)
        ]
        average = global_pool == "avg"
        self.norm = Identity() if average else norm_layer(embed_dim, dtype=dtype)
        self.fc_norm = norm_layer(embed_dim, dtype=dtype) if average else Identity()
        self.pre_logits, features = Identity(), embed_dim
        if representation_size and not distilled:
            self.pre_logits, features = (
                PreLogits(embed_dim, representation_size, dtype=dtype, seed=rng),
                representation_size,
            )

        def head():
            return Linear(features, num_classes, dtype=dtype, seed=rng) if num_classes else Identity()

        self.head = head()
        self.head_dist = head() if distilled else None
        self.global_pool, self.num_classes, self.num_features = global_pool, num_classes, features
        self._checkpoints = None
        self.set_paths()

    def set_grad_checkpointing(self, enable=True):
        """Let each block keep only its input for backward and run forward again there (see core.Checkpoint)."""
        self._checkpoints = [Checkpoint(block) for block in self.blocks] if enable else None

    @property
    def _stages(self):
        if self._checkpoints is None:
            return self.blocks
        if [stage.layer for stage in self._checkpoints] != self.blocks:  # blocks were replaced since
            self.set_grad_checkpointing()
        return self._checkpoints

    make_block = staticmethod(Block)  # hooks for subclasses: the class of a block,

    def make_tokens(self, embed_dim, dtype, rng):
        """and further tokens."""

    @property
    def prefix_tokens(self):
        """The learned tokens that stand before the patches: a list of parameters (1, n, D)."""
        return [token for token in (self.cls_token, self.dist_token) if token is not None]

    @property
    def num_prefix_tokens(self):
        return sum(token.data.shape[1] for token in self.prefix_tokens)

    @property
    def num_placed_tokens(self):
        """How many of them have a row in the position embedding."""
        return self.num_prefix_tokens

    @property
    def num_pooled_tokens(self):
        """How many of the first tokens the head needs; None for all. A class with a `pool` of its own gets all."""
        if type(self).pool is not VisionTransformer.pool:
            return None
        return {"token": 1 if self.head_dist is None else 2, "avg": None}[self.global_pool]

    def forward(self, x, tape=FORGET):
        """The last block computes only the tokens that the head reads, an exact saving."""
        first = self.first_trained(tape)
        x = self.embed(x, tape if first == 0 else tape.forgetting())
        if len(x) == 1 and on_host(x) and not tape.keeps:
            x = F.features_first(x)
        x = self.encode(x, tape, None if tape.complete else self.num_pooled_tokens, first)
        return self.classify(x, tape)

    def encode(self, x, tape, tokens, first):
        """Through the blocks, of which the last gives the first `tokens` tokens: (B, T+N, D) -> (B, tokens, D).

        A last block of another kind gives them all.
        """
        tapes = [tape if i + 1 >= first else tape.forgetting() for i in range(len(self.blocks))]
        for stage, own_tape in zip(self._stages[:-1], tapes):
            x = stage.forward(x, own_tape)
        options = (tokens,) if _gives_first_tokens(self.blocks[-1]) else ()
        return self._stages[-1].forward(x, tapes[-1], *options)

    def classify(self, x, tape):
        """(B, tokens, D) -> logits (B, K), of a distilled model on a tape a pair."""
        x = self.pool(x, tape)
        if self.head_dist is None:
            return self.head.forward(self.pre_logits.forward(self.fc_norm.forward(x, tape), tape), tape)
        logits = self.head.forward(x[:, 0], tape)
        logits_dist = self.head_dist.forward(x[:, 1], tape)
        return (logits, logits_dist) if tape.keeps else (logits + logits_dist) / 2

    def backward(self, dy, tape):
        if self.head_dist is None:
            dx = self.fc_norm.backward(self.pre_logits.backward(self.head.backward(dy, tape), tape), tape)
        else:
            dy, dy_dist = dy
            dx_dist = self.head_dist.backward(dy_dist, tape)
            dx = array_module(dy).stack([self.head.backward(dy, tape), dx_dist], axis=1)
        dx = self.pool_backward(dx, tape)
        first = self.first_trained(tape)
        for block in reversed(self._stages[max(first - 1, 0) :]):
            dx = block.backward(dx, tape)
        return self.embed_backward(dx, tape) if first == 0 else None

    def first_trained(self, tape):
        """The first stage that needs a backward: 0 the embedding, i the i-th block, depth + 1 none of them.

        Frozen stages below it keep no residuals and cost no backward, unless the gradient of the images is wanted.
        """
        if not tape.keeps or self.wants_input_gradient(tape):
            return 0
        later = ("blocks.", "norm.", "fc_norm.", "pre_logits.", "head")
        if any(tape.wants(p) for name, p in self.named_parameters() if not name.startswith(later)):
            return 0
        for i, block in enumerate(self.blocks):
            if any(tape.wants(parameter) for _, parameter in block.named_parameters()):
                return i + 1
        return len(self.blocks) + 1

    def wants_input_gradient(self, tape):
        return tape.input_gradient or tape.model is not self

    def forward_features(self, x):
        """The tokens after the last block and the norm, as timm returns them: (B, T+N, D)."""
        x = self.embed(x, FORGET)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_intermediates(self, x, indices=None, norm=False):
        """The tokens after each block, or after those in `indices` (negative ones count from the end).

        norm: put each through the final norm. -> list of (B, T+N, D).
        """
        depth = len(self.blocks)
        wanted = range(depth) if indices is None else [i + depth if i < 0 else i for i in indices]
        if not all(0 <= i < depth for i in wanted):
            raise ConfigError(f"indices must name blocks 0..{depth - 1}, got {list(indices)}")
        found, x = {}, self.embed(x, FORGET)
        for i, block in enumerate(self.blocks):
            x = block(x)
            found[i] = self.norm(x) if norm and i in wanted else x
        return [found[i] for i in wanted]

    def embed(self, x, tape):
        """y = dropout([tokens, patches] + pos_embed).   (B, C, H, W) -> (B, T+N, D)."""
        image_size = x.shape[2:]
        x = self.patch_embed.forward(x, tape)
        xp, B = array_module(x), x.shape[0]
        tokens = [xp.broadcast_to(token.data, (B, *token.data.shape[1:])) for token in self.prefix_tokens]
        x = xp.concatenate([*tokens, x], axis=1)
        x[:, self.num_prefix_tokens - self.num_placed_tokens :] += self.position(image_size, tape)
        return self.pos_drop.forward(x, tape)

    def embed_backward(self, dy, tape):
        """dpos = Σ dy over the batch,   dtoken the same at the token's place,   dpatches = the rest of dy."""
        dy = self.pos_drop.backward(dy, tape)
        dpos, first = dy.sum(0, keepdims=True), 0
        self.position_backward(dpos[:, self.num_prefix_tokens - self.num_placed_tokens :], tape)
        for token in self.prefix_tokens:
            count = token.data.shape[1]
            tape.add(token, dpos[:, first : first + count])
            first += count
        return self.patch_embed.backward(dy[:, first:], tape, self.wants_input_gradient(tape))

    def position(self, image_size, tape):
        """The position embedding for images of that size, (1, places, D); a hook for subclasses."""
        return self.pos_embed.data

    def position_backward(self, dpos, tape):
        tape.add(self.pos_embed, dpos)

    def pool(self, x, tape):
        """(B, T+N, D) -> (B, D): the class token normed, or the patches' mean; for a distilled model (B, 2, D).

        The norm works token by token, so it comes after the choice and is paid for one or two tokens only.
        """
        tape.push(self, x.shape)
        if self.global_pool == "avg":
            return self.norm.forward(x[:, self.num_prefix_tokens :].mean(1), tape)
        return self.norm.forward(x[:, :2] if self.head_dist is not None else x[:, 0], tape)

    def pool_backward(self, dy, tape):
        """dx is dy at the tokens chosen and 0 elsewhere; for the mean, dy/N at every patch."""
        dy = self.norm.backward(dy, tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).zeros(shape, dtype=dy.dtype)
        if self.global_pool == "avg":
            first = self.num_prefix_tokens
            dx[:, first:] = (dy / (shape[1] - first))[:, None]
        elif self.head_dist is not None:
            dx[:, :2] = dy
        else:
            dx[:, 0] = dy
        return dx


def _gives_first_tokens(block):
    """Whether a block can compute its first tokens alone."""
    while isinstance(block, Checkpoint):
        block = block.layer
    attention = getattr(block, "attn", None)
    takes = "tokens" in inspect.signature(block.forward).parameters
    return takes and isinstance(attention, Attention) and attention.by_tokens()


class PreLogits(Layer):
    """y = tanh(fc x): the representation layer of the original ViT before its head."""

    def __init__(self, in_features, out_features, *, dtype="float32", seed=0):
        self.fc = Linear(in_features, out_features, dtype=dtype, seed=seed)
        self.act = Tanh()

    def forward(self, x, tape=FORGET):
        return self.act.forward(self.fc.forward(x, tape), tape)

    def backward(self, dy, tape):
        return self.fc.backward(self.act.backward(dy, tape), tape)


class NarrowVisionTransformer(VisionTransformer):
    """A VisionTransformer of a few dozen to a few hundred units of width, to be trained from nothing.

    timm's deviation of 0.02 for every matrix suits width 768; at width 64 the branches hardly speak and the position
    embedding drowns in the patches. So here matrices in the blocks start at 1/√in (LeCun et al. 1998, "Efficient
    BackProp", §4.6) and the position embedding at 1. On MNIST the first epoch then ends at 95% instead of 76%.
    """

    def __init__(self, *args, seed=0, **options):
        super().__init__(*args, seed=seed, **options)
        for block in self.blocks:
            for _, parameter in block.named_parameters():
                if parameter.data.ndim == 2:
                    parameter.data *= parameter.data.shape[1] ** -0.5 / 0.02
        self.pos_embed.data *= 1 / 0.02
