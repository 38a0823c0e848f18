"""Multi-head self-attention and the transformer block.

Shapes: B batch, N tokens, D width, H heads, d = D/H.
"""

from .. import functional as F
from ..core import FORGET, Layer, make_rng
from ..errors import ConfigError, ShapeError
from .activations import GELU, Identity
from .checks import check_makes_layers
from .dropout import Dropout, DropPath
from .linear import Linear, Mlp
from .norm import LayerNorm, LayerScale


class Attention(Layer):
    """Each token looks at all tokens: per head, out = softmax(s q kᵀ) v   (Vaswani et al. 2017, arXiv:1706.03762).

    q, k, v are the three parts of one product, qkv x + b; heads are joined again and go through proj.
    s is 1/√d, or qk_scale. Dropout acts on the probabilities and on the output.
    qk_norm: queries and keys are normalized head by head   (Dehghani et al. 2023, arXiv:2302.05442, §2).

    Backward, per head, with p the probabilities:   dv = pᵀ dout,   dp = dout vᵀ,   ds = p (dp − Σ dp p),
    dq = s ds k,   dk = s dsᵀ q   (a shift of all scores changes nothing, so the bias of k has gradient 0).
    """

    takes_first = True

    def __init__(
        self,
        dim,
        num_heads=8,
        qkv_bias=False,
        qk_scale=None,
        attn_drop=0.0,
        proj_drop=0.0,
        *,
        qk_norm=False,
        norm_layer=LayerNorm,
        dtype="float32",
        seed=0,
    ):
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"embed_dim={dim} must be divisible by num_heads={num_heads}")
        rng = make_rng(seed)
        self.dim = dim
        self.num_heads, self.scale = num_heads, float(qk_scale or (dim // num_heads) ** -0.5)
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, dtype=dtype, seed=rng)
        self.q_norm = norm_layer(dim // num_heads, dtype=dtype) if qk_norm else Identity()
        self.k_norm = norm_layer(dim // num_heads, dtype=dtype) if qk_norm else Identity()
        self.attn_drop = Dropout(attn_drop)
        self.proj = Linear(dim, dim, dtype=dtype, seed=rng)
        self.proj_drop = Dropout(proj_drop)

    def forward(self, x, tape=FORGET, first=None):
        """first: number of leading tokens used as queries, which come out; keys and values use all tokens."""
        if x.ndim != 3:
            raise ShapeError(f"{self.path}: got an array of shape {x.shape}, expected (batch, tokens, {self.dim})")
        q, k, v = F.split_heads(self.qkv.forward(x, tape), 3, self.num_heads)
        q, k = self.q_norm.forward(q[:, :, :first], tape), self.k_norm.forward(k, tape)
        keep = self.attn_drop.mask((*q.shape[:3], k.shape[2]), x.dtype, tape)
        out, p = F.attention(q, k, v, self.scale, keep=keep)
        tape.push(self, q, k, v, p, keep)
        return self.proj_drop.forward(self.proj.forward(F.join_heads((out,)), tape), tape)

    def backward(self, dy, tape):
        dout = self.proj.backward(self.proj_drop.backward(dy, tape), tape)
        (dout,) = F.split_heads(dout, 1, self.num_heads)
        q, k, v, p, keep = tape.pop(self)
        dq, dk, dv, _ = F.attention_backward(dout, q, k, v, p, self.scale, keep)
        dk = self.k_norm.backward(dk, tape)
        dq = self.q_norm.backward(dq, tape)
        return self.qkv.backward(F.join_heads((F.pad_tokens(dq, dk.shape[2]), dk, dv)), tape)

    def own_multiply_adds(self, y, x, *others) -> int:
        """Of q kᵀ and p v, for each pair of a query and a key."""
        B, N, _ = x.shape
        return 2 * B * y.shape[1] * N * self.dim

    @staticmethod
    def values_and_probabilities(residuals):
        """v (B, H, N, d) and p (B, H, tokens, N) of what forward pushed, for those who look at attention."""
        _, _, v, p, _ = residuals
        return v, p


class Block(Layer):
    """y = x + attn(norm1 x), then y + mlp(norm2 y); DropPath on both branches   (Dosovitskiy et al., arXiv:2010.11929).

    init_values: initial value of LayerScale's factors on both branches; None leaves them out.
    Backward: at each sum the gradient goes both ways, so   dx = dy + norm(branch(dy)), in reverse order.
    """

    takes_first = True

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
        init_values=None,
        qk_norm=False,
        dtype="float32",
        seed=0,
    ):
        check_makes_layers("norm_layer", norm_layer)
        rng = make_rng(seed)

        def scale():
            return Identity() if init_values is None else LayerScale(dim, init_values, dtype=dtype)

        self.norm1 = norm_layer(dim, dtype=dtype)
        self.attn = Attention(
            dim, num_heads, qkv_bias, qk_scale, attn_drop, drop, qk_norm=qk_norm, dtype=dtype, seed=rng
        )
        self.ls1, self.drop_path1 = scale(), DropPath(drop_path)
        self.norm2 = norm_layer(dim, dtype=dtype)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop, dtype=dtype, seed=rng)
        self.ls2, self.drop_path2 = scale(), DropPath(drop_path)

    def forward(self, x, tape=FORGET, first=None):
        """first: number of leading tokens that come out; the others are keys and values only. Default all."""
        branch = self.attn.forward(self.norm1.forward(x, tape), tape, first)
        x = x[:, :first] + self.drop_path1.forward(self.ls1.forward(branch, tape), tape)
        branch = self.mlp.forward(self.norm2.forward(x, tape), tape)
        return x + self.drop_path2.forward(self.ls2.forward(branch, tape), tape)

    def backward(self, dy, tape):
        branch = self.ls2.backward(self.drop_path2.backward(dy, tape), tape)
        dy = dy + self.norm2.backward(self.mlp.backward(branch, tape), tape)
        branch = self.ls1.backward(self.drop_path1.backward(dy, tape), tape)
        dx = self.norm1.backward(self.attn.backward(branch, tape), tape)
        dx[:, : dy.shape[1]] += dy
        return dx
