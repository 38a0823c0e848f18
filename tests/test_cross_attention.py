"""MultiheadAttention with its masks, positions, and the layers of DETR's encoder and decoder."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.errors import ConfigError, ShapeError
from numpyvit.layers import (
    Attention,
    Embedding,
    EncoderLayer,
    LearnedPosition,
    MultiheadAttention,
    SinePosition,
)
from numpyvit.testing import gradcheck, randomize


def test_of_one_origin_it_is_self_attention(rng):
    own, other = Attention(8, 2, qkv_bias=True, dtype="float64"), MultiheadAttention(8, 2, dtype="float64")
    randomize(own)
    names = {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias", "proj.weight": "out_proj.weight"}
    other.load_state_dict({names.get(name, "out_proj.bias"): array for name, array in own.state_dict().items()})
    x = rng.standard_normal((2, 5, 8))
    np.testing.assert_allclose(other(x, x, x), own(x), rtol=1e-12)


def test_padding_is_as_if_it_were_not_there(rng):
    layer = randomize(MultiheadAttention(8, 2, dtype="float64"))
    q, k, v = rng.standard_normal((2, 3, 8)), rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 5, 8))
    mask = np.array([[False] * 5, [False, False, False, True, True]])
    y = layer(q, k, v, key_padding_mask=mask)
    np.testing.assert_allclose(y[:1], layer(q[:1], k[:1], v[:1]), rtol=1e-12)
    np.testing.assert_allclose(y[1:], layer(q[1:], k[1:, :3], v[1:, :3]), rtol=1e-12)
    tape = nv.Tape(layer)
    layer.forward(q, k, v, tape, mask)
    _, dk, dv = layer.backward(np.ones_like(y), tape)
    assert (dk[1, 3:] == 0).all() and (dv[1, 3:] == 0).all() and (dv[1, :3] != 0).any()


def test_the_gradients_agree_with_differences_under_masks(rng):
    layer = randomize(MultiheadAttention(8, 2, 0.2))
    q, k, v = rng.standard_normal((2, 3, 8)), rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 5, 8))
    padding = np.array([[False] * 5, [False, False, False, True, True]])
    order, one_a_head = rng.random((3, 5)) < 0.3, rng.standard_normal((2, 2, 3, 5))
    for attn_mask in (None, order, one_a_head):
        gradcheck(layer, q, k, v, seed=0, rtol=1e-7, key_padding_mask=padding, attn_mask=attn_mask)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_query_that_may_look_nowhere_stays_finite(rng, dtype):
    layer = MultiheadAttention(8, 2, dtype=dtype)
    x = rng.standard_normal((2, 5, 8)).astype(dtype)
    tape = nv.Tape(layer)
    y = layer.forward(x, x, x, tape, np.ones((2, 5), bool), np.ones((5, 5), bool))
    assert y.dtype == dtype and np.isfinite(y).all()
    assert all(np.isfinite(dx).all() for dx in layer.backward(np.ones_like(y), tape))


def test_inputs_that_do_not_fit_are_named(rng):
    layer = MultiheadAttention(8, 2)
    x = np.zeros((2, 5, 8), np.float32)
    with pytest.raises(ShapeError, match=r"expected \(\.\.\., 8\)"):
        layer(x, x, x[..., :7])
    with pytest.raises(ShapeError, match=r"twice \(batch, keys, width\)"):
        layer(x, x[:, :3], x)
    with pytest.raises(ConfigError, match="width 9 must be divisible by num_heads=2"):
        MultiheadAttention(9, 2)


# ---- positions ------------------------------------------------------------------------------------------------------


def sines_of_the_paper(valid, dim):
    """Number by number, as the code of the paper has it."""
    h, w = valid.shape
    y = np.zeros((h, w, dim))
    for i in range(h):
        for j in range(w):
            row, column = valid[: i + 1, j].sum(), valid[i, : j + 1].sum()
            row = row / (valid[:, j].sum() + 1e-6) * 2 * np.pi
            column = column / (valid[i].sum() + 1e-6) * 2 * np.pi
            for k in range(dim // 2):
                wave = np.sin if k % 2 == 0 else np.cos
                period = 10000 ** (2 * (k // 2) / (dim // 2))
                y[i, j, k], y[i, j, dim // 2 + k] = wave(row / period), wave(column / period)
    return y.reshape(h * w, dim)


def test_sine_positions_are_those_of_the_paper():
    mask = np.zeros((2, 4, 5), bool)
    mask[1, 3:], mask[1, :, 2:] = True, True
    x = np.zeros((2, 3, 4, 5))
    y = SinePosition(8)(x, mask)
    for i in range(2):
        np.testing.assert_allclose(y[i], sines_of_the_paper(~mask[i], 8), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(SinePosition(8)(x), y[:1])
    assert SinePosition(8)(x.astype(np.float32), mask).dtype == np.float32


def test_learned_positions_are_the_columns_vector_and_the_rows(rng):
    layer, x = LearnedPosition(6, dtype="float64"), np.zeros((2, 3, 4, 5))
    y = layer(x)
    assert y.shape == (1, 20, 6)
    np.testing.assert_array_equal(y[0, 2 * 5 + 3, :3], layer.col_embed.weight.data[3])
    np.testing.assert_array_equal(y[0, 2 * 5 + 3, 3:], layer.row_embed.weight.data[2])
    tape, dy = nv.Tape(layer), rng.standard_normal((2, 20, 6))
    layer.forward(x, None, tape)
    layer.backward(dy, tape)
    dmap = dy.sum(0).reshape(4, 5, 6)
    np.testing.assert_allclose(tape.gradient(layer.col_embed.weight)[:5], dmap[..., :3].sum(0), rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(layer.row_embed.weight)[:4], dmap[..., 3:].sum(1), rtol=1e-12)
    assert (tape.gradient(layer.row_embed.weight)[4:] == 0).all() and tape.pending == 0
    with pytest.raises(ShapeError, match="51x2 tokens, expected at most 50"):
        layer(np.zeros((1, 3, 51, 2)))


def test_an_embedding_gives_each_index_its_vector(rng):
    layer = Embedding(4, 3, dtype="float64")
    index = np.array([[2, 0, 2], [1, 2, 2]])
    np.testing.assert_array_equal(layer(index), layer.weight.data[index])
    gradcheck(layer, index, rtol=1e-7)


def test_encoder_layers_do_not_see_padding(rng):
    layer = randomize(EncoderLayer(8, 2, 12, dtype="float64"))
    x, pos = rng.standard_normal((1, 6, 8)), rng.standard_normal((1, 6, 8))
    mask = np.array([[False] * 4 + [True] * 2])
    padded, _, _ = layer((x, pos, mask))
    cut, _, _ = layer((x[:, :4], pos[:, :4], None))
    np.testing.assert_allclose(padded[:, :4], cut, rtol=1e-12)
