"""The encoder and decoder of DETR   (Carion et al. 2020, arXiv:2005.12872, §A.3, fig. 10).

Shapes: B batch, N tokens of the image, Q queries, D width. Positions are added to queries and keys in every layer,
never to values. Masks are those of MultiheadAttention: True where nobody looks.
"""

from collections.abc import Iterable

from ..core import FORGET, Layer, Seed, make_rng
from .activations import Identity, ReLU
from .cross_attention import MultiheadAttention
from .dropout import Dropout
from .init import xavier_uniform
from .linear import Linear
from .norm import LayerNorm
from .sequence import Sequence


class FeedForward(Layer):
    """y = linear2(dropout(relu(linear1 x))); an Mlp with PyTorch's names, which its owner carries."""

    transparent = True

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0, *, dtype: str = "float32", seed: Seed = 0):
        rng = make_rng(seed)
        self.linear1 = Linear(dim, hidden, dtype=dtype, seed=rng)
        self.activation = ReLU()
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(hidden, dim, dtype=dtype, seed=rng)

    def forward(self, x, tape=FORGET):
        x = self.dropout.forward(self.activation.forward(self.linear1.forward(x, tape), tape), tape)
        return self.linear2.forward(x, tape)

    def backward(self, dy, tape):
        dy = self.dropout.backward(self.linear2.backward(dy, tape), tape)
        return self.linear1.backward(self.activation.backward(dy, tape), tape)


class EncoderLayer(Layer):
    """y = norm1(x + attn(x + pos, x + pos, x)), then norm2(y + ffn(y)), dropout on both branches.

    Takes and returns (x, pos, mask): tokens (B, N, D), their positions (1 or B, N, D), the padding (B, N) or None.
    Backward takes and returns (dx, dpos): at each sum the gradient goes both ways.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden: int, dropout: float = 0.0, *, dtype: str = "float32", seed: Seed = 0
    ):
        made = dict(dtype=dtype, seed=make_rng(seed))
        self.self_attn = MultiheadAttention(dim, num_heads, dropout, **made)
        self.dropout1, self.norm1 = Dropout(dropout), LayerNorm(dim, eps=1e-5, dtype=dtype)
        self.feed_forward = FeedForward(dim, hidden, dropout, **made)
        self.dropout2, self.norm2 = Dropout(dropout), LayerNorm(dim, eps=1e-5, dtype=dtype)

    def forward(self, state, tape=FORGET):
        x, pos, mask = state
        q = x + pos
        branch = self.self_attn.forward(q, q, x, tape, mask)
        x = self.norm1.forward(x + self.dropout1.forward(branch, tape), tape)
        branch = self.feed_forward.forward(x, tape)
        return self.norm2.forward(x + self.dropout2.forward(branch, tape), tape), pos, mask

    def backward(self, dstate, tape):
        dy, dpos = dstate
        dy = self.norm2.backward(dy, tape)
        dy = dy + self.feed_forward.backward(self.dropout2.backward(dy, tape), tape)
        dy = self.norm1.backward(dy, tape)
        dq, dk, dv = self.self_attn.backward(self.dropout1.backward(dy, tape), tape)
        return dy + dq + dk + dv, dpos + dq + dk


class PreNormEncoderLayer(EncoderLayer):
    """y = x + attn(n + pos, n + pos, n) with n = norm1 x, then y + ffn(norm2 y)."""

    def forward(self, state, tape=FORGET):
        x, pos, mask = state
        n = self.norm1.forward(x, tape)
        branch = self.self_attn.forward(n + pos, n + pos, n, tape, mask)
        x = x + self.dropout1.forward(branch, tape)
        branch = self.feed_forward.forward(self.norm2.forward(x, tape), tape)
        return x + self.dropout2.forward(branch, tape), pos, mask

    def backward(self, dstate, tape):
        dy, dpos = dstate
        branch = self.feed_forward.backward(self.dropout2.backward(dy, tape), tape)
        dy = dy + self.norm2.backward(branch, tape)
        dq, dk, dv = self.self_attn.backward(self.dropout1.backward(dy, tape), tape)
        return dy + self.norm1.backward(dq + dk + dv, tape), dpos + dq + dk


class DecoderLayer(Layer):
    """y = norm1(x + self_attn(x + pos, x + pos, x)), then norm2(y + multihead_attn(y + pos, key, memory)),
    then norm3(y + ffn(y)), dropout on all branches.

    x and the positions pos of the queries: (B, Q, D); memory and key, which is memory with its position: (B, N, D).
    Backward returns (dx, dpos, dkey, dmemory).
    """

    def __init__(
        self, dim: int, num_heads: int, hidden: int, dropout: float = 0.0, *, dtype: str = "float32", seed: Seed = 0
    ):
        made = dict(dtype=dtype, seed=make_rng(seed))
        self.self_attn = MultiheadAttention(dim, num_heads, dropout, **made)
        self.dropout1, self.norm1 = Dropout(dropout), LayerNorm(dim, eps=1e-5, dtype=dtype)
        self.multihead_attn = MultiheadAttention(dim, num_heads, dropout, **made)
        self.dropout2, self.norm2 = Dropout(dropout), LayerNorm(dim, eps=1e-5, dtype=dtype)
        self.feed_forward = FeedForward(dim, hidden, dropout, **made)
        self.dropout3, self.norm3 = Dropout(dropout), LayerNorm(dim, eps=1e-5, dtype=dtype)

    def forward(self, x, pos, key, memory, tape=FORGET, memory_mask=None, query_mask=None):
        """memory_mask: (B, N), the padding of the image; query_mask: which queries may not see which (Q, Q)."""
        q = x + pos
        branch = self.self_attn.forward(q, q, x, tape, attn_mask=query_mask)
        x = self.norm1.forward(x + self.dropout1.forward(branch, tape), tape)
        branch = self.multihead_attn.forward(x + pos, key, memory, tape, memory_mask)
        x = self.norm2.forward(x + self.dropout2.forward(branch, tape), tape)
        branch = self.feed_forward.forward(x, tape)
        return self.norm3.forward(x + self.dropout3.forward(branch, tape), tape)

    def backward(self, dy, tape):
        dy = self.norm3.backward(dy, tape)
        dy = dy + self.feed_forward.backward(self.dropout3.backward(dy, tape), tape)
        dy = self.norm2.backward(dy, tape)
        dpos, dkey, dmemory = self.multihead_attn.backward(self.dropout2.backward(dy, tape), tape)
        dy = self.norm1.backward(dy + dpos, tape)
        dq, dk, dv = self.self_attn.backward(self.dropout1.backward(dy, tape), tape)
        return dy + dq + dk + dv, dpos + dq + dk, dkey, dmemory


class PreNormDecoderLayer(DecoderLayer):
    """y = x + self_attn(n + pos, n + pos, n) with n = norm1 x, then y + multihead_attn(norm2 y + pos, key, memory),
    then y + ffn(norm3 y)."""

    def forward(self, x, pos, key, memory, tape=FORGET, memory_mask=None, query_mask=None):
        n = self.norm1.forward(x, tape)
        branch = self.self_attn.forward(n + pos, n + pos, n, tape, attn_mask=query_mask)
        x = x + self.dropout1.forward(branch, tape)
        branch = self.multihead_attn.forward(self.norm2.forward(x, tape) + pos, key, memory, tape, memory_mask)
        x = x + self.dropout2.forward(branch, tape)
        branch = self.feed_forward.forward(self.norm3.forward(x, tape), tape)
        return x + self.dropout3.forward(branch, tape)

    def backward(self, dy, tape):
        branch = self.feed_forward.backward(self.dropout3.backward(dy, tape), tape)
        dy = dy + self.norm3.backward(branch, tape)
        dpos, dkey, dmemory = self.multihead_attn.backward(self.dropout2.backward(dy, tape), tape)
        dy = dy + self.norm2.backward(dpos, tape)
        dq, dk, dv = self.self_attn.backward(self.dropout1.backward(dy, tape), tape)
        return dy + self.norm1.backward(dq + dk + dv, tape), dpos + dq + dk, dkey, dmemory


class Encoder(Layer):
    """Encoder layers one after another; with pre-norm a LayerNorm behind them."""

    def __init__(self, layers: list[Layer], norm: Layer | None = None):
        self.layers, self.norm = Sequence(layers) if layers else Identity(), norm or Identity()

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.layers) if isinstance(self.layers, Sequence) else 0

    def forward(self, x, pos, mask=None, tape=FORGET):
        x, _, _ = self.layers.forward((x, pos, mask), tape)
        return self.norm.forward(x, tape)

    def backward(self, dy, dpos, tape):
        """-> (dx, dpos), dpos with what came in; None where nobody wants them."""
        return self.layers.backward((self.norm.backward(dy, tape), dpos), tape)


class Decoder(Layer):
    """Decoder layers one after another, and one LayerNorm for what each of them gives."""

    def __init__(self, layers: Iterable[Layer], norm: Layer):
        self.layers, self.norm = list(layers), norm

    def forward(self, x, pos, memory, memory_pos, tape=FORGET, memory_mask=None, intermediate=True):
        """x, pos: (B, Q, D) -> a list of (B, Q, D): normalized, of each layer, or of the last alone."""
        key, found = memory + memory_pos, []
        for layer in self.layers:
            x = layer.forward(x, pos, key, memory, tape, memory_mask)
            if intermediate or layer is self.layers[-1]:
                found.append(self.norm.forward(x, tape))
        return found

    def backward(self, dys, tape):
        """The gradients of what forward gave -> (dpos, dmemory, dmemory_pos)."""
        dx = dpos = dkey = dvalue = 0
        dys = list(dys)
        for layer in reversed(self.layers):
            if dys:
                dx = self.norm.backward(dys.pop(), tape) + dx
            dx, dpos_here, dkey_here, dvalue_here = layer.backward(dx, tape)
            dpos, dkey, dvalue = dpos + dpos_here, dkey + dkey_here, dvalue + dvalue_here
        return dpos, dkey + dvalue, dkey


class Transformer(Layer):
    """The encoder and the decoder of DETR, under its names, with matrices uniform within ±√(6/(in + out)) at first."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        enc_layers: int,
        dec_layers: int,
        hidden: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        rng = make_rng(seed)
        encoding, decoding = (PreNormEncoderLayer, PreNormDecoderLayer) if pre_norm else (EncoderLayer, DecoderLayer)

        def layers(kind, depth):
            return [kind(dim, num_heads, hidden, dropout, dtype=dtype, seed=rng) for _ in range(depth)]

        norm = LayerNorm(dim, eps=1e-5, dtype=dtype) if pre_norm else None
        self.encoder = Encoder(layers(encoding, enc_layers), norm)
        self.decoder = Decoder(layers(decoding, dec_layers), LayerNorm(dim, eps=1e-5, dtype=dtype))
        for _, parameter in self.named_parameters():
            if parameter.data.ndim == 2:
                parameter.data[...] = xavier_uniform(rng, parameter.data.shape, parameter.data.dtype)
