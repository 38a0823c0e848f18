"""From tokens to logits: what stands behind the blocks of a ViT.

Shapes: B batch, T class and other prefix tokens, N patches, D width, K classes. `reads` is how many leading tokens a
head needs; None for all.
"""

from collections.abc import Callable

import numpy as np

from ..backend import Array, array_module
from ..core import FORGET, Layer, Seed, make_rng
from .activations import Identity, Tanh
from .linear import Linear
from .norm import LayerNorm


class PreLogits(Layer):
    """y = tanh(fc x): the representation layer of the original ViT before its head."""

    def __init__(self, in_features: int, out_features: int, *, dtype: str = "float32", seed: Seed = 0):
        self.fc = Linear(in_features, out_features, dtype=dtype, seed=seed)
        self.act = Tanh()

    def forward(self, x, tape=FORGET):
        return self.act.forward(self.fc.forward(x, tape), tape)

    def backward(self, dy, tape):
        return self.fc.backward(self.act.backward(dy, tape), tape)


def linear_or_identity(in_features: int, num_classes: int, dtype: str, rng: np.random.Generator) -> Layer:
    """The last layer for a number of classes, 0 for none."""
    return Linear(in_features, num_classes, dtype=dtype, seed=rng) if num_classes else Identity()


class PoolingHead(Layer):
    """y = head(pre_logits(fc_norm(norm(pool x)))), of which norm or fc_norm is left out.   (B, T+N, D) -> (B, K).

    A subclass says how to pool the tokens, (B, T+N, D) -> (B, D), and `unpool` writes the gradient of that into the
    zeros dx. Both norms work token by token; checkpoints have fc_norm where the pooled mean is normalized.
    """

    transparent = True

    def __init__(
        self,
        dim: int,
        num_classes: int,
        representation_size: int | None = None,
        norm: Layer | None = None,
        fc_norm: Layer | None = None,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        rng, features = make_rng(seed), representation_size or dim
        self.norm, self.fc_norm = norm or Identity(), fc_norm or Identity()
        self.pre_logits = PreLogits(dim, features, dtype=dtype, seed=rng) if representation_size else Identity()
        self.head = linear_or_identity(features, num_classes, dtype, rng)
        self.num_classes, self.num_features = num_classes, features

    def forward(self, x, tape=FORGET):
        tape.push(self, x.shape)
        x = self.fc_norm.forward(self.norm.forward(self.pool(x), tape), tape)
        return self.head.forward(self.pre_logits.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.pre_logits.backward(self.head.backward(dy, tape), tape)
        dy = self.norm.backward(self.fc_norm.backward(dy, tape), tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).zeros(shape, dtype=dy.dtype)
        self.unpool(dy, dx)
        return dx

    def normalized(self, x: Array) -> Array:
        """All tokens through the final norm, in inference; as they are where the norm is for their mean."""
        return self.norm(x)


class ClassHead(PoolingHead):
    """y = head(pre_logits(norm x₀)), x₀ the class token.   (B, T+N, D) -> (B, K).

    The norm comes after the choice and costs one token only.
    """

    reads = 1

    def __init__(
        self,
        dim: int,
        num_classes: int,
        representation_size: int | None = None,
        norm_layer: Callable[..., Layer] = LayerNorm,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        norm = norm_layer(dim, dtype=dtype)
        super().__init__(dim, num_classes, representation_size, norm=norm, dtype=dtype, seed=seed)

    def pool(self, x):
        return x[:, 0]

    def unpool(self, dy, dx):
        dx[:, 0] = dy


class AverageHead(PoolingHead):
    """y = head(pre_logits(fc_norm(mean of the patches))).   (B, T+N, D) -> (B, K);   each patch gets dy/N.

    num_prefix_tokens: how many tokens stand before the patches.
    """

    reads = None

    def __init__(
        self,
        dim: int,
        num_classes: int,
        num_prefix_tokens: int = 1,
        representation_size: int | None = None,
        norm_layer: Callable[..., Layer] = LayerNorm,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        norm = norm_layer(dim, dtype=dtype)
        super().__init__(dim, num_classes, representation_size, fc_norm=norm, dtype=dtype, seed=seed)
        self.num_prefix_tokens = num_prefix_tokens

    def pool(self, x):
        return x[:, self.num_prefix_tokens :].mean(1)

    def unpool(self, dy, dx):
        patches = dx[:, self.num_prefix_tokens :]
        patches[...] = (dy / patches.shape[1])[:, None]


class DistilledHead(Layer):
    """y = head(norm x₀),   y_dist = head_dist(norm x₁), x₁ the distillation token   (arXiv:2012.12877, §3).

    (B, T+N, D) -> in training the pair of logits (B, K), else their mean. backward takes the pair of gradients.
    """

    transparent = True
    reads = 2

    def __init__(
        self,
        dim: int,
        num_classes: int,
        norm_layer: Callable[..., Layer] = LayerNorm,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        rng = make_rng(seed)
        self.norm = norm_layer(dim, dtype=dtype)
        self.head = linear_or_identity(dim, num_classes, dtype, rng)
        self.head_dist = linear_or_identity(dim, num_classes, dtype, rng)
        self.num_classes, self.num_features = num_classes, dim

    def forward(self, x, tape=FORGET):
        tape.push(self, x.shape)
        x = self.norm.forward(x[:, :2], tape)
        y, y_dist = self.head.forward(x[:, 0], tape), self.head_dist.forward(x[:, 1], tape)
        return (y, y_dist) if tape.training else (y + y_dist) / 2

    def backward(self, dy, tape):
        dy, dy_dist = dy
        dx_dist = self.head_dist.backward(dy_dist, tape)
        dy = self.norm.backward(array_module(dy).stack([self.head.backward(dy, tape), dx_dist], axis=1), tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).zeros(shape, dtype=dy.dtype)
        dx[:, :2] = dy
        return dx

    def normalized(self, x: Array) -> Array:
        """All tokens through the final norm, in inference."""
        return self.norm(x)
