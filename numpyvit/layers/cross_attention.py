"""Attention of queries to keys and values of another origin.

Shapes: B batch, N queries, M keys, D width, H heads, d = D/H.
"""

import math

import numpy as np

from .. import functional as F
from ..backend import array_module
from ..core import FORGET, Layer, Parameter, Seed, as_dtype, make_rng
from ..errors import ConfigError, ShapeError
from .checks import check_width
from .dropout import Dropout
from .init import xavier_uniform
from .linear import Linear


class MultiheadAttention(Layer):
    """Queries look at keys and take of their values: per head, out = softmax(q kᵀ/√d + mask) v   (arXiv:1706.03762).

    q, k, v are the inputs through the three thirds of in_proj; heads are joined again and go through out_proj.
    Names and meaning are those of torch.nn.MultiheadAttention with batch_first=True; dropout acts on the probabilities.

    Backward, per head, with p the probabilities:   dv = pᵀ dout,   dp = dout vᵀ,   ds = p (dp − Σ dp p),
    dq = ds k/√d,   dk = dsᵀ q/√d; each goes back through its third of in_proj as through a Linear.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, *, dtype: str = "float32", seed: Seed = 0):
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"the width {dim} must be divisible by num_heads={num_heads}")
        dtype, rng = as_dtype(dtype), make_rng(seed)
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.in_proj_weight = Parameter(xavier_uniform(rng, (3 * dim, dim), dtype))
        self.in_proj_bias = Parameter(np.zeros(3 * dim, dtype))
        self.dropout = Dropout(dropout)
        self.out_proj = Linear(dim, dim, dtype=dtype, seed=rng)

    def forward(self, query, key, value, tape=FORGET, key_padding_mask=None, attn_mask=None):
        """query (B, N, D), key and value (B, M, D) -> (B, N, D).

        key_padding_mask: (B, M), True where a key is padding, which nobody looks at.
        attn_mask:        (N, M) or (B, 1 or H, N, M), True where a query may not look, or numbers added to the scores.
        """
        inputs = (query, key, value)
        self._check(*inputs)
        weights, biases = self._thirds()
        q, k, v = (self._split(F.linear(x, w, b)) for x, w, b in zip(inputs, weights, biases))
        keep = self.dropout.mask((*q.shape[:3], k.shape[2]), q.dtype, tape)
        out, p = F.attention(q, k, v, self.scale, _bias(key_padding_mask, attn_mask, q.dtype), keep)
        tape.push(self, inputs, q, k, v, p, keep)
        return self.out_proj.forward(F.join_heads((out,)), tape)

    def backward(self, dy, tape):
        """-> dquery, dkey, dvalue."""
        dout = self._split(self.out_proj.backward(dy, tape))
        inputs, q, k, v, p, keep = tape.pop(self)
        *gradients, _ = F.attention_backward(dout, q, k, v, p, self.scale, keep)
        gradients = [F.join_heads((gradient,)) for gradient in gradients]
        concatenate = array_module(dy).concatenate
        if tape.wants(self.in_proj_weight):
            dweights = [F.linear_weight_gradient(gradient, x) for gradient, x in zip(gradients, inputs)]
            tape.add(self.in_proj_weight, concatenate(dweights))
        if tape.wants(self.in_proj_bias):
            tape.add(self.in_proj_bias, concatenate([F.sum_over_rows(gradient) for gradient in gradients]))
        return tuple(F.linear_input_gradient(gradient, w) for gradient, w in zip(gradients, self._thirds()[0]))

    def own_multiply_adds(self, y, query, key, value, *others) -> int:
        rows = sum(math.prod(x.shape[:2]) for x in (query, key, value))
        return self.in_proj_weight.data.shape[1] * (y.shape[-1] * rows + 2 * query.shape[1] * math.prod(key.shape[:2]))

    def _thirds(self):
        """The weights and the biases of queries, keys and values."""
        weight, bias = self.in_proj_weight.data, self.in_proj_bias.data
        return weight.reshape(3, -1, weight.shape[1]), bias.reshape(3, -1)

    def _split(self, x):
        """(B, N, D) -> (B, H, N, d)."""
        (heads,) = F.split_heads(x, 1, self.num_heads)
        return heads

    def _check(self, query, key, value):
        for x in (query, key, value):
            check_width(self, x, self.in_proj_weight.data.shape[1])
        if not (query.ndim == key.ndim == 3 and key.shape == value.shape and len(query) == len(key)):
            raise ShapeError(
                f"{self.path}: got query {query.shape}, key {key.shape} and value {value.shape}, "
                "expected (batch, queries, width) and twice (batch, keys, width)"
            )

    @staticmethod
    def probabilities(residuals):
        """What forward kept on the tape -> the attention probabilities (B, H, N, M)."""
        return residuals[4]


def _bias(key_padding_mask, attn_mask, dtype):
    """Both masks as one bias of the scores (B, H, N, M), or None."""
    if key_padding_mask is None:
        return None if attn_mask is None else F.mask_bias(attn_mask, dtype)
    bias = F.mask_bias(key_padding_mask, dtype)[:, None, None]
    return bias if attn_mask is None else bias + F.mask_bias(attn_mask, dtype)
