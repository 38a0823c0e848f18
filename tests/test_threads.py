"""Threads that share work, and the limit on BLAS's own threads meanwhile."""

import copy
import multiprocessing
import multiprocessing.pool
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl
from conftest import call_in_threads

import numpyvit as nv
from numpyvit.backend import blas_threads, shared_workers

LIBRARIES = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


def blas_limits():
    """How many threads each BLAS takes."""
    return [library.get_num_threads() for library in LIBRARIES]


pytestmark = [
    pytest.mark.usefixtures("little_work_is_shared"),
    pytest.mark.skipif(not blas_limits(), reason="a BLAS that threadpoolctl does not control"),
]


@pytest.fixture(autouse=True)
def blas_is_left_as_it_was():
    before = blas_limits()
    yield
    assert blas_limits() == before and call_in_threads(1, blas_limits)[0] == before


def limits(n):
    return [n] * len(blas_limits())


def test_the_limit_holds_whichever_thread_asks(call):
    def nested():
        with blas_threads(2):
            two = blas_limits()
            with blas_threads(1):
                one = blas_limits()
            return two, one, blas_limits()

    assert call(nested) == (limits(2), limits(1), limits(2))


def test_the_smallest_of_overlapping_limits_holds_until_the_last_is_closed():
    before, two, one = blas_limits(), blas_threads(2), blas_threads(1)
    with blas_threads(3):
        one.__enter__()
        assert blas_limits() == limits(1)
        with blas_threads(2):
            assert blas_limits() == limits(1)
        one.__exit__(None, None, None)
        assert blas_limits() == limits(3)
        two.__enter__()
    assert blas_limits() == limits(2)
    two.__exit__(None, None, None)
    assert blas_limits() == before


def test_limits_that_several_threads_open_and_close_in_any_order_are_restored():
    before, opened, closed = blas_limits(), threading.Event(), threading.Event()

    def other():
        with blas_threads(1):
            opened.set()
            closed.wait(timeout=60)
            return blas_limits()

    with blas_threads(1):
        thread = multiprocessing.pool.ThreadPool(1)
        found = thread.apply_async(other)
        opened.wait(timeout=60)
    closed.set()
    assert found.get(timeout=60) == limits(1), "the other thread's limit holds after this one's was closed"
    assert blas_limits() == before
    thread.close()


def test_a_job_has_one_thread_of_blas_and_an_image_alone_as_many_as_asked_for(call, rng):
    model = nv.create_model("vit_micro_patch2_8", depth=1)
    x, seen = rng.standard_normal((1, 1, 8, 8)).astype(np.float32), []
    with nv.core.observing(model, lambda name, *_: seen.append(blas_limits()) if name == "head" else None):
        call(lambda: nv.infer(model, x, threads=3))
        call(lambda: nv.infer(model, x, threads=1))
        call(lambda: shared_workers(2).map(lambda _: nv.infer(model, x, threads=3), range(1)))
    assert seen == [limits(3), limits(1), limits(1)]


def test_blas_has_its_threads_again_after_an_error(call):
    before = blas_limits()

    def fail(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        call(lambda: shared_workers(2).map(fail, range(4)))
    assert blas_limits() == before


def train(rng_seed=5, steps=8):
    rng = np.random.default_rng(rng_seed)
    x, labels = rng.standard_normal((48, 3, 16, 16)).astype(np.float32), rng.integers(0, 3, 48)
    model = nv.VisionTransformer(
        img_size=16, patch_size=4, num_classes=3, embed_dim=48, depth=2, num_heads=3, drop_rate=0.1
    )
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-2), threads=2, clip_norm=1.0)
    for _ in range(steps):
        step(x, labels)
    return np.concatenate([p.data.ravel() for _, p in model.named_parameters()]), nv.infer(model, x, threads=2)


@pytest.mark.parametrize("callers", [1, 2, 8])
def test_weights_and_inference_do_not_depend_on_who_calls(callers):
    weights, logits = train()
    for found in call_in_threads(callers, train):
        assert np.array_equal(found[0], weights) and np.array_equal(found[1], logits)


def test_sixteen_jobs_run_on_as_many_threads_as_asked_for_the_callers_among_them(call):
    meet = threading.Barrier(2)

    def job(i):
        if i < 2:
            meet.wait(timeout=60)  # two jobs run side by side, or this breaks
        return threading.get_ident()

    def work():
        return threading.get_ident(), set(shared_workers(2).map(job, range(16)))

    own, threads = call(work)
    assert len(threads) == 2 and own in threads


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_beside_a_working_thread_keeps_no_limit_of_it():
    before, opened, closed = blas_limits(), threading.Event(), threading.Event()

    def other():
        with blas_threads(1):
            opened.set()
            closed.wait(timeout=60)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    opened.wait(timeout=60)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=lambda: results.put((blas_limits(), train()[0])), daemon=True)
    child.start()
    found, weights = results.get(timeout=60)
    closed.set()
    thread.join(timeout=60)
    child.join(timeout=60)
    assert found == before and np.array_equal(weights, train()[0])


def test_a_copied_step_goes_on_as_the_first_does(rng):
    x, labels = rng.standard_normal((16, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, 16)
    model = nv.create_model("vit_micro_patch2_8", depth=1)
    step = nv.TrainStep(model, nv.optim.AdamW(model), threads=2)
    step(x, labels)
    copies = [copy.deepcopy(step), pickle.loads(pickle.dumps(step))]
    expected = [step(x, labels) for _ in range(3)]
    for other in copies:
        assert other.model is not model and [other(x, labels) for _ in range(3)] == expected


_GUEST = """
import io, contextlib, numpy as np, numpyvit as nv
from numpyvit import cli
from numpyvit.backend.process import tune_process
model = nv.create_model("vit_micro_patch2_8")
x = np.ones((64, 1, 8, 8), np.float32)
nv.infer(model, x)
nv.TrainStep(model, nv.optim.AdamW(model))(x, np.zeros(64, int))
print(tune_process.cache_info().misses)
with contextlib.redirect_stdout(io.StringIO()):
    cli.main(["models"])
print(tune_process.cache_info().misses)
"""


def test_the_library_leaves_the_process_as_it_is_and_the_command_line_tunes_its_own():
    result = subprocess.run([sys.executable, "-c", _GUEST], capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["0", "1"], result.stderr


def test_an_interruption_is_no_ordinary_error():
    assert issubclass(nv.errors.Interrupted, KeyboardInterrupt) and not issubclass(nv.errors.Interrupted, Exception)


def test_after_an_error_no_further_items_are_begun(call):
    done = []

    def work(i):
        done.append(i)
        raise KeyError(i)

    with pytest.raises(KeyError):
        call(lambda: shared_workers(1).map(work, range(20)))
    assert done == [0]
