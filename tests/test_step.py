import os
import subprocess
import sys

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import optim
from numpyvit.errors import ConfigError, InputError, NonFiniteError, NumpyvitError
from numpyvit.step import split_batch
from numpyvit.testing import stand_in

pytestmark = pytest.mark.usefixtures("little_work_is_shared")

TINY = dict(img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2)


def tiny(**options):
    return nv.VisionTransformer(**{**TINY, **options})


def test_a_tiny_batch_is_one_shard_and_a_larger_one_several(monkeypatch):
    monkeypatch.undo()
    model = nv.create_model("vit_micro_patch2_8")
    count = lambda *shape: len(split_batch(np.empty(shape, np.float32), model))  # noqa: E731
    assert [count(16, 1, 8, 8), count(64, 1, 8, 8), count(64, 1, 28, 28), count(128, 3, 32, 32)] == [1, 2, 2, 8]
    assert [count(1, 3, 224, 224), count(4, 3, 224, 224), count(16, 3, 224, 224)] == [1, 2, 4]


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
        assert sum(s.stop - s.start for s in split_batch(x, model)) == n


def test_nothing_in_a_float32_step_is_float64(batch):
    model = tiny(drop_rate=0.2, attn_drop_rate=0.1, drop_path_rate=0.3)
    optimizer, ema = optim.AdamW(model), optim.EMA(model)
    seen = []

    def loss(logits, targets):
        value, gradient = nv.losses.cross_entropy(logits, targets, 0.1)
        for tape in step._tapes:
            seen.extend(a for _, residuals in tape.residuals() for a in residuals if isinstance(a, np.ndarray))
        seen.extend([value, gradient, logits])
        return value, gradient

    step = nv.TrainStep(model, optimizer, loss=loss, clip_norm=1.0)
    step(*batch)
    ema.update()
    seen += [tape.flat for tape in step._tapes] + optimizer._moments + [ema.shadow, optimizer.weights.flat]
    seen += [p.data for _, p in model.named_parameters()]
    assert len(seen) > 50
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
from numpyvit.kernels.cpu import gelu
model = nv.VisionTransformer(28, 7, 1, 10, 32, 3, 4, drop_rate=0.1, drop_path_rate=0.1)
step = nv.TrainStep(model, nv.optim.AdamW(model), threads=2)
rng = np.random.default_rng(0)
for batch in (64, 64, 30, 64):
    step(rng.standard_normal((batch, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, batch))
    if "poison" in sys.argv:  # what the next step must not read: old gradients, residuals, scratch
        for tape in step._tapes:
            tape.flat.fill(np.nan)
            tape.push(model, np.nan)
        for scratch in step.workers.map(lambda _: getattr(gelu._scratch, "rows", None), range(8)):
            if scratch is not None:
                scratch[3:] = np.nan  # the first three rows are constants
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
