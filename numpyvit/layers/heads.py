"""From tokens to logits: what stands behind the blocks of a ViT.

Shapes: B batch, T class and other prefix tokens, N patches, D width, K classes. `reads` is how many leading tokens a
head needs; None for all.
"""

from ..backend import array_module
from ..core import FORGET, Layer, make_rng
from .activations import Identity, Tanh
from .linear import Linear
from .norm import LayerNorm


class PreLogits(Layer):
    """y = tanh(fc x): the representation layer of the original ViT before its head."""

    def __init__(self, in_features, out_features, *, dtype="float32", seed=0):
        self.fc = Linear(in_features, out_features, dtype=dtype, seed=seed)
        self.act = Tanh()

    def forward(self, x, tape=FORGET):
        return self.act.forward(self.fc.forward(x, tape), tape)

    def backward(self, dy, tape):
        return self.fc.backward(self.act.backward(dy, tape), tape)


def linear_or_identity(in_features, num_classes, dtype, rng):
    """The last layer for a number of classes, 0 for none."""
    return Linear(in_features, num_classes, dtype=dtype, seed=rng) if num_classes else Identity()


def pre_logits_or_identity(dim, representation_size, dtype, rng):
    """The layer before the last one, where a representation is asked for."""
    return PreLogits(dim, representation_size, dtype=dtype, seed=rng) if representation_size else Identity()


class ClassHead(Layer):
    """y = head(pre_logits(norm x₀)), x₀ the class token.   (B, T+N, D) -> (B, K).

    The norm works token by token, so it comes after the choice and costs one token only.
    """

    transparent = True
    reads = 1

    def __init__(self, dim, num_classes, representation_size=None, norm_layer=LayerNorm, *, dtype="float32", seed=0):
        rng, features = make_rng(seed), representation_size or dim
        self.norm = norm_layer(dim, dtype=dtype)
        self.pre_logits = pre_logits_or_identity(dim, representation_size, dtype, rng)
        self.head = linear_or_identity(features, num_classes, dtype, rng)
        self.num_classes, self.num_features = num_classes, features

    def forward(self, x, tape=FORGET):
        tape.push(self, x.shape)
        x = self.norm.forward(x[:, 0], tape)
        return self.head.forward(self.pre_logits.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.norm.backward(self.pre_logits.backward(self.head.backward(dy, tape), tape), tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).zeros(shape, dtype=dy.dtype)
        dx[:, 0] = dy
        return dx

    def normalized(self, x):
        """All tokens through the final norm, in inference."""
        return self.norm(x)


class AverageHead(Layer):
    """y = head(pre_logits(fc_norm(mean of the patches))).   (B, T+N, D) -> (B, K);   each patch gets dy/N.

    num_prefix_tokens: how many tokens stand before the patches.
    """

    transparent = True
    reads = None

    def __init__(
        self,
        dim,
        num_classes,
        num_prefix_tokens=1,
        representation_size=None,
        norm_layer=LayerNorm,
        *,
        dtype="float32",
        seed=0,
    ):
        rng, features = make_rng(seed), representation_size or dim
        self.num_prefix_tokens = num_prefix_tokens
        self.fc_norm = norm_layer(dim, dtype=dtype)
        self.pre_logits = pre_logits_or_identity(dim, representation_size, dtype, rng)
        self.head = linear_or_identity(features, num_classes, dtype, rng)
        self.num_classes, self.num_features = num_classes, features

    def forward(self, x, tape=FORGET):
        tape.push(self, x.shape)
        x = self.fc_norm.forward(x[:, self.num_prefix_tokens :].mean(1), tape)
        return self.head.forward(self.pre_logits.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.fc_norm.backward(self.pre_logits.backward(self.head.backward(dy, tape), tape), tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).zeros(shape, dtype=dy.dtype)
        dx[:, self.num_prefix_tokens :] = (dy / (shape[1] - self.num_prefix_tokens))[:, None]
        return dx

    def normalized(self, x):
        """The tokens as they are: this head's norm is for their mean."""
        return x


class DistilledHead(Layer):
    """y = head(norm x₀),   y_dist = head_dist(norm x₁), x₁ the distillation token   (arXiv:2012.12877, §3).

    (B, T+N, D) -> in training the pair of logits (B, K), else their mean. backward takes the pair of gradients.
    """

    transparent = True
    reads = 2

    def __init__(self, dim, num_classes, norm_layer=LayerNorm, *, dtype="float32", seed=0):
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

    def normalized(self, x):
        """All tokens through the final norm, in inference."""
        return self.norm(x)
