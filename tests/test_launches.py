"""What passes and steps would cost on a GPU, counted on the stand-in for CuPy (see numpyvit/testing/counting.py)."""

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import layers, optim
from numpyvit.testing import stand_in

D, HEADS = 192, 3


def cost(layer, x):
    """-> what forward and backward of a layer on the stand-in cost."""
    layer.to(stand_in)
    tape, x = nv.Tape(layer), stand_in.asarray(x)
    with stand_in.counting() as forward:
        y = layer.forward(x, tape)
    with stand_in.counting() as backward:
        layer.backward(y, tape)
    return forward, backward


# launches of the formulas, forward and backward: what kernels that do several of them at once are measured by
TODAY = [
    (lambda: layers.Linear(D, D), 2, 5),
    (lambda: layers.LayerNorm(D), 10, 13),
    (lambda: layers.GELU(), 11, 1),
    (lambda: layers.Attention(D, HEADS, qkv_bias=True), 16, 31),
    (lambda: layers.Mlp(D, 4 * D), 15, 11),
    (lambda: layers.Block(D, HEADS, qkv_bias=True), 53, 70),
]


@pytest.mark.parametrize("make, forward, backward", TODAY, ids=lambda value: "")
def test_launches_of_a_layer_of_vit_tiny_by_formulas_alone(rng, make, forward, backward):
    found = cost(make(), rng.standard_normal((2, 17, D)).astype(np.float32))
    assert [counts.launches for counts in found] == [forward, backward]


def test_launches_do_not_depend_on_the_size_of_a_batch(rng):
    x = rng.standard_normal((8, 33, D)).astype(np.float32)
    block = layers.Block(D, HEADS, qkv_bias=True)
    assert [counts.by_name("launches") for counts in cost(block, x)] == [
        counts.by_name("launches") for counts in cost(block, x[:2, :17])
    ]


def test_launches_of_a_step_of_vit_tiny_by_formulas_alone_and_replayed(rng):
    model = nv.VisionTransformer(32, 8, 3, 10, D, 12, HEADS).to(stand_in)
    step = nv.TrainStep(model, optim.AdamW(model), clip_norm=1.0)
    x, labels = stand_in.asarray(rng.standard_normal((2, 3, 32, 32)).astype(np.float32)), stand_in.asarray([1, 2])
    seen = []
    for _ in range(4):
        with stand_in.counting() as counts:
            step(x, labels)
        seen.append(counts)
    assert seen[1].launches == 1612
    assert seen[3].by_name("launches") == {"graph": 1, "copy": 3}
    assert not any(counts.synchronizations or counts.transfers for counts in seen[1:])


# ---- the rule itself ------------------------------------------------------------------------------------------------


def counted(function, *arrays):
    arrays = [stand_in.asarray(array) for array in arrays]
    with stand_in.counting() as seen:
        function(*arrays)
    return seen


X = np.ones((4, 3, 2), np.float32)


@pytest.mark.parametrize(
    "function, launches",
    [
        (lambda x: x + 1, 1),
        (lambda x: stand_in.exp(x, out=x), 1),
        (lambda x: x.sum(0), 1),
        (lambda x: x.max(-1, keepdims=True), 1),
        (lambda x: x.__iadd__(x), 1),
        (lambda x: x.fill(0), 1),
        (lambda x: x.copy(), 1),
        (lambda x: x.astype("float64"), 1),
        (lambda x: x.astype("float32", copy=False), 0),
        (lambda x: stand_in.zeros(3), 1),
        (lambda x: stand_in.empty(3), 0),
        (lambda x: (x[1:, ..., None], x.T, x.reshape(2, -1), x.swapaxes(0, 1)), 0),
        (lambda x: x.swapaxes(0, 1).reshape(-1), 1),
        (lambda x: stand_in.broadcast_to(x, (5, 4, 3, 2)), 0),
        (lambda x: x.__setitem__(slice(2), 0), 1),
        (lambda x: x[stand_in.arange(2)], 2),
        (lambda x: x[:2].__iadd__(1), 1),
        (lambda x: x.__setitem__(0, x[0]), 0),
        (lambda x: x.__setitem__(0, x[1]), 1),
        (lambda x: stand_in.launch("kernel", lambda: None), 1),
        (lambda x: stand_in.concatenate([x] * 8), 1),
        (lambda x: stand_in.matmul(x[0], x[0].T), 1),
        (lambda x: stand_in.matmul(x, x.swapaxes(1, 2)), 2),
    ],
)
def test_what_counts_as_a_launch(function, launches):
    seen = counted(function, X)
    assert (seen.launches, seen.synchronizations, seen.transfers) == (launches, 0, 0)


@pytest.mark.parametrize(
    "function, synchronizations, transfers",
    [
        (lambda x: x.get(), 1, 1),
        (lambda x: stand_in.asnumpy(x), 1, 1),
        (lambda x: nv.backend.to_host(x), 1, 1),
        (lambda x: stand_in.asarray(X), 0, 1),
        (lambda x: stand_in.asarray(x), 0, 0),
        (lambda x: x[x > 0], 1, 0),
        (lambda x: stand_in.concatenate([x] * 9), 0, 1),
    ],
)
def test_what_counts_as_a_synchronization_and_as_a_transfer(function, synchronizations, transfers):
    seen = counted(function, X)
    assert (seen.synchronizations, seen.transfers) == (synchronizations, transfers)


def test_each_count_is_of_its_own_context():
    x = stand_in.asarray(X)
    with stand_in.counting() as outer:
        x + x
        with stand_in.counting() as inner:
            x * x
    x - x
    assert outer.by_name("launches") == {"add": 1} and inner.by_name("launches") == {"multiply": 1}
    assert repr(outer) == "1 launches, 0 synchronizations, 0 transfers"
