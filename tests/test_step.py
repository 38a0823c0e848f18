import collections
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from conftest import TINY, tiny

import numpyvit as nv
from numpyvit import optim
from numpyvit.core import observing_calls
from numpyvit.errors import ConfigError, InputError, NonFiniteError, NumpyvitError
from numpyvit.testing import stand_in
from numpyvit.training import nested, shards

pytestmark = pytest.mark.usefixtures("little_work_is_shared")


def test_a_tiny_batch_is_one_shard_and_a_larger_one_several():
    model = nv.create_model("vit_micro_patch2_8")
    count = lambda *shape: len(shards.Sharding().split(np.empty(shape, np.float32), model))  # noqa: E731
    assert [count(16, 1, 8, 8), count(64, 1, 8, 8), count(64, 1, 28, 28), count(128, 3, 32, 32)] == [1, 2, 2, 8]
    assert [count(1, 3, 224, 224), count(4, 3, 224, 224), count(16, 3, 224, 224)] == [1, 2, 4]
    assert [count(40, 1, 8, 8), count(4, 1, 64, 64), count(2, 3, 64, 64)] == [2, 2, 1]  # work, numbers, least
    work = 16 * model.num_parameters()
    limits = [(1024, work + 1), (1025, work), (1025, work + 1)]  # both must lie below theirs
    exact = [shards.Sharding(tiny_batch=batch, tiny_work=work).slices(16, 1024, model) for batch, work in limits]
    assert [len(found) for found in exact] == [2, 2, 1]


def test_shards_of_a_model_whose_maps_get_small_are_larger():
    """The last maps of swin_micro hold 16·128 numbers for each image, those of swin_tiny 49·768."""
    micro, tiny = nv.create_model("swin_micro_patch2_window4_32"), nv.SwinTransformer(depths=(1, 1, 1, 1))
    count = lambda model, *shape: len(shards.Sharding().split(np.empty(shape, np.float32), model))  # noqa: E731
    assert [count(micro, 128, 3, 32, 32), count(micro, 256, 3, 32, 32), count(micro, 512, 3, 32, 32)] == [2, 5, 8]
    assert [count(tiny, 4, 3, 224, 224), count(tiny, 16, 3, 224, 224), count(tiny, 64, 3, 224, 224)] == [2, 4, 8]


def test_a_model_may_ask_for_larger_shards():
    count = lambda name, *shape: len(  # noqa: E731
        shards.Sharding().split(np.empty(shape, np.float32), nv.create_model(name))
    )
    assert count("vit_micro_patch4_32", 64, 3, 64, 64) == 8
    assert [count("detr_micro_64", images, 3, 64, 64) for images in (1, 8, 16, 64)] == [1, 2, 2, 3]


@pytest.fixture
def batch(rng):
    return rng.standard_normal((13, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 13)


def run(batch, threads, steps=50, **options):
    model = tiny(**options)
    step = nv.TrainStep(model, optim.AdamW(model, lr=1e-2), threads=threads, seed=3, clip_norm=1.0)
    losses = [float(step(*batch)) for _ in range(steps)]
    return model.state_dict(), losses


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_fifty_steps_are_bit_equal_on_any_number_of_threads(batch, threads):
    options = dict(drop_rate=0.2, attn_drop_rate=0.1, drop_path_rate=0.3)
    expected, losses = run(batch, 1, **options)
    state, losses_again = run(batch, threads, **options)
    assert losses == losses_again
    assert all(np.array_equal(expected[name], state[name]) for name in expected)


def test_a_step_is_forward_loss_backward_and_update(rng):
    x, labels = rng.standard_normal((13, 1, 8, 8)), rng.integers(0, 3, 13)
    weight = np.array([0.2, 1.0, 3.0])
    loss = lambda logits, targets: nv.losses.cross_entropy(logits, targets, 0.1, weight)  # noqa: E731
    model, plain = tiny(dtype="float64"), tiny(dtype="float64")
    value = nv.TrainStep(model, optim.AdamW(model, lr=1e-2), loss=loss)(x, labels)
    tape = nv.Tape(plain)
    expected, gradient = loss(plain.forward(x, tape), labels)
    plain.backward(gradient, tape)
    optim.AdamW(plain, lr=1e-2).step(tape)
    assert value == pytest.approx(expected, rel=1e-13)
    for (name, a), (_, b) in zip(model.named_parameters(), plain.named_parameters()):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-9, atol=1e-12, err_msg=name)


def test_training_lowers_the_loss_and_seeds_differ(batch):
    _, losses = run(batch, 2, steps=40)
    assert losses[-1] < 0.2 * losses[0]
    model, other = tiny(drop_rate=0.5), tiny(drop_rate=0.5)
    a = nv.TrainStep(model, optim.AdamW(model), seed=0)
    b = nv.TrainStep(other, optim.AdamW(other), seed=1)
    assert a(*batch) != b(*batch)


def test_a_distilled_model_trains_on_both_heads(batch):
    model = tiny(distilled=True)
    before = model.state_dict()
    step = nv.TrainStep(model, optim.AdamW(model))
    step(*batch)
    assert isinstance(step.logits, tuple)
    after = model.state_dict()
    assert not np.array_equal(before["head_dist.weight"], after["head_dist.weight"])


def test_each_size_of_batch_works(rng):
    model = tiny()
    step = nv.TrainStep(model, optim.AdamW(model))
    for n in (1, 2, 3, 7, 8, 64):
        x = rng.standard_normal((n, 1, 8, 8)).astype(np.float32)
        step(x, np.zeros(n, int))
        np.testing.assert_allclose(nv.infer(model, x), model(x), atol=1e-6)
        assert sum(s.stop - s.start for s in shards.DEFAULT.split(x, model)) == n


def test_nothing_in_a_float32_step_is_float64(batch):
    model = tiny(drop_rate=0.2, attn_drop_rate=0.1, drop_path_rate=0.3)
    optimizer, ema = optim.AdamW(model), optim.EMA(model)
    seen, tapes = [], set()

    def loss(logits, targets):
        value, gradient = nv.losses.cross_entropy(logits, targets, 0.1)
        for tape in tapes:
            seen.extend(a for _, residuals in tape.residuals() for a in residuals if isinstance(a, np.ndarray))
        seen.extend([value, gradient, logits])
        return value, gradient

    def look(name, layer, inputs, output):
        tapes.update(value for value in inputs if isinstance(value, nv.Tape))

    step = nv.TrainStep(model, optimizer, loss=loss, clip_norm=1.0)
    with observing_calls(model, look):
        step(*batch)
    ema.update()
    seen += [tape.flat for tape in tapes] + [*optimizer.state_dict().values(), ema.shadow, optimizer.weights.flat]
    seen += [p.data for _, p in model.named_parameters()]
    assert len(tapes) > 1 and len(seen) > 50
    assert {a.dtype for a in seen if a.dtype.kind == "f"} == {np.dtype("float32")}


def test_a_loss_that_is_not_finite_changes_nothing(batch):
    x, labels = batch
    model = tiny()
    step = nv.TrainStep(model, optim.AdamW(model), loss=lambda logits, y: (np.float32("nan"), logits))
    before = model.state_dict()
    with pytest.raises(NonFiniteError, match="step 1"):
        step(x, labels)
    assert all(np.array_equal(before[name], p.data) for name, p in model.named_parameters())


def test_after_an_error_the_step_can_be_used_again(batch):
    x, labels = batch
    model, other = tiny(), tiny()
    step, clean = nv.TrainStep(model, optim.AdamW(model)), nv.TrainStep(other, optim.AdamW(other))
    with pytest.raises(NumpyvitError, match="label 7"):
        step(x, np.full(13, 7))
    assert step(x, labels) == clean(x, labels)
    assert np.array_equal(model.head.weight.data, other.head.weight.data)


def test_bad_calls(batch):
    x, labels = batch
    model = tiny()
    with pytest.raises(ConfigError, match="threads"):
        nv.infer(model, x, threads=0)
    with pytest.raises(InputError, match="empty batch"):
        nv.TrainStep(model, optim.AdamW(model))(x[:0], labels[:0])
    with pytest.raises(InputError, match="empty batch"):
        nv.infer(model, x[:0])


def test_a_step_reads_nothing_from_a_device(batch):
    x, labels = batch
    model = tiny(drop_rate=0.1, drop_path_rate=0.1).to(stand_in)
    step = nv.TrainStep(model, optim.AdamW(model), clip_norm=1.0)
    loss = step(stand_in.asarray(x), stand_in.asarray(labels))
    assert np.isfinite(loss.get())
    assert nv.infer(model, stand_in.asarray(x)).get().shape == (13, 3)


_POISONED = """
import sys, zlib
import numpy as np
import numpyvit as nv
model = nv.VisionTransformer(28, 7, 1, 10, 32, 3, 4, drop_rate=0.1, drop_path_rate=0.1)
step = nv.TrainStep(model, nv.optim.AdamW(model), threads=2)
rng, tapes = np.random.default_rng(0), set()
def look(name, layer, inputs, output):
    tapes.update(value for value in inputs if isinstance(value, nv.Tape))
for batch in (64, 64, 30, 64):
    with nv.core.observing_calls(model, look):
        step(rng.standard_normal((batch, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, batch))
    if "poison" in sys.argv:  # what the next step must not read: old gradients, residuals, a kernel's scratch
        for tape in tapes:
            tape.flat.fill(np.nan)
            tape.push(model, np.nan)
        step.workers.map(lambda _: nv.functional.gelu_with_slope(np.full(100_000, np.nan, np.float32)), range(8))
x = rng.standard_normal((1, 1, 28, 28), dtype=np.float32)
logits = nv.infer(model, x)
print(zlib.crc32(logits), [zlib.crc32(np.ascontiguousarray(a)) for a in model.state_dict().values()])
"""


def test_no_step_reads_what_an_earlier_one_left():
    """Weights after four steps are bit-equal where all memory given back is overwritten at once."""

    def weights(*arguments, **environment):
        command = [sys.executable, "-c", _POISONED, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    expected = weights()
    assert weights("poison", MALLOC_PERTURB_="165") == expected


def test_a_model_that_is_frozen_whole_still_tells_its_loss(batch):
    model = tiny().freeze()
    before = model.state_dict()
    assert np.isfinite(nv.TrainStep(model, optim.AdamW(model))(*batch))
    assert all(np.array_equal(before[name], p.data) for name, p in model.named_parameters())


# ---- against a plain loop, and on which threads ---------------------------------------------------------------------

OPTIMIZERS = [partial(optim.AdamW, lr=0.01, weight_decay=0.2), partial(optim.SGD, lr=0.1, momentum=0.9)]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["AdamW", "SGD"])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("distilled", [False, True])
def test_steps_are_those_of_a_plain_loop(rng, make, clip_norm, distilled):
    """Five steps over several shards on two threads, and the same written out with one tape."""
    model, plain = (tiny(distilled=distilled, dtype="float64") for _ in range(2))
    optimizer, plain_optimizer, tape = make(model), make(plain), nv.Tape(plain)
    step = nv.TrainStep(model, optimizer, threads=2, clip_norm=clip_norm)
    for number in range(5):
        x, labels = rng.standard_normal((13 + number, 1, 8, 8)), rng.integers(0, 3, 13 + number)
        loss = step(x, labels)
        logits = plain.forward(x, tape)
        expected, gradient = nv.losses.cross_entropy(logits, labels)
        plain.backward(gradient, tape)
        if clip_norm is not None:
            assert optim.clip_global_norm(tape, clip_norm) > clip_norm
        plain_optimizer.step(tape)
        tape.zero()
        assert loss == pytest.approx(expected, rel=1e-10) and step.steps == optimizer.steps == number + 1
        np.testing.assert_allclose(np.array(step.logits), np.array(logits), rtol=1e-8, atol=1e-10)
    for (name, a), (_, b) in zip(model.named_parameters(), plain.named_parameters()):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-6, atol=1e-9, err_msg=name)


def test_each_step_and_each_shard_draws_masks_of_its_own(rng):
    x, labels = np.repeat(rng.standard_normal((1, 1, 8, 8)), 16, axis=0), np.zeros(16, int)
    seen = {}
    for seed in (0, 1, None):
        model = tiny(drop_rate=0.5, dtype="float64")
        step = nv.TrainStep(model, optim.SGD(model, lr=0.0), seed=seed)
        rows = []
        for _ in range(2):
            step(x, labels)
            rows += [tuple(row) for row in step.logits]
        seen[seed] = set(rows)
    assert len(seen[0]) == len(seen[1]) == 32 and not seen[0] & seen[1]
    assert len(seen[None]) == 1 or np.ptp(list(seen[None]), axis=0).max() < 1e-12


def meeting(threads):
    """To be called by so many threads: the first calls wait for each other, and each leaves others time to come."""
    barrier, turns = threading.Barrier(threads), itertools.count()

    def meet():
        if next(turns) < threads:
            barrier.wait(timeout=60)
        time.sleep(0.01)

    return meet


class Watched(nv.VisionTransformer):
    """Tells which threads called it, with how many images each."""

    def forward(self, x, tape=nv.FORGET):
        self._meet()
        self._calls.append((threading.current_thread(), len(x)))
        return super().forward(x, tape)

    def watch(self, threads=1):
        self._calls, self._meet = [], meeting(threads)
        return self._calls


@pytest.fixture
def watched():
    return Watched(**{**TINY, "img_size": 112, "patch_size": 28})


@pytest.fixture
def images(rng):
    """So many and so large that there are eight shards of four."""
    return rng.standard_normal((32, 1, 112, 112)).astype(np.float32)


def threads_of(calls):
    return {thread for thread, _ in calls}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_shards_run_on_as_many_threads_as_asked_for_the_callers_among_them(watched, images, threads):
    step = nv.TrainStep(watched, optim.AdamW(watched), threads=threads)
    for work in (lambda: nv.infer(watched, images, threads=threads), lambda: step(images, np.zeros(32, int))):
        calls = watched.watch(threads)
        work()
        assert [length for _, length in calls] == [4] * 8
        assert len(threads_of(calls)) == threads and threading.current_thread() in threads_of(calls)


def test_threads_are_kept_for_the_next_batch(watched, images):
    used = set()
    for _ in range(20):
        calls = watched.watch(2)
        nv.infer(watched, images, threads=2)
        used |= threads_of(calls)
    assert len(used) <= 9, "eight threads wait for work, and this one takes part in it"


def test_no_step_works_out_the_gradient_of_its_images(monkeypatch, watched, images):
    found = []

    def backward(self, dy, tape):
        found.append(nv.VisionTransformer.backward(self, dy, tape))

    watched.watch()
    monkeypatch.setattr(Watched, "backward", backward, raising=False)
    nv.TrainStep(watched, optim.AdamW(watched))(images, np.zeros(32, int))
    assert found == [None] * 8


def test_there_are_eight_shards_at_most(watched, images):
    calls = watched.watch()
    nv.infer(watched, np.concatenate([images, images, images]))
    assert [length for _, length in calls] == [12] * 8


def test_work_within_a_shard_stays_on_its_thread(watched, images):
    """Otherwise it would wait for threads that wait for it."""

    class Outer(nv.Layer):
        def forward(self, x, tape=nv.FORGET):
            return nv.infer(watched, x, threads=2)

    calls = watched.watch()
    found = nv.infer(Outer(), images, threads=1)
    assert threads_of(calls) == {threading.current_thread()}
    np.testing.assert_allclose(found, watched(images), atol=1e-5)


@pytest.mark.parametrize("affinity, processors, threads", [(3, 6, 3), (None, 2, 2), (None, None, 1)])
def test_the_default_is_a_thread_for_each_processor(monkeypatch, watched, images, affinity, processors, threads):
    """Each that this process may use, where the system tells; else each that there is, or one."""
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    if affinity:
        own = {0: set(range(affinity))}
        monkeypatch.setattr(os, "sched_getaffinity", own.__getitem__, raising=False)
    calls = watched.watch(threads)
    nv.infer(watched, images)
    assert len(threads_of(calls)) == threads


@pytest.mark.parametrize("count, trained, inferred", [(2, [2], [1, 1]), (3, [3], [1, 2]), (5, [2, 3], [2, 3])])
def test_a_shard_has_two_images_in_training_and_one_in_inference(watched, images, count, trained, inferred):
    calls = watched.watch()
    nv.TrainStep(watched, optim.AdamW(watched), threads=1)(images[:count], np.zeros(count, int))
    assert [length for _, length in calls] == trained
    calls = watched.watch()
    nv.infer(watched, images[:count], threads=1)
    assert [length for _, length in calls] == inferred


def test_a_step_keeps_one_tape_for_each_shard_of_the_largest_batch(watched, images):
    watched.watch()
    step = nv.TrainStep(watched, optim.AdamW(watched))
    for count in (32, 32, 2, 32):
        step(images[:count], np.zeros(count, int))
    tapes = [o for o in gc.get_objects() if isinstance(o, nv.Tape) and o.model is watched]
    assert len(tapes) == 8


@pytest.mark.parametrize("width, threads", [(100, 1), (700, 2)])
def test_updates_of_large_models_alone_are_shared_among_threads(monkeypatch, width, threads):
    monkeypatch.undo()
    seen, meet = [], meeting(threads)

    class Watching(optim.SGD):
        def update(self, chunk, gradient):
            meet()
            seen.append(threading.current_thread())
            super().update(chunk, gradient)

    class Mean(nv.layers.Linear):
        def forward(self, x, tape=nv.FORGET):
            return super().forward(x.reshape(len(x), -1), tape)

    model = Mean(width, width)
    step = nv.TrainStep(model, Watching(model), loss=lambda y, _: (y.mean(), np.ones_like(y)), threads=2)
    step(np.ones((4, 1, 1, width), np.float32), None)
    assert len(set(seen)) == threads


def test_a_batch_of_real_images_is_divided_and_one_that_is_tiny_is_not(monkeypatch, watched):
    monkeypatch.undo()
    for images, size, model_options, count in ((64, 28, {}, 2), (16, 8, {}, 1), (128, 32, {"in_chans": 3}, 8)):
        model = Watched(**{**TINY, "img_size": size, **model_options})
        calls = model.watch()
        x = np.ones((images, model_options.get("in_chans", 1), size, size), np.float32)
        nv.TrainStep(model, optim.AdamW(model), threads=1)(x, np.zeros(images, int))
        assert [length for _, length in calls] == [images // count] * count


def test_nothing_to_work_on_is_said(batch):
    model = tiny()
    step = nv.TrainStep(model, optim.AdamW(model))
    for empty in ([], {}, ([], {})):
        with pytest.raises(InputError, match="without any"):
            nv.infer(model, empty)
        with pytest.raises(InputError, match="without any"):
            step(empty, batch[1])


def test_nested_outputs_are_cut_and_joined():
    Pair = collections.namedtuple("Pair", "a b")
    value = {
        "x": np.arange(6),
        "none": [None],
        "y": [(np.arange(6) * 2,), Pair(np.arange(6), np.arange(12).reshape(6, 2))],
    }
    parts = [nested.take(value, slice(a, b)) for a, b in ((0, 2), (2, 6))]
    joined = nested.join(parts)
    assert joined["none"] == [None] and isinstance(joined["y"][1], Pair) and np.array_equal(joined["x"], value["x"])
    assert np.array_equal(joined["y"][0][0], value["y"][0][0]) and np.array_equal(joined["y"][1].b, value["y"][1].b)
