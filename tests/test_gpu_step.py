"""A training step on a device: what it reads there, and graphs of it, on the stand-in for CuPy and on a GPU."""

import time

import numpy as np
import pytest
from conftest import tiny

import numpyvit as nv
from numpyvit import optim
from numpyvit.backend import Count, Random, to_host
from numpyvit.backend.philox import philox, uniform
from numpyvit.errors import ConfigError
from numpyvit.gpu import graph as graphs
from numpyvit.testing import stand_in


@pytest.fixture(params=["stand_in", pytest.param("cupy", marks=pytest.mark.gpu)])
def device(request):
    return stand_in if request.param == "stand_in" else request.getfixturevalue("cupy")


def batches(count, size=6):
    rng = np.random.default_rng(5)
    return [(rng.standard_normal((size, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, size)) for _ in range(count)]


def trained(device, graph, steps=6, rate=lambda i: 1e-2 / (i + 1), make=optim.AdamW, sizes=(6,), **options):
    """-> [loss of each step], the weights and the TrainStep after some steps with a rate that changes."""
    model = tiny(drop_rate=0.2, drop_path_rate=0.2).to(device)
    step = nv.TrainStep(model, make(model), clip_norm=0.5, graph=graph, **options)
    losses = []
    for i in range(steps):
        x, labels = map(device.asarray, batches(steps, sizes[i % len(sizes)])[i])
        step.optimizer.lr = rate(i)
        losses.append(step(x, labels))
    return [float(to_host(loss)) for loss in losses], {n: to_host(p.data) for n, p in model.named_parameters()}, step


OPTIMIZERS = [
    optim.AdamW,
    lambda model: optim.AdamW(model, lr_scale={"head*": 0.5}),
    lambda model: optim.SGD(model, momentum=0.9, nesterov=True, weight_decay=0.1),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["adamw", "scaled", "sgd"])
@pytest.mark.parametrize("sizes", [(6,), (6, 3)], ids=["one shape", "two shapes"])
def test_replayed_steps_have_the_bits_of_steps_that_run_as_they_are(device, make, sizes):
    losses, weights, step = trained(device, True, 9, make=make, sizes=sizes)
    expected, expected_weights, eager = trained(device, False, 9, make=make, sizes=sizes)
    assert losses == expected
    for name, array in expected_weights.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)
    assert step.steps == step.optimizer.steps == eager.steps == 9
    assert int(to_host(step.optimizer.count.there)) == 9


class Slow(optim.AdamW):
    """Leaves other threads the time to take a piece of the work as well."""

    def update(self, chunk, gradient):
        time.sleep(0.02)
        super().update(chunk, gradient)


@pytest.mark.usefixtures("little_work_is_shared")
def test_nothing_of_a_step_on_a_device_runs_on_other_threads(device):
    """What they do has another stream, so it would not be captured."""
    losses, weights, _ = trained(device, True, make=Slow, threads=2)
    expected, expected_weights, _ = trained(device, False, threads=2)
    assert losses == expected
    for name, array in expected_weights.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def test_a_step_is_captured_after_two_that_run_as_they_are_and_then_is_one_launch():
    model = tiny().to(stand_in)
    step = nv.TrainStep(model, optim.AdamW(model), clip_norm=1.0)
    seen = []
    for x, labels in batches(5):
        x, labels = stand_in.asarray(x), stand_in.asarray(labels)
        with stand_in.counting() as counts:
            step(x, labels)
        seen.append(counts.by_name("launches"))
    assert ["graph" in counts for counts in seen] == [False, False, True, True, True]
    assert seen[-1] == seen[-2] == {"graph": 1, "copy": 3}  # the inputs, and the loss for the caller


@pytest.mark.parametrize("graph", [False, None])
def test_a_step_reads_nothing_on_the_host_and_moves_nothing(graph):
    model = tiny(drop_rate=0.1, drop_path_rate=0.1).to(stand_in)
    step, ema = nv.TrainStep(model, optim.AdamW(model), clip_norm=1.0, graph=graph), optim.EMA(model)
    for x, labels in batches(4):
        x, labels = stand_in.asarray(x), stand_in.asarray(labels)
        with stand_in.counting() as counts:
            step.optimizer.lr *= 0.9
            step(x, labels)
            ema.update()
        assert counts.launches and not counts.synchronizations and not counts.transfers


def test_outputs_of_a_replay_are_there_until_the_next_step_and_losses_for_good():
    losses, _, step = trained(stand_in, True, 5)
    assert len(set(losses)) == 5
    assert step.logits.shape == (6, 3) and np.isfinite(to_host(step.logits)).all()


def test_a_change_of_the_step_is_not_lost_in_a_graph():
    """A bound that is changed between steps, and a parameter that is replaced."""

    def run(graph):
        model = tiny().to(stand_in)
        step = nv.TrainStep(model, optim.SGD(model, lr=0.5), clip_norm=1.0, graph=graph)
        for i, (x, labels) in enumerate(batches(10)):
            if i == 4:
                step.clip_norm = 1e-3
            if i == 8:
                model.head.weight.data = model.head.weight.data * 0
            step(stand_in.asarray(x), stand_in.asarray(labels))
        return {name: to_host(array) for name, array in model.state_dict().items()}

    expected = run(False)
    for name, array in run(True).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_step_that_goes_on_from_a_saved_state_has_its_numbers_on_the_device_too():
    _, _, step = trained(stand_in, False, 4)
    other = tiny(drop_rate=0.2, drop_path_rate=0.2).to(stand_in)
    other.load_state_dict(step.model.state_dict())
    again = nv.TrainStep(other, optim.AdamW(other), clip_norm=0.5)
    again.optimizer.load_state_dict(step.optimizer.state_dict())
    again.steps, again.optimizer.lr = step.steps, step.optimizer.lr
    for x, labels in batches(5):
        x, labels = stand_in.asarray(x), stand_in.asarray(labels)
        assert to_host(step(x, labels)) == to_host(again(x, labels))


# ---- what cannot be captured ----------------------------------------------------------------------------------------


def read(logits, labels):
    to_host(logits)
    return nv.losses.cross_entropy(logits, labels)


def upload(logits, labels):
    return nv.losses.cross_entropy(logits, labels, weight=np.ones(3))


def masked(logits, labels):
    logits[logits > 5]
    return nv.losses.cross_entropy(logits, labels)


def product(logits, labels):
    logits @ logits.T
    return nv.losses.cross_entropy(logits, labels)


REFUSED = [(read, "to the host"), (upload, "from the host"), (masked, "by a mask"), (product, "product by @")]


@pytest.mark.parametrize("loss, why", REFUSED, ids=[loss.__name__ for loss, _ in REFUSED])
def test_what_cannot_be_captured_runs_as_it_is(loss, why):
    losses, weights, step = trained(stand_in, None, loss=loss)
    expected, expected_weights, _ = trained(stand_in, False, loss=loss)
    assert losses == expected and step.steps == step.optimizer.steps == 6
    for name, array in expected_weights.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)
    with pytest.raises(ConfigError, match=f"cannot be captured.*{why}.*leave graph=True out"):
        trained(stand_in, True, loss=loss)


def test_a_number_of_the_host_in_a_step_is_found():
    """The test above would fail of a step that takes its rate from the host: a replay repeats the old one."""
    rate = [1.0]

    def scaled(logits, labels):
        value, gradient = nv.losses.cross_entropy(logits, labels)
        rate[0] *= 0.5
        return value, gradient * rate[0]

    losses, _, _ = trained(stand_in, True, loss=scaled)
    rate[0] = 1.0
    expected, _, _ = trained(stand_in, False, loss=scaled)
    assert losses[:4] == expected[:4] and losses[4:] != expected[4:]


def test_errors_of_a_step_are_not_taken_for_those_of_capturing():
    def wrong(logits, labels):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained(stand_in, None, loss=wrong)


def test_a_graph_is_for_a_gpu():
    model = tiny()
    with pytest.raises(ConfigError, match="graph=True is for a model on a GPU"):
        nv.TrainStep(model, optim.AdamW(model), graph=True)
    assert nv.TrainStep(model, optim.AdamW(model), graph=False)


def test_shapes_beyond_the_most_graphs_run_as_they_are(monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 1)
    model = tiny().to(stand_in)
    step = nv.TrainStep(model, optim.AdamW(model))
    for size in (2, 3) * 4:
        with stand_in.counting() as counts:
            step(stand_in.asarray(np.ones((size, 1, 8, 8), np.float32)), stand_in.asarray(np.zeros(size, int)))
    assert "graph" not in counts.by_name("launches") and step.steps == 8


def test_a_graph_keeps_its_own_stream_and_each_waits_for_the_other():
    made = graphs.Graphs(stand_in)
    own, callers = made._stream, stand_in.cuda.Stream()
    with callers:
        made.run("", lambda arrays: arrays[0] + 1, [stand_in.asarray(np.ones(3))])
    assert len(own.waited) == len(callers.waited) == 1


# ---- numbers on the device ------------------------------------------------------------------------------------------


def test_philox_gives_the_published_numbers():
    """The known answers of Random123, its kat_vectors."""

    def found(counter, key):
        return [f"{int(word):08x}" for word in philox([np.uint64(word) for word in counter], key)]

    ones, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert found([0] * 4, (0, 0)) == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert found([ones] * 4, (ones, ones)) == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    assert found(pi, (0xA4093822, 0x299F31D0)) == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


def test_draws_of_a_device_are_those_of_numpy_and_follow_from_key_step_and_number(device):
    step = device.asarray(np.uint64(7))
    found = uniform(device, (3, 4), step, 2, (5, 3))
    expected = uniform(np, (3, 4), 7, 2, (5, 3))
    assert np.array_equal(to_host(found), expected) and expected.dtype == np.float32
    for other in (((3, 5), 7, 2), ((3, 4), 8, 2), ((3, 4), 7, 3)):
        assert not np.array_equal(uniform(np, *other, (5, 3)), expected)


def test_draws_are_uniform():
    draws = uniform(np, (1, 2), 3, 4, (100, 1000))
    assert 0 <= draws.min() < 1e-4 and 1 - 1e-4 < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 5e-3 and abs(draws.var() - 1 / 12) < 1e-3
    assert np.abs(np.corrcoef(draws[:5])[np.triu_indices(5, 1)]).max() < 0.15


def test_a_stream_on_a_device_can_be_replayed(device):
    random = Random((1, 2), device)
    first = to_host(random.random((4,)))
    state = random.state
    second = to_host(random.random((4,)))
    random.state = state
    assert np.array_equal(to_host(random.random((4,))), second) and not np.array_equal(first, second)


def test_a_count_is_the_same_number_on_the_device():
    count = Count(stand_in)
    count.value = 5
    count.advance()
    assert count.value == int(count.there.get()) == 6
    assert Count().there == 0
