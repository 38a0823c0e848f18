"""Multi-head self-attention and the transformer block.

Shapes: B batch, N tokens, D width, H heads, d = D/H.
"""

from collections.abc import Callable

from .. import functional as F
from ..backend import Array, array_module
from ..core import FORGET, Layer, Seed, make_rng
from ..errors import ConfigError, ShapeError
from .activations import GELU, Identity
from .checks import check_makes_layers, check_width
from .dropout import Dropout, DropPath
from .linear import Linear, Mlp
from .norm import LayerNorm, LayerScale


class QKV(Linear):
    """Queries, keys and values as one product x Wᵀ + b.   x: (B, N, D), W: (3D, D), b: (3D,), y: (B, N, 3D).

    Where only the queries of the `first` leading tokens are read, no others are computed:
    -> q (B, first, D) from W's first rows W_q, k and v (B, N, 2D) from the others, W_kv.

    Backward, then of the pair (dq, dkv):   dW = [Σ dqᵀ x; Σ dkvᵀ x],   db = [Σ dq; Σ dkv],
    dx = dkv W_kv, with dq W_q added at the first tokens.
    """

    takes_first = True

    def __init__(self, dim: int, bias: bool = True, *, dtype: str = "float32", seed: Seed = 0):
        super().__init__(dim, 3 * dim, bias, dtype=dtype, seed=seed)

    def forward(self, x, tape=FORGET, first=None):
        if first is None:
            return super().forward(x, tape)
        check_width(self, x, self.weight.data.shape[1])
        tape.push(self, x)
        (q_weight, kv_weight), (q_bias, kv_bias) = self._q_and_kv(self.weight), self._q_and_kv(self.bias)
        return F.linear(x[:, :first], q_weight, q_bias), F.linear(x, kv_weight, kv_bias)

    def backward(self, dy, tape):
        if not isinstance(dy, tuple):
            return super().backward(dy, tape)
        (x,), (dq, dkv) = tape.pop(self), dy
        first, concatenate = x[:, : dq.shape[1]], array_module(x).concatenate
        if tape.wants(self.weight):
            dweights = F.linear_weight_gradient(dq, first), F.linear_weight_gradient(dkv, x)
            tape.add(self.weight, concatenate(dweights))
        if self.bias and tape.wants(self.bias):
            tape.add(self.bias, concatenate((F.sum_over_rows(dq), F.sum_over_rows(dkv))))
        q_weight, kv_weight = self._q_and_kv(self.weight)
        dx = F.linear_input_gradient(dkv, kv_weight)
        dx[:, : dq.shape[1]] += F.linear_input_gradient(dq, q_weight)
        return dx

    def _q_and_kv(self, parameter):
        """The rows for queries, and those for keys and values."""
        if parameter is None:
            return None, None
        width = len(self.weight.data) // 3
        return parameter.data[:width], parameter.data[width:]


class Attention(Layer):
    """Each token looks at all tokens: per head, out = softmax(s q kᵀ) v   (Vaswani et al. 2017, arXiv:1706.03762).

    Heads are joined again and go through proj.
    s is 1/√d, or qk_scale. Dropout acts on the probabilities and on the output.
    qk_norm: queries and keys are normalized head by head   (Dehghani et al. 2023, arXiv:2302.05442, §2).

    Backward, per head, with p the probabilities:   dv = pᵀ dout,   dp = dout vᵀ,   ds = p (dp − Σ dp p),
    dq = s ds k,   dk = s dsᵀ q   (a shift of all scores changes nothing, so the bias of k has gradient 0).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        qk_norm: bool = False,
        norm_layer: Callable[..., Layer] = LayerNorm,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"embed_dim={dim} must be divisible by num_heads={num_heads}")
        rng = make_rng(seed)
        self.dim = dim
        self.num_heads, self.scale = num_heads, float(qk_scale or (dim // num_heads) ** -0.5)
        self.qkv = QKV(dim, qkv_bias, dtype=dtype, seed=rng)
        self.q_norm = norm_layer(dim // num_heads, dtype=dtype) if qk_norm else Identity()
        self.k_norm = norm_layer(dim // num_heads, dtype=dtype) if qk_norm else Identity()
        self.attn_drop = Dropout(attn_drop)
        self.proj = Linear(dim, dim, dtype=dtype, seed=rng)
        self.proj_drop = Dropout(proj_drop)

    @property
    def takes_first(self) -> bool:
        return self.qkv.takes_first

    def forward(self, x, tape=FORGET, first=None):
        """first: number of leading tokens used as queries, which come out; keys and values use all tokens."""
        if x.ndim != 3:
            raise ShapeError(f"{self.path}: got an array of shape {x.shape}, expected (batch, tokens, {self.dim})")
        if first is None:
            q, k, v = F.split_heads(self.qkv.forward(x, tape), 3, self.num_heads)
        else:
            q, kv = self.qkv.forward(x, tape, first)
            q, k, v = (*F.split_heads(q, 1, self.num_heads), *F.split_heads(kv, 2, self.num_heads))
        q, k = self.q_norm.forward(q, tape), self.k_norm.forward(k, tape)
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
        if dq.shape[2] == dk.shape[2]:
            return self.qkv.backward(F.join_heads((dq, dk, dv)), tape)
        return self.qkv.backward((F.join_heads((dq,)), F.join_heads((dk, dv))), tape)

    def own_multiply_adds(self, y: Array, x: Array, *others: Array) -> int:
        """Of q kᵀ and p v, for each pair of a query and a key."""
        B, N, _ = x.shape
        return 2 * B * y.shape[1] * N * self.dim

    @staticmethod
    def values_and_probabilities(residuals: tuple) -> tuple[Array, Array]:
        """v (B, H, N, d) and p (B, H, tokens, N) of what forward pushed, for those who look at attention."""
        _, _, v, p, _ = residuals
        return v, p


class Block(Layer):
    """y = x + attn(norm1 x), then y + mlp(norm2 y); DropPath on both branches   (Dosovitskiy et al., arXiv:2010.11929).

    init_values: initial value of LayerScale's factors on both branches; None leaves them out.
    Backward: at each sum the gradient goes both ways, so   dx = dy + norm(branch(dy)), in reverse order.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[..., Layer] = GELU,
        norm_layer: Callable[..., Layer] = LayerNorm,
        *,
        init_values: float | None = None,
        qk_norm: bool = False,
        dtype: str = "float32",
        seed: Seed = 0,
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

    @property
    def takes_first(self) -> bool:
        return self.attn.takes_first

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
