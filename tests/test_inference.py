import multiprocessing
import threading

import numpy as np
import pytest
from conftest import call_in_threads

import numpyvit as nv
from numpyvit.core import FORGET
from numpyvit.models import ModernVisionTransformer
from numpyvit.testing import gradcheck, randomize

pytestmark = pytest.mark.usefixtures("little_work_is_shared")

SIZES = dict(img_size=36, patch_size=2, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2)

MODELS = {
    "plain": lambda **o: nv.VisionTransformer(**SIZES, **o),
    "distilled": lambda **o: nv.VisionTransformer(**SIZES, distilled=True, **o),
    "avg": lambda **o: nv.VisionTransformer(**SIZES, global_pool="avg", **o),
    "modern": lambda **o: ModernVisionTransformer(**SIZES, init_values=0.1, qk_norm=True, reg_tokens=2, **o),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("batch", [2, 5, 16])
def test_shards_give_what_the_model_gives(kind, batch, rng):
    model = randomize(MODELS[kind](dtype="float64"))
    x = rng.standard_normal((batch, 1, 36, 36))
    np.testing.assert_allclose(nv.infer(model, x, threads=2), model(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_one_image_is_the_same_on_any_number_of_threads(kind, rng):
    model = randomize(MODELS[kind]())
    x = rng.standard_normal((1, 1, 36, 36)).astype(np.float32)
    expected = nv.infer(model, x, threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_allclose(nv.infer(model, x, threads=threads), expected, rtol=3e-6, atol=3e-6)


class PlainBlock(nv.layers.Block):
    """Written without the saving for the first tokens."""

    takes_first = False

    def forward(self, x, tape=FORGET):
        return super().forward(x, tape)


def test_a_block_without_the_saving_works_in_a_model(rng):
    model, x = randomize(MODELS["plain"](dtype="float64")), rng.standard_normal((1, 1, 36, 36))
    expected = model(x)
    plain = PlainBlock(8, 2, qkv_bias=True, dtype="float64")
    plain.load_state_dict(model.blocks[-1].state_dict())
    model.blocks[-1] = plain
    np.testing.assert_allclose(model(x), expected, rtol=1e-10)
    np.testing.assert_allclose(nv.infer(model, x), expected, rtol=1e-10)
    gradcheck(model, x)


class Doubled(nv.layers.Linear):
    def forward(self, x, tape=FORGET):
        return 2 * super().forward(x, tape)

    def backward(self, dy, tape):
        return super().backward(2 * dy, tape)


def test_own_layers_in_the_last_block_are_used_for_every_token(rng):
    model, x = randomize(MODELS["plain"](dtype="float64")), rng.standard_normal((1, 1, 36, 36))
    for block in model.blocks:
        doubled = Doubled(8, 24, dtype="float64")
        doubled.load_state_dict(block.attn.qkv.state_dict())
        block.attn.qkv = doubled
    expected = model.head(model.forward_features(x)[:, 0])
    np.testing.assert_allclose(nv.infer(model, x), expected, rtol=1e-10)
    gradcheck(model, x)


@pytest.mark.parametrize("kind", MODELS)
def test_looking_at_a_model_changes_nothing_of_what_it_computes(kind, rng):
    model, seen = randomize(MODELS[kind]()), {}
    x = rng.standard_normal((3, 1, 36, 36)).astype(np.float32)

    def run():
        tape = nv.Tape(model, seed=1)
        y = model.forward(x, tape)
        dy = tuple(map(np.ones_like, y)) if isinstance(y, tuple) else np.ones_like(y)
        return model(x), model.backward(dy, tape), tape.flat

    expected = run()
    with nv.core.observing(model, lambda name, layer, y: seen.setdefault(name, y)):
        found = run()
    assert all(np.array_equal(a, b) for a, b in zip(expected, found))
    reads = model.classifier.reads
    assert seen["blocks.1"].shape[1] == (reads or model.num_prefix_tokens + 324)


def test_inference_within_jobs_does_not_wait_for_itself(rng):
    model, x = MODELS["plain"](), rng.standard_normal((16, 1, 36, 36)).astype(np.float32)
    expected, workers = nv.infer(model, x), nv.backend.shared_workers(8)
    start = threading.Barrier(10)  # two callers and the pool's eight threads: none is left for shards

    def job(_):
        start.wait(timeout=30)
        return nv.infer(model, x, threads=8)

    found = call_in_threads(2, lambda: workers.map(job, range(5)))
    assert all(np.array_equal(y, expected) for results in found for y in results)


@pytest.mark.parametrize("callers", [1, 2, 8])
def test_many_callers_at_once_get_what_one_gets(callers, rng):
    model, x = MODELS["plain"](), rng.standard_normal((16, 1, 36, 36)).astype(np.float32)
    expected = nv.infer(model, x)
    found = call_in_threads(callers, lambda: [nv.infer(model, x) for _ in range(5)])
    assert all(np.array_equal(expected, y) for results in found for y in results)


def _work_in_child(model, x, step, results):
    results.put((nv.infer(model, x, threads=2), step(x, np.zeros(len(x), int))))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own(rng):
    model, x = MODELS["plain"](), rng.standard_normal((16, 1, 36, 36)).astype(np.float32)
    step = nv.TrainStep(model, nv.optim.AdamW(model), threads=2)
    step(x, np.zeros(16, int))
    expected = nv.infer(model, x, threads=2)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_work_in_child, args=(model, x, step, results), daemon=True)
    child.start()
    logits, loss = results.get(timeout=60)
    assert np.array_equal(logits, expected) and loss == step(x, np.zeros(16, int))
    child.join(timeout=60)
