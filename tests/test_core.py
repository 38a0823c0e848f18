import copy

import numpy as np
import pytest
from conftest import tiny

import numpyvit as nv
from numpyvit.core import Layout, observing
from numpyvit.errors import CheckpointError, ConfigError, ShapeError, TapeError
from numpyvit.layers import Block, Dropout, Linear, Mlp
from numpyvit.testing import gradcheck


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
    for layer in (block, nv.Recompute(block)):
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
    again.set_grad_checkpointing()
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


# ---- names, nested lists, buffers -----------------------------------------------------------------------------------


class Nested(nv.Layer):
    """Layers in a list of lists, as the stages of a pyramid are."""

    def __init__(self, *, dtype="float32", seed=0):
        rng = np.random.default_rng(seed)
        self.stages = [[Linear(4, 4, dtype=dtype, seed=rng) for _ in range(2)] for _ in range(2)]
        self.mask = nv.Buffer(np.arange(4.0, dtype=dtype), saved=True)
        self.index = nv.Buffer(np.arange(4))

    def forward(self, x, tape=nv.FORGET):
        for layer in (*self.stages[0], *self.stages[1]):
            x = layer.forward(x, tape)
        return x * self.mask.data

    def backward(self, dy, tape):
        dy = dy * self.mask.data
        for layer in reversed((*self.stages[0], *self.stages[1])):
            dy = layer.backward(dy, tape)
        return dy


def test_layers_in_lists_of_lists_have_names_gradients_and_updates(rng):
    layer = Nested()
    assert [name for name, _ in layer.named_parameters()][-2:] == ["stages.1.1.weight", "stages.1.1.bias"]
    before, tape = layer.state_dict(), nv.Tape(layer)
    gradcheck(Nested(dtype="float64"), rng.standard_normal((3, 4)))
    layer.backward(layer.forward(rng.standard_normal((3, 4)).astype(np.float32), tape), tape)
    nv.optim.AdamW(layer, lr=0.1).step(tape)
    after = layer.state_dict()
    assert all(not np.array_equal(before[name], after[name]) for name, _ in layer.named_parameters())


HIDING = {"dict": lambda x: {"a": x}, "list": lambda x: [{"a": [x]}], "set": lambda x: {x}}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
def test_layers_that_have_no_name_are_refused(hide):
    layer = nv.Layer()
    layer.parts = hide(Linear(2, 2))
    with pytest.raises(ConfigError, match="use a list"):
        list(layer.named_parameters())


def test_a_trainable_parameter_that_the_tape_does_not_know_is_an_error(rng):
    layer, tape = Linear(4, 4), None
    layer.freeze("bias")
    tape = nv.Tape(layer)
    layer.unfreeze("bias")
    layer.forward(np.ones((2, 4), np.float32), tape)
    with pytest.raises(TapeError, match=r"Parameter\(4,\).*unfrozen"):
        tape.add(layer.bias, np.ones(4, np.float32))
    with pytest.raises(ShapeError, match=r"weight: got a gradient of shape \(4,\)"):
        tape.add(layer.weight, np.ones(4, np.float32))


def test_buffers_move_and_are_saved_but_are_never_trained():
    layer = Nested()
    assert layer.num_parameters() == 4 * 20 and [name for name, _ in layer.named_buffers()] == ["mask", "index"]
    state = layer.state_dict()
    assert "mask" in state and "index" not in state
    layer.astype("float64")
    assert layer.mask.data.dtype == np.float64 and layer.index.data.dtype.kind == "i"
    layer.load_state_dict({**state, "mask": np.full(4, 7.0)})
    assert (layer.mask.data == 7).all()
    layer.freeze("*").unfreeze("*")
    assert all(name.startswith("stages") for name in nv.Tape(layer).gradients())


def test_errors_name_a_layer_by_the_name_it_has_now(rng):
    model, x = tiny(), np.zeros((1, 1, 8, 8), np.float32)
    model.blocks[1] = copy.deepcopy(model.blocks[0])
    model.blocks[1].mlp.fc1.weight.data = np.zeros((16, 7), np.float32)
    with pytest.raises(ShapeError, match=r"^blocks\.1\.mlp\.fc1 \(Linear\)"):
        model(x)
    with pytest.raises(ShapeError, match=r"^blocks\.1\.mlp\.fc1 \(Linear\)"):
        model.forward(x, nv.Tape(model))
    block = Block(8, 2, qkv_bias=True)
    with pytest.raises(ShapeError, match=r"^norm1 \(LayerNorm\)"):
        block(np.zeros((1, 5, 7), np.float32))
    model.blocks[1], block.attn.qkv.weight.data = block, np.zeros((24, 7), np.float32)
    with pytest.raises(ShapeError, match=r"^blocks\.1\.attn\.qkv \(QKV\)"):
        model(x)


def test_parts_of_a_transparent_part_are_the_models_own():
    model = tiny()
    assert model.cls_token is model.embed.cls_token and model.head is model.classifier.head
    model.head = Linear(8, 5)
    assert model.classifier.head is model.head and "head" not in vars(model)
    assert model(np.zeros((1, 1, 8, 8), np.float32)).shape == (1, 5)
    assert [name for name, _ in model.named_parameters()].count("head.weight") == 1
    with pytest.raises(AttributeError, match="no attribute 'heads'"):
        model.heads  # noqa: B018
    model.embed._derived = 1
    with pytest.raises(AttributeError, match="no attribute '_derived'"):
        model._derived  # noqa: B018


def test_models_optimizers_and_tapes_print_what_they_are():
    model = tiny()
    assert repr(nv.optim.AdamW(model, lr=0.1)) == "AdamW(lr=0.1, weight_decay=0.05, steps=0, 1,971 weights)"
    assert repr(nv.Tape(model, seed=0)) == ("Tape(VisionTransformer, 1,971 gradients, dropout on, 0 residuals pending)")
    text = repr(model)
    assert "0 to 1, 2 equal: Block" in text
    assert "weight: Parameter(24, 8)" in text and "0x" not in text


@pytest.mark.parametrize("trained", ["head*", "blocks.1*", "blocks.0.ls1*", "patch_embed*", "pos_embed", "norm.*"])
def test_the_gradient_of_what_is_trained_does_not_depend_on_what_is_frozen(rng, trained):
    model = nv.ModernVisionTransformer(
        img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2, init_values=0.3
    )
    x, dy = rng.standard_normal((2, 1, 8, 8)).astype(np.float32), rng.standard_normal((2, 3)).astype(np.float32)
    whole = nv.Tape(model)
    model.forward(x, whole)
    model.backward(dy, whole)
    expected = whole.gradients()
    model.freeze()
    model.unfreeze(trained)
    tape = nv.Tape(model, input_gradient=False)
    model.forward(x, tape)
    assert model.backward(dy, tape) is None and tape.pending == 0
    assert tape.gradients() and all(np.array_equal(g, expected[name]) for name, g in tape.gradients().items())


def test_features_have_gradients(rng):
    model, x = tiny(dtype="float64"), rng.standard_normal((2, 1, 8, 8))

    class Trunk(nv.Layer):
        def __init__(self):
            self.body = model

        def forward(self, x, tape=nv.FORGET):
            return self.body.features(x, tape)

        def backward(self, dy, tape):
            return self.body.features_backward(dy, tape)

    trunk = Trunk()
    model.freeze("norm.*", "head.*")
    errors = gradcheck(trunk, x)
    assert "body.pos_embed" in errors and "input 0" in errors


# ---- what tapes and layers promise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3])
def test_a_tape_draws_on_as_without_checkpointing(rng, seed):
    """Forward, backward and forward again on one tape: recomputing leaves no trace in the random stream."""
    x, found = rng.standard_normal((4, 1, 8, 8)), []
    for checkpointing in (False, True):
        model = tiny(drop_rate=0.3, attn_drop_rate=0.2, drop_path_rate=0.4, dtype="float64")
        model.set_grad_checkpointing(checkpointing)
        tape = nv.Tape(model, seed=seed)
        first = model.forward(x, tape)
        model.backward(first, tape)
        second = model.forward(x, tape)
        found.append((first, second, model.backward(second, tape), tape.flat))
    assert all(map(np.array_equal, *found))
    assert np.array_equal(first, second) == (seed is None)


def test_what_was_saved_last_comes_first_and_all_can_be_seen_and_dropped():
    a, b = Linear(2, 2), Linear(2, 2)
    tape = nv.Tape(a)
    tape.push(a, 1, 2)
    tape.push(b)
    tape.push(a, 3)
    assert tape.pending == 3 and tape.residuals() == [(a, (1, 2)), (b, ()), (a, (3,))]
    assert tape.pop(a) == (3,) and tape.pop(b) == () and tape.pop(a) == (1, 2) and tape.pending == 0
    tape.push(a, 1)
    tape.discard()
    assert tape.pending == 0 and tape.residuals() == []


def test_gradients_lie_one_after_another_in_the_order_of_the_layout():
    model = tiny(dtype="float64")
    tape = nv.Tape(model)
    tape.flat[...] = np.arange(tape.flat.size)
    found, parameters = tape.gradients(), dict(model.named_parameters())
    assert list(found) == list(parameters)
    flat = np.concatenate([found[name].ravel() for name in tape.layout.names])
    assert np.array_equal(flat, np.arange(sum(p.data.size for p in parameters.values())))
    for name, parameter in parameters.items():
        assert found[name].shape == parameter.data.shape and tape.wants(parameter)
        assert tape.gradient(parameter) is found[name]


def test_gradients_add_up_and_frozen_parameters_get_none():
    layer = Linear(2, 3, dtype="float64")
    tape = nv.Tape(layer)
    tape.add(layer.weight, np.arange(6.0).reshape(3, 2))
    tape.add(layer.weight, np.full((3, 2), 5.0))
    assert tape.gradients()["weight"].tolist() == [[5, 6], [7, 8], [9, 10]]
    layer.weight.trainable = False
    tape = nv.Tape(layer)
    tape.add(layer.weight, np.ones((3, 2)))
    assert not tape.wants(layer.weight) and list(tape.gradients()) == ["bias"]


def test_matrices_decay_unless_told_otherwise():
    decays = [nv.Parameter(np.zeros(shape)).decay for shape in ((), (3,), (2, 3), (1, 2, 3))]
    assert decays == [False, False, True, True]
    assert nv.Parameter(np.zeros(3), decay=True).decay and not nv.Parameter(np.zeros((2, 2)), decay=False).decay
    assert nv.Parameter(np.zeros(3)).trainable and not nv.Parameter(np.zeros(3), False).trainable


def test_the_tape_and_the_optimizer_know_decayed_parameters_by_their_place():
    layer = Linear(2, 3)
    layer.extra = nv.Parameter(np.zeros(5, np.float32), decay=True)
    layout = Layout(layer)
    assert layout.names == ["weight", "extra", "bias"] and layout.sizes == [6, 5, 3]
    assert layout.decayed == 11 and layout.size == 14
    assert layout.zeros().shape == (14,) and layout.zeros().dtype == layout.dtype == np.float32


def test_children_are_parameters_and_layers_in_the_order_of_their_attributes():
    class Holder(nv.Layer):
        def __init__(self):
            self.b = Linear(2, 2, bias=False)
            self._hidden = Linear(2, 2)
            self.number, self.numbers, self.words = 3, [1, 2], {"a": "b"}
            self.a = [nv.Parameter(np.zeros(2)), "text", Dropout()]

    holder = Holder()
    assert [name for name, _ in holder.children()] == ["b", "a.0", "a.2"]
    assert [name for name, _ in holder.named_parameters()] == ["b.weight", "a.0"]
    assert list(holder.named_layers()) == [("", holder), ("b", holder.b), ("a.2", holder.a[2])]


def test_freezing_and_unfreezing_by_pattern():
    model = tiny()
    trained = lambda: {name for name, p in model.named_parameters() if p.trainable}  # noqa: E731
    every, size = trained(), model.num_parameters()
    assert model.freeze("blocks.[0-5].*", "cls_token") is model
    assert trained() == {name for name in every if not name.startswith("blocks.") and name != "cls_token"}
    model.unfreeze("blocks.1.*")
    assert trained() == {name for name in every if not name.startswith("blocks.0.") and name != "cls_token"}
    model.freeze()
    assert trained() == set() and model.num_parameters() == size == sum(
        p.data.size for _, p in model.named_parameters()
    )
    model.unfreeze()
    assert trained() == every


def test_a_model_is_converted_and_moved_whole():
    model = tiny()
    before = model.state_dict()
    assert model.astype("float64") is model and model.to("cpu") is model
    for name, parameter in model.named_parameters():
        assert parameter.data.dtype == np.float64 and np.array_equal(parameter.data, before[name])


def test_a_state_dict_is_taken_with_the_models_type_and_leaves_its_arrays_alone():
    model, state = tiny(), tiny(seed=1, dtype="float64").state_dict()
    arrays = {name: parameter.data for name, parameter in model.named_parameters()}
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        assert parameter.data is arrays[name] and parameter.data.dtype == np.float32
        assert np.array_equal(parameter.data, state[name].astype(np.float32))


def test_observing_backward_sees_the_gradients_in_reverse(rng):
    layer, seen = Mlp(4, 6, dtype="float64"), []
    tape = nv.Tape(layer)
    y = layer.forward(rng.standard_normal((3, 4)), tape)
    with observing(layer, lambda name, part, dx: seen.append((name, part, dx.shape)), "backward"):
        layer.backward(y, tape)
    assert [name for name, _, _ in seen] == ["drop2", "fc2", "drop1", "act", "fc1", ""]
    assert seen[1] == ("fc2", layer.fc2, (3, 6)) and seen[-1] == ("", layer, (3, 4))
    assert "backward" not in vars(layer.fc1)


def test_parameters_under_an_optimizer_are_views_of_one_buffer():
    layer = Linear(3, 2)
    before = layer.state_dict()
    optimizer = nv.optim.SGD(layer)
    assert all(np.shares_memory(p.data, optimizer.weights.flat) for _, p in layer.named_parameters())
    assert all(np.array_equal(before[name], p.data) for name, p in layer.named_parameters())
    tape = nv.Tape(layer)
    for wrong in (np.zeros((2, 3)), np.zeros((3, 2), np.float32)):
        layer.weight.data = wrong
        with pytest.raises(ConfigError, match="make a new optimizer"):
            optimizer.step(tape)


def test_a_tape_for_looking_keeps_what_checkpointing_would_leave_out(rng):
    block, x = nv.Recompute(Block(8, 2, dtype="float64")), rng.standard_normal((2, 5, 8))
    short, whole = nv.Tape(block), nv.Tape(block, record_all=True)
    assert np.array_equal(block.forward(x, short), block.forward(x, whole))
    assert short.pending == 1 < whole.pending
    assert np.array_equal(block.backward(x, short), block.backward(x, whole))
    assert np.array_equal(short.flat, whole.flat) and short.pending == whole.pending == 0


def test_a_stream_can_be_put_back_and_started_again():
    tape = nv.Tape(Linear(2, 2), seed=(1, 2))
    state = tape.random.state
    first = tape.random.random((3, 2))
    assert first.shape == (3, 2) and not np.array_equal(first, tape.random.random((3, 2)))
    tape.random.state = state
    assert np.array_equal(first, tape.random.random((3, 2)))
    tape.reseed((1, 2))
    assert np.array_equal(first, tape.random.random((3, 2)))
    tape.reseed(None)
    assert tape.random is None


@pytest.mark.parametrize(
    "build", [lambda: Linear(4, 4), lambda: nv.layers.PatchEmbed(4, 2, 1, 4)], ids=["Linear", "PatchEmbed"]
)
def test_backward_of_what_was_unfrozen_after_the_tape_was_made_is_an_error(build):
    layer = build().freeze()
    tape = nv.Tape(layer)
    layer.unfreeze()
    y = layer.forward(np.ones((1, 1, 4, 4), np.float32), tape)
    with pytest.raises(TapeError, match="unfrozen"):
        layer.backward(y, tape)


def test_a_layer_kept_where_it_is_not_found_is_an_error():
    class Hiding(nv.Layer):
        def __init__(self):
            self.a, self._b = Linear(4, 4), Linear(4, 4)

        def forward(self, x, tape=nv.FORGET):
            return self._b.forward(self.a.forward(x, tape), tape)

        def backward(self, dy, tape):
            return self.a.backward(self._b.backward(dy, tape), tape)

    layer = Hiding()
    tape = nv.Tape(layer)
    y = layer.forward(np.ones((2, 4), np.float32), tape)
    with pytest.raises(TapeError, match="kept where it is not found"):
        layer.backward(y, tape)


def test_weights_whose_arrays_were_swapped_keep_their_values():
    a, b = Linear(3, 3, seed=1), Linear(3, 3, seed=2)
    both = nv.layers.Sequence([a, b])
    weights = nv.optim.SGD(both).weights
    first, second = a.weight.data.copy(), b.weight.data.copy()
    a.weight.data, b.weight.data = b.weight.data, a.weight.data
    weights.current()
    assert np.array_equal(a.weight.data, second) and np.array_equal(b.weight.data, first)


def test_an_optimizer_made_later_decays_what_is_to_be_decayed_then():
    layer = Linear(4, 4)
    nv.optim.AdamW(layer)
    layer.weight.decay = False
    assert [chunk[2] for chunk in nv.optim.AdamW(layer, weight_decay=1.0).chunks()] == [0.0]


def test_a_model_and_its_parts_share_one_buffer_and_keep_their_own_names():
    model = tiny()
    nv.optim.AdamW(model.embed)
    assert nv.optim.AdamW(model).weights is nv.optim.EMA(model).weights
    holder = nv.layers.Sequence([model])
    nv.Tape(holder)
    assert model.path == "0 (VisionTransformer)" and model.blocks[1].path == "0.blocks.1 (Block)"


def test_recomputing_a_transparent_part_leaves_its_names():
    model = tiny()
    names = [name for name, _ in model.named_parameters()]
    model.embed = nv.Recompute(model.embed)
    assert [name for name, _ in model.named_parameters()] == names


def test_a_sequence_keeps_what_is_recomputed_and_wraps_nothing_twice():
    a, b = nv.Recompute(Linear(2, 2)), Linear(2, 2)
    layers = nv.layers.Sequence([a, b])
    assert layers.layers == [a, b]
    layers.set_recompute()
    layers[1] = nv.Recompute(b)
    assert [layer.layer for layer in layers.layers] == [a.layer, b]


def test_a_frozen_layer_that_stands_in_two_places_leaves_nothing_on_the_tape(rng):
    shared, b, c = Linear(4, 4), Linear(4, 4), Linear(4, 4)
    layers = nv.layers.Sequence([shared, b, c, shared])
    shared.freeze()
    b.freeze()
    tape = nv.Tape(layers, input_gradient=False)
    layers.backward(layers.forward(rng.standard_normal((2, 4)).astype(np.float32), tape), tape)
    assert tape.pending == 0 and set(tape.gradients()) == {"2.weight", "2.bias"}


class Reversed(nv.Layer):
    """Its head was set before its body, though the data passes through the body first."""

    def __init__(self, body):
        self.head = nv.layers.Sequence([Linear(3, 2)])
        self.body = body

    def forward(self, x, tape=nv.layers.FORGET):
        return self.head.forward(self.body.forward(x, tape), tape)

    def backward(self, dy, tape):
        dy = self.head.backward(dy, tape)
        return None if dy is None else self.body.backward(dy, tape)


def test_a_frozen_layer_set_before_the_trained_one_that_it_follows_is_an_error(rng):
    model, x = Reversed(Linear(4, 3)), rng.standard_normal((2, 4)).astype(np.float32)
    optimizer = nv.optim.SGD(model)
    nv.TrainStep(model, optimizer)(x, np.array([0, 1]))  # nothing is frozen
    model.head.freeze()
    model.set_paths()
    optimizer = nv.optim.SGD(model)
    tape = nv.Tape(model, input_gradient=False)
    model.backward(model.forward(x, tape), tape)
    before = model.body.weight.data.copy()
    for step in (lambda: optimizer.step(tape), lambda: nv.TrainStep(model, optimizer)(x, np.array([0, 1]))):
        with pytest.raises(TapeError, match=r"did not come to body \(Linear\).*in the order"):
            step()
    assert np.array_equal(model.body.weight.data, before) and optimizer.steps == 0
    tape.discard()
    optimizer.step(tape)
