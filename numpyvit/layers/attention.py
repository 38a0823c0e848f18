"""Multi-head self-attention and the transformer block.

Shapes: B batch, N tokens, D width, H heads, d = D/H.
"""

import inspect

from .. import functional as F
from ..core import FORGET, Layer, make_rng
from ..errors import ConfigError, ShapeError
from .basic import GELU, Dropout, DropPath, Identity, LayerNorm, LayerScale, Linear, Mlp


class Attention(Layer):
    """Each token looks at all tokens: per head, out = softmax(s q kᵀ) v   (Vaswani et al. 2017, arXiv:1706.03762).

    q, k, v are the three parts of one product, qkv x + b; heads are joined again and go through proj.
    s is 1/√d, or qk_scale. Dropout acts on the probabilities and on the output.

    Backward, per head, with p the probabilities:   dv = pᵀ dout,   dp = dout vᵀ,   ds = p (dp − Σ dp p),
    dq = s ds k,   dk = s dsᵀ q   (a shift of all scores changes nothing, so the bias of k has gradient 0).
    """

    def __init__(
        self,
        dim,
        num_heads=8,
        qkv_bias=False,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        *,
        dtype="float32",
        seed=0,
    ):
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"embed_dim={dim} must be divisible by num_heads={num_heads}")
        rng = make_rng(seed)
        self.dim = dim
        self.num_heads, self.scale = num_heads, qk_scale or (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, dtype=dtype, seed=rng)
        self.attn_drop = Dropout(attn_drop)
        self.proj = Linear(dim, dim, dtype=dtype, seed=rng)
        self.proj_drop = Dropout(proj_drop)

    def forward(self, x, tape=FORGET, tokens=None):
        """tokens: how many of the first tokens ask, and come out; they look at all. Default all of them."""
        if x.ndim != 3:
            raise ShapeError(f"{self.path}: got an array of shape {x.shape}, expected (batch, tokens, {self.dim})")
        q, k, v = self.project(x, tape, tokens)
        q, k = self.prepare(q, k, tape)
        keep = self.attn_drop.mask((*q.shape[:3], k.shape[2]), x.dtype, tape)
        out, p = F.attention(q, k, v, self.scale, keep=keep)
        tape.push(self, q, k, v, p, keep)
        return self.proj_drop.forward(self.proj.forward(F.join_heads((out,)), tape), tape)

    def backward(self, dy, tape):
        dout = self.proj.backward(self.proj_drop.backward(dy, tape), tape)
        (dout,) = F.split_heads(dout, 1, self.num_heads)
        q, k, v, p, keep = tape.pop(self)
        dq, dk, dv, _ = F.attention_backward(dout, q, k, v, p, self.scale, keep)
        dq, dk = self.prepare_backward(dq, dk, tape)
        return self.project_backward(dq, dk, dv, tape)

    @staticmethod
    def values_and_probabilities(residuals):
        """v (B, H, N, d) and p (B, H, tokens, N) of what forward pushed, for those who look at attention."""
        _, _, v, p, _ = residuals
        return v, p

    def by_tokens(self):
        """Whether it may be given some of the tokens as queries: no subclass or replaced layer has a say in it.

        What a position-dependent `prepare` or another kind of qkv would do with them is not known.
        """
        hooks = all(getattr(type(self), name) is getattr(Attention, name) for name in ("forward", "project"))
        known = (Attention.prepare, QKNormAttention.prepare)
        qkv_forward = inspect.unwrap(self.qkv.forward)  # a function put into the layer has no __func__
        return hooks and type(self).prepare in known and getattr(qkv_forward, "__func__", None) is Linear.forward

    def project(self, x, tape, tokens):
        """q, k, v = qkv x + b, split into heads: q (B, H, tokens, d), k and v (B, H, N, d)."""
        if tokens is None or tokens >= x.shape[1]:
            return F.split_heads(self.qkv.forward(x, tape), 3, self.num_heads)
        tape.push(self, x)
        q = self.qkv.product(x[:, :tokens], slice(0, self.dim))
        kv = self.qkv.product(x, slice(self.dim, None))
        return *F.split_heads(q, 1, self.num_heads), *F.split_heads(kv, 2, self.num_heads)

    def project_backward(self, dq, dk, dv, tape):
        if dq.shape == dk.shape:
            return self.qkv.backward(F.join_heads((dq, dk, dv)), tape)
        (x,) = tape.pop(self)
        tokens = dq.shape[2]
        dx = self.qkv.product_backward(F.join_heads((dk, dv)), x, tape, slice(self.dim, None))
        dx[:, :tokens] += self.qkv.product_backward(F.join_heads((dq,)), x[:, :tokens], tape, slice(0, self.dim))
        return dx

    def prepare(self, q, k, tape):
        """A hook for subclasses: what happens to q and k (B, H, N, d) before they meet.

        A class that defines it sees all tokens; see by_tokens.
        """
        return q, k

    def prepare_backward(self, dq, dk, tape):
        return dq, dk


class QKNormAttention(Attention):
    """Attention whose queries and keys are normed head by head   (Dehghani et al. 2023, arXiv:2302.05442, §2)."""

    def __init__(self, dim, num_heads=8, *args, norm_layer=LayerNorm, dtype="float32", seed=0):
        super().__init__(dim, num_heads, *args, dtype=dtype, seed=seed)
        self.q_norm = norm_layer(dim // num_heads, dtype=dtype)
        self.k_norm = norm_layer(dim // num_heads, dtype=dtype)

    def prepare(self, q, k, tape):
        q = self.q_norm.forward(q, tape)
        return q, self.k_norm.forward(k, tape)

    def prepare_backward(self, dq, dk, tape):
        dk = self.k_norm.backward(dk, tape)
        return self.q_norm.backward(dq, tape), dk


class Block(Layer):
    """y = x + attn(norm1 x), then y + mlp(norm2 y); DropPath on both branches   (Dosovitskiy et al., arXiv:2010.11929).

    Backward: at each sum the gradient goes both ways, so   dx = dy + norm(branch(dy)), in reverse order.
    """

    attention = Attention  # the class of its attention layer, for subclasses

    def __init__(
        self,
        dim,
        num_heads,
        mlp_ratio=4.0,
        qkv_bias=False,
        qk_scale=None,
        drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        act_layer=GELU,
        norm_layer=LayerNorm,
        *,
        dtype="float32",
        seed=0,
    ):
        rng = make_rng(seed)
        self.norm1 = norm_layer(dim, dtype=dtype)
        self.attn = self.attention(dim, num_heads, qkv_bias, qk_scale, attn_drop, drop, dtype=dtype, seed=rng)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(dim, dtype=dtype)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop, dtype=dtype, seed=rng)
        self.drop_path2 = DropPath(drop_path)
        self.ls1 = self.ls2 = Identity()

    def forward(self, x, tape=FORGET, tokens=None):
        """tokens: how many of the first tokens come out; the others are keys and values only. Default all."""
        branch = self.attn.forward(self.norm1.forward(x, tape), tape, *(() if tokens is None else (tokens,)))
        x = x[:, :tokens] + self.drop_path1.forward(self.ls1.forward(branch, tape), tape)
        branch = self.mlp.forward(self.norm2.forward(x, tape), tape)
        return x + self.drop_path2.forward(self.ls2.forward(branch, tape), tape)

    def backward(self, dy, tape):
        branch = self.ls2.backward(self.drop_path2.backward(dy, tape), tape)
        dy = dy + self.norm2.backward(self.mlp.backward(branch, tape), tape)
        branch = self.ls1.backward(self.drop_path1.backward(dy, tape), tape)
        dx = self.norm1.backward(self.attn.backward(branch, tape), tape)
        dx[:, : dy.shape[1]] += dy
        return dx


class ScaledBlock(Block):
    """A Block with LayerScale on both branches:   y = x + γ₁ attn(norm1 x), then y + γ₂ mlp(norm2 y)."""

    def __init__(self, dim, *args, init_values=1e-5, dtype="float32", seed=0, **options):
        super().__init__(dim, *args, dtype=dtype, seed=seed, **options)
        self.ls1, self.ls2 = LayerScale(dim, init_values, dtype=dtype), LayerScale(dim, init_values, dtype=dtype)
