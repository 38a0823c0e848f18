import copy

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.core import Layout, observing
from numpyvit.errors import CheckpointError, ConfigError, ShapeError, TapeError
from numpyvit.layers import Block, Dropout, Linear, Mlp

TINY = dict(img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2)


def tiny(**options):
    return nv.VisionTransformer(**{**TINY, **options})


def test_pop_by_the_wrong_layer_names_both():
    a, b = Linear(2, 2), Dropout(0.5)
    tape = nv.Tape(a)
    a.forward(np.ones((1, 2), np.float32), tape)
    with pytest.raises(TapeError, match="Dropout asked for what Linear saved last"):
        b.backward(np.ones((1, 2)), tape)
    assert tape.pending == 1


def test_more_backwards_than_forwards_is_an_error():
    with pytest.raises(TapeError, match="more often"):
        layer = Linear(2, 2)
        layer.backward(np.ones((1, 2)), nv.Tape(layer))


def test_a_gradient_of_another_shape_is_refused():
    layer = Linear(2, 3)
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3, 2\)"):
        nv.Tape(layer).add(layer.weight, np.zeros((2, 3)))


def test_gradients_are_views_of_one_buffer_and_zero_clears_them(rng):
    layer = Mlp(4, 6, dtype="float64")
    tape = nv.Tape(layer)
    layer.backward(layer.forward(rng.standard_normal((3, 4)), tape), tape)
    gradients = tape.gradients()
    assert list(gradients) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert all(gradient.base is not None and gradient.any() for gradient in gradients.values())
    tape.zero()
    assert not any(gradient.any() for gradient in gradients.values())


def test_decayed_parameters_come_first_in_the_layout():
    model = tiny(distilled=True)
    layout = Layout(model)
    split = sum(np.cumsum(layout.sizes) <= layout.decayed)
    kinds = {name.split(".")[-1] for name in layout.names[split:]}
    assert all(name.endswith("weight") for name in layout.names[:split])
    assert {"bias", "cls_token", "dist_token", "pos_embed"} <= kinds
    assert "norm.weight" in layout.names[split:]


def test_two_tapes_on_one_model_do_not_meet(rng):
    model, (x1, x2) = tiny(dtype="float64"), rng.standard_normal((2, 2, 1, 8, 8))
    alone = nv.Tape(model)
    model.backward(model.forward(x1, alone), alone)
    one, two = nv.Tape(model), nv.Tape(model)
    y1, y2 = model.forward(x1, one), model.forward(x2, two)
    model.backward(y1, one)
    model.backward(y2, two)
    assert np.array_equal(one.flat, alone.flat)
    assert not np.array_equal(two.flat, one.flat)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_checkpointed_layer_is_bit_equal(rng, seed):
    block = Block(8, 2, drop=0.3, attn_drop=0.2, drop_path=0.4)
    x, dy = rng.standard_normal((2, 4, 5, 8)).astype(np.float32)
    results = []
    for layer in (block, nv.Checkpoint(block)):
        tape = nv.Tape(layer, seed=seed)
        y = layer.forward(x, tape)
        pending = tape.pending
        drawn_after = None if seed is None else tape.random.random((2,))
        results.append((y, layer.backward(dy, tape), tape.flat.copy(), drawn_after, pending))
    (y, dx, flat, drawn, many), (y_c, dx_c, flat_c, drawn_c, one) = results
    assert np.array_equal(y, y_c) and np.array_equal(dx, dx_c) and np.array_equal(flat, flat_c)
    assert seed is None or np.array_equal(drawn, drawn_c)
    assert one == 1 < many


def test_a_checkpointed_model_keeps_timms_names_and_gradients(rng):
    model = tiny(drop_rate=0.2, dtype="float64")
    x = rng.standard_normal((3, 1, 8, 8))
    tape = nv.Tape(model, seed=1)
    model.backward(model.forward(x, tape), tape)
    again = copy.deepcopy(model)
    again.blocks = [nv.Checkpoint(block) for block in again.blocks]
    tape_again = nv.Tape(again, seed=1)
    again.backward(again.forward(x, tape_again), tape_again)
    assert list(tape.gradients()) == list(tape_again.gradients())
    assert np.array_equal(tape.flat, tape_again.flat)


def test_state_dict_is_a_snapshot_and_round_trips():
    model, other = tiny(seed=0), tiny(seed=1)
    state = model.state_dict()
    model.cls_token.data += 1
    assert not np.array_equal(state["cls_token"], model.cls_token.data)
    assert other.load_state_dict(state) == ([], [])
    assert all(np.array_equal(state[name], p.data) for name, p in other.named_parameters())


def test_a_state_dict_that_does_not_fit_lists_everything_and_changes_nothing():
    model = tiny()
    state, before = model.state_dict(), model.state_dict()
    del state["norm.weight"]
    state["extra.bias"] = np.zeros(3)
    state["head.weight"] = np.zeros((4, 8))
    state["cls_token"] = state["cls_token"] + 1
    with pytest.raises(CheckpointError) as caught:
        model.load_state_dict(state)
    for part in ("missing norm.weight", "unexpected extra.bias", "head.weight: given (4, 8), expected (3, 8)"):
        assert part in str(caught.value)
    assert all(np.array_equal(before[name], p.data) for name, p in model.named_parameters())


def test_loading_that_is_not_strict_returns_the_names():
    model = tiny()
    state = model.state_dict()
    del state["norm.weight"]
    state["extra"] = np.zeros(3)
    assert model.load_state_dict(state, strict=False) == (["norm.weight"], ["extra"])
    with pytest.raises(CheckpointError, match="expected"):
        model.load_state_dict({"head.bias": np.zeros(9)}, strict=False)


def test_a_layer_that_stands_twice_is_named_once_and_gets_both_gradients(rng):
    class Shared(nv.Layer):
        def __init__(self):
            self.first = Linear(4, 4, dtype="float64")
            self.layers = [self.first, self.first]

        def forward(self, x, tape=nv.FORGET):
            for layer in self.layers:
                x = layer.forward(x, tape)
            return x

        def backward(self, dy, tape):
            for layer in reversed(self.layers):
                dy = layer.backward(dy, tape)
            return dy

    layer = Shared()
    assert [name for name, _ in layer.named_parameters()] == ["first.weight", "first.bias"]
    nv.testing.gradcheck(nv.testing.randomize(layer), rng.standard_normal((3, 4)), rtol=1e-7)


def test_observing_sees_each_layer_and_lets_go(rng):
    model, seen = tiny(), []
    with observing(model, lambda name, layer, y: seen.append(name)):
        model(rng.standard_normal((1, 1, 8, 8)).astype(np.float32))
    assert {"blocks.0.attn.qkv", "blocks.1.mlp", "head", ""} <= set(seen)
    assert seen.index("blocks.0.attn.qkv") < seen.index("blocks.0.attn")
    count = len(seen)
    model(rng.standard_normal((1, 1, 8, 8)).astype(np.float32))
    assert len(seen) == count and "forward" not in vars(model)


def test_mixed_dtypes_are_refused():
    model = tiny()
    model.cls_token.data = model.cls_token.data.astype("float64")
    with pytest.raises(ConfigError, match="one dtype"):
        nv.Tape(model)


def test_random_draws_follow_the_seed_alone():
    from numpyvit.backend import Random

    a, b, c = Random(1).random((5,)), Random(1).random((5,)), Random((1, 2)).random((5,))
    assert a.dtype == np.float32 and np.array_equal(a, b) and not np.array_equal(a, c)
    assert ((a >= 0) & (a < 1)).all()


def test_a_cuda_device_without_cupy_or_gpu_is_explained():
    with pytest.raises(ConfigError, match="device='cuda'"):
        tiny().to("cuda")
    with pytest.raises(ConfigError, match="'cpu' or 'cuda'"):
        tiny().to("tpu")


def test_a_parameter_may_be_a_single_number():
    layer = Linear(2, 2)
    layer.scale = nv.core.Parameter(np.array(2.0, np.float32))
    tape = nv.Tape(layer)
    tape.add(layer.scale, np.array(3.0, np.float32))
    assert tape.gradient(layer.scale) == 3
