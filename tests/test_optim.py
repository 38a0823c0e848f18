import math
from functools import partial

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import optim
from numpyvit.backend import to_host
from numpyvit.errors import CheckpointError, ConfigError, TapeError
from numpyvit.layers import LayerNorm, Linear, Mlp


def with_gradient(layer, seed=0):
    """A tape of the layer whose gradients are random."""
    tape = nv.Tape(layer)
    tape.flat[...] = np.random.default_rng(seed).standard_normal(tape.flat.size)
    return tape


def plain_adamw(theta, gradients, lr, betas, eps, decay):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        theta = theta * (1 - lr * decay)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        theta = theta - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return theta


def test_adamw_is_the_published_formula():
    layer = Linear(300, 200, dtype="float64")  # more than one chunk
    weight, bias = layer.weight.data.copy(), layer.bias.data.copy()
    optimizer = optim.AdamW(layer, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    gradients = []
    for seed in range(4):
        tape = with_gradient(layer, seed)
        gradients.append({name: g.copy() for name, g in tape.gradients().items()})
        optimizer.step(tape)
    expected = plain_adamw(weight, [g["weight"] for g in gradients], 0.01, (0.8, 0.95), 1e-6, 0.3)
    np.testing.assert_allclose(layer.weight.data, expected, rtol=1e-12, atol=1e-15)
    expected = plain_adamw(bias, [g["bias"] for g in gradients], 0.01, (0.8, 0.95), 1e-6, 0.0)
    np.testing.assert_allclose(layer.bias.data, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_the_published_formula(momentum, nesterov):
    layer = Linear(3, 2, dtype="float64")
    theta, u = layer.weight.data.copy(), 0.0
    optimizer = optim.SGD(layer, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.2)
    for seed in range(3):
        tape = with_gradient(layer, seed)
        g = tape.gradients()["weight"] + 0.2 * theta
        u = momentum * u + g
        theta = theta - 0.1 * (g + momentum * u if nesterov else u)
        optimizer.step(tape)
    np.testing.assert_allclose(layer.weight.data, theta, rtol=1e-12)


@pytest.mark.parametrize(
    "build", [partial(nv.VisionTransformer, distilled=True), partial(nv.ModernVisionTransformer, reg_tokens=2)]
)
def test_weight_decay_leaves_out_biases_norms_and_tokens(build):
    model = build(8, 4, 1, 3, embed_dim=8, depth=1, num_heads=2)
    before = model.state_dict()
    tape = nv.Tape(model)  # gradients 0: only decay acts
    optim.AdamW(model, lr=0.1, weight_decay=0.5).step(tape)
    for name, now in model.state_dict().items():
        decays = name.endswith("weight") and "norm" not in name
        np.testing.assert_allclose(now, before[name] * (0.95 if decays else 1), rtol=1e-6)


def test_frozen_parameters_stay():
    layer = Mlp(4, 4)
    layer.fc1.freeze()
    before = layer.state_dict()
    optim.AdamW(layer, lr=0.1).step(with_gradient(layer))
    after = layer.state_dict()
    assert np.array_equal(before["fc1.weight"], after["fc1.weight"])
    assert not np.array_equal(before["fc2.weight"], after["fc2.weight"])


def test_freezing_after_the_optimizer_was_made_is_an_error():
    layer = Mlp(4, 4)
    optimizer = optim.AdamW(layer)
    layer.fc1.freeze()
    with pytest.raises(ConfigError, match="make both again"):
        optimizer.step(nv.Tape(layer))


def test_a_replaced_array_is_taken_in():
    layer = Linear(2, 2)
    optimizer = optim.SGD(layer, lr=1.0)
    layer.weight.data = np.full((2, 2), 5.0, np.float32)
    tape = nv.Tape(layer)
    tape.gradients()["weight"][...] = 1
    optimizer.step(tape)
    assert (layer.weight.data == 4).all()


def test_clipping_scales_to_the_global_norm():
    layer = Mlp(4, 4, dtype="float64")
    tape = with_gradient(layer)
    before = tape.flat.copy()
    norm = optim.clip_global_norm(tape, 0.5)
    assert norm == pytest.approx(np.linalg.norm(before))
    np.testing.assert_allclose(tape.flat, before * 0.5 / (norm + 1e-6))
    clipped = tape.flat.copy()
    optim.clip_global_norm(tape, 10.0)
    assert np.array_equal(tape.flat, clipped)


def test_clipping_of_tiny_gradients_divides_by_no_zero():
    """The norm is taken 1e-6 larger, as in PyTorch."""
    for start, expected in ((1e-6, 0.5e-6), (0.0, 0.0), (3e-6, 0.75e-6)):
        layer = Linear(1, 1, bias=False, dtype="float64")
        tape = nv.Tape(layer)
        tape.flat[...] = start
        assert optim.clip_global_norm(tape, 1e-6) == pytest.approx(start)
        assert tape.flat[0] == pytest.approx(expected)


def test_the_state_holds_the_moments_under_their_names():
    layer = Linear(3, 2, dtype="float64")
    g = with_gradient(layer)
    for optimizer, expected in (
        (optim.AdamW(layer, betas=(0.8, 0.9)), {"m": 0.2 * g.flat, "v": 0.1 * g.flat**2}),
        (optim.SGD(layer, momentum=0.9), {"u": g.flat}),
    ):
        optimizer.step(g)
        state = optimizer.state_dict()
        assert state.pop("step") == 1 and state.keys() == expected.keys()
        for name, moment in state.items():
            np.testing.assert_allclose(moment, expected[name], rtol=1e-12)


def test_the_moving_average_is_the_published_formula(rng):
    layer = Linear(4, 3, dtype="float64")
    ema, expected = optim.EMA(layer, decay=0.3), layer.weight.data.copy()
    for t in range(1, 8):
        layer.weight.data[...] = rng.standard_normal((3, 4))
        beta = min(0.3, (1 + t) / (10 + t))
        expected = beta * expected + (1 - beta) * layer.weight.data
        ema.update()
    assert ema.state_dict()["step"] == 7
    ema.copy_to_model()
    np.testing.assert_allclose(layer.weight.data, expected, rtol=1e-12)


def test_schedules_are_their_formulas_at_every_step():
    constant = optim.constant_schedule(0.5, warmup_steps=4)
    cosine = optim.cosine_schedule(0.5, 30, warmup_steps=4, min_lr=0.1)
    falling = optim.step_schedule(0.5, 7, 0.3, warmup_steps=4)
    for step in range(40):
        warm = min(1, (step + 1) / 5)
        assert constant(step) == pytest.approx(0.5 * warm)
        share = min(1, (step - 4) / 26)
        expected = 0.1 + 0.4 * (1 + math.cos(math.pi * share)) / 2 if step >= 4 else 0.5 * warm
        assert cosine(step) == pytest.approx(expected)
        assert falling(step) == pytest.approx(0.5 * warm * 0.3 ** (step // 7))
    short = optim.cosine_schedule(1.0, 5, warmup_steps=4)
    assert [short(4), short(5), short(6)] == [1, 0, 0]
    assert [optim.cosine_schedule(1.0, 5, warmup_steps=5)(step) for step in (5, 6)] == [1, 0]
    assert optim.step_schedule(1.0, 3)(3) == pytest.approx(0.1)
    assert optim.constant_schedule(1.0)(0) == optim.step_schedule(1.0, 3)(0) == optim.cosine_schedule(1.0, 3)(0) == 1


def test_layer_decay_names_every_parameter_below_the_head():
    model = nv.VisionTransformer(8, 4, 1, 3, embed_dim=8, depth=3, num_heads=2, distilled=True)
    factors = optim.layer_decay(model, 0.5)
    for name, _ in model.named_parameters():
        if name.startswith("blocks."):
            assert factors[name] == 0.5 ** (3 - int(name[7]))
        elif name.startswith(("norm.", "head")):
            assert factors.get(name, 1) == 1
        else:
            assert factors[name] == 0.5**4


def test_a_copy_of_model_and_optimizer_goes_on_by_itself():
    import copy
    import pickle

    layer = Linear(4, 4)
    optimizer = optim.AdamW(layer, lr=0.1)
    optimizer.step(with_gradient(layer))
    for layer_copy, optimizer_copy in (
        copy.deepcopy((layer, optimizer)),
        pickle.loads(pickle.dumps((layer, optimizer))),
    ):
        before = layer.weight.data.copy()
        optimizer_copy.step(with_gradient(layer_copy))
        assert np.array_equal(layer.weight.data, before)
        assert not np.array_equal(layer_copy.weight.data, before)


def test_freezing_between_the_steps_of_a_train_step_is_an_error():
    model = nv.create_model("vit_micro_patch2_8", depth=1)
    step = nv.TrainStep(model, optim.AdamW(model))
    batch = np.ones((2, 1, 8, 8), np.float32), np.zeros(2, int)
    step(*batch)
    model.blocks[0].freeze()
    with pytest.raises(ConfigError, match="frozen or unfrozen"):
        step(*batch)


def test_schedules():
    cosine = optim.cosine_schedule(1.0, 110, warmup_steps=10, min_lr=0.1)
    assert [cosine(0), cosine(10), cosine(60), cosine(110), cosine(500)] == pytest.approx([1 / 11, 1, 0.55, 0.1, 0.1])
    step = optim.step_schedule(1.0, 10, 0.5)
    assert [step(0), step(9), step(10), step(25)] == [1, 1, 0.5, 0.25]
    constant = optim.constant_schedule(2.0, warmup_steps=3)
    assert [constant(i) for i in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert math.isclose(optim.cosine_schedule(1.0, 10)(0), 1.0)


def test_the_moving_average_follows_and_is_put_on_and_off():
    layer = Linear(2, 2, dtype="float64")
    ema = optim.EMA(layer, decay=0.5)
    start = layer.weight.data.copy()
    layer.weight.data[...] = start + 1
    ema.update()  # β = 2/11 at the first step
    own = layer.weight.data.copy()
    with ema.applied():
        np.testing.assert_allclose(layer.weight.data, start + 9 / 11)
    assert np.array_equal(layer.weight.data, own)


def test_pieces_of_an_update_cover_all_weights_once_and_tell_what_decays(xp):
    layer = Linear(600, 500)
    optimizer = optim.AdamW(layer.to(xp if xp is not np else "cpu"), weight_decay=0.3)
    pieces = list(optimizer.chunks())
    assert [start for start, _, _ in pieces] == [0, *(stop for _, stop, _ in pieces[:-1])]
    assert pieces[-1][1] == 300_500
    assert [decay for _, stop, decay in pieces if stop <= 300_000] == [0.3] * (len(pieces) - 1) and pieces[-1][2] == 0
    # short pieces stay near the processor; on a device one of each kind saves calls
    assert len(pieces) > 2 if xp is np else len(pieces) == 2


def test_states_round_trip_and_foreign_ones_are_refused():
    layer, other = LayerNorm(4), LayerNorm(5)
    optimizer, ema = optim.AdamW(layer), optim.EMA(layer)
    optimizer.step(with_gradient(layer))
    ema.update()
    fresh, fresh_ema = optim.AdamW(layer), optim.EMA(layer)
    fresh.load_state_dict(optimizer.state_dict())
    fresh_ema.load_state_dict(ema.state_dict())
    assert fresh.steps == 1 and np.array_equal(fresh.state_dict()["m"], optimizer.state_dict()["m"])
    with pytest.raises(CheckpointError, match="another model"):
        optim.AdamW(other).load_state_dict(optimizer.state_dict())
    with pytest.raises(CheckpointError, match="another model"):
        optim.EMA(other).load_state_dict(ema.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: optim.AdamW(layer, lr=-1),
        lambda layer: optim.AdamW(layer, betas=(1.0, 0.9)),
        lambda layer: optim.SGD(layer, nesterov=True),
        lambda layer: optim.EMA(layer, 1.0),
        lambda layer: optim.AdamW(layer, lr=float("nan")),
        lambda layer: optim.AdamW(layer, weight_decay=float("inf")),
        lambda layer: optim.SGD(layer, momentum=-1),
        lambda layer: optim.clip_global_norm(nv.Tape(layer), 0.0),
        lambda layer: optim.cosine_schedule(1.0, 10, warmup_steps=-1),
        lambda layer: optim.constant_schedule(1.0, warmup_steps=-1),
        lambda layer: optim.step_schedule(1.0, 10, warmup_steps=-1),
        lambda layer: nv.TrainStep(layer, None, clip_norm=-1.0),
        lambda layer: nv.Tape(layer, seed=-1),
        lambda layer: Linear(2, 2, seed=-1),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make(Linear(2, 2))


def test_optimizers_run_on_other_array_modules(xp):
    for make in (optim.AdamW, lambda layer: optim.SGD(layer, momentum=0.9, nesterov=True, weight_decay=0.1)):
        here, there = Mlp(4, 8, dtype="float64"), Mlp(4, 8, dtype="float64").to(xp if xp is not np else "cpu")
        for layer in (here, there):
            tape = nv.Tape(layer)
            tape.flat[...] = tape.layout.xp.asarray(np.linspace(-1, 1, tape.layout.size))
            optim.clip_global_norm(tape, 1.0)
            optimizer, ema = make(layer), optim.EMA(layer)
            optimizer.step(tape)
            ema.update()
            optimizer.load_state_dict(optimizer.state_dict())
            with ema.applied():
                pass
        for (_, a), (_, b) in zip(here.named_parameters(), there.named_parameters()):
            np.testing.assert_allclose(to_host(b.data), a.data, rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda layer, lr, **o: optim.AdamW(layer, lr=lr, weight_decay=0.3, **o),
        lambda layer, lr, **o: optim.SGD(layer, lr=lr, momentum=0.9, weight_decay=0.3, **o),
    ],
)
def test_a_factor_on_the_learning_rate_is_a_rate_of_its_own(make):
    scaled, fast, slow = (Mlp(8, 8, dtype="float64", seed=1) for _ in range(3))
    optimizers = (
        make(scaled, 0.1, lr_scale={"fc1.weight": 0.25, "fc1.*": 0.25}),
        make(fast, 0.1),
        make(slow, 0.025),
    )
    for seed in range(3):
        for layer, optimizer in zip((scaled, fast, slow), optimizers):
            optimizer.step(with_gradient(layer, seed))
    np.testing.assert_allclose(scaled.fc1.weight.data, slow.fc1.weight.data, rtol=1e-12)
    np.testing.assert_allclose(scaled.fc2.weight.data, fast.fc2.weight.data, rtol=1e-12)


def test_layer_decay_falls_from_the_head_to_the_embedding():
    factors = optim.layer_decay(nv.create_model("vit_micro_patch2_8"), 0.5)
    expected = {"head.weight": None, "norm.bias": None, "blocks.3.norm1.weight": 0.5, "blocks.0.mlp.fc1.bias": 0.0625}
    assert {name: factors.get(name) for name in expected} == expected
    assert factors["pos_embed"] == factors["patch_embed.proj.weight"] == factors["cls_token"] == 0.5**5
    with pytest.raises(ConfigError, match="layer decay"):
        optim.layer_decay(nv.create_model("vit_micro_patch2_8"), 1.5)


def test_a_scale_that_fits_no_parameter_is_an_error_and_frozen_ones_may_be_named():
    model = nv.create_model("vit_micro_patch2_8", depth=1).freeze("blocks.*")
    optim.AdamW(model, lr_scale={"blocks.*": 0.1})
    with pytest.raises(ConfigError, match=r"named like 'blokcs\.\*'"):
        optim.AdamW(model, lr_scale={"blokcs.*": 0.1})


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda layer: optim.AdamW(layer, lr="1e-3"), "lr must be a finite number that is not negative, got '1e-3'"),
        (lambda layer: optim.AdamW(layer, lr=math.nan), "lr must be a finite number"),
        (lambda layer: optim.SGD(layer, weight_decay=None), "weight_decay must be a finite number"),
        (lambda layer: optim.SGD(layer, momentum=1), "momentum must be a number in 0..1, 1 left out, got 1"),
        (lambda layer: optim.AdamW(layer, betas=0.9), "betas must be a pair"),
        (lambda layer: optim.AdamW(layer, betas=(0.9, 1.0)), "the second of betas must be a number in 0..1"),
        (lambda layer: optim.AdamW(layer, eps="small"), "eps must be"),
        (lambda layer: optim.EMA(layer, "0.9"), "the decay of the moving average must be a number in 0..1"),
    ],
)
def test_what_is_no_number_or_out_of_range_is_named(make, message):
    with pytest.raises(ConfigError) as caught:
        make(Linear(3, 2))
    assert message in str(caught.value)


@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD, optim.EMA])
@pytest.mark.parametrize("name", ["step", None])
def test_a_state_with_something_missing_is_refused(make, name):
    one = make(Linear(3, 2))
    state = one.state_dict()
    for key in [name] if name else list(state):
        del state[key]
    with pytest.raises(CheckpointError, match=r"has no 'step'.*state_dict\(\)"):
        one.load_state_dict(state)


def test_a_moving_average_of_what_was_frozen_since_is_refused():
    layer = Mlp(4, 8)
    ema = optim.EMA(layer)
    ema.update()
    layer.freeze("fc1*")
    with pytest.raises(ConfigError, match="frozen or unfrozen since the optimizer or moving average was made"):
        ema.update()


def test_a_frozen_parameter_has_no_gradient():
    layer = Mlp(4, 8).freeze("fc1.weight")
    tape = nv.Tape(layer)
    assert tape.gradient(layer.fc2.weight).shape == layer.fc2.weight.data.shape
    with pytest.raises(TapeError, match=r"Parameter\(8, 4\) frozen has no gradient"):
        tape.gradient(layer.fc1.weight)


def test_unfreezing_between_steps_is_an_error():
    layer = Mlp(4, 8).freeze("fc1*")
    optimizer, tape = optim.AdamW(layer), nv.Tape(layer)
    optimizer.step(tape)
    layer.unfreeze("fc1*")
    with pytest.raises(ConfigError, match="frozen or unfrozen"):
        optimizer.step(tape)
