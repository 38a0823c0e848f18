"""Ranks with a GPU each. Without GPUs CuPy and NCCL are stood in for; calls and types those of CuPy's module."""

import importlib.machinery
import sys
import threading
import types

import numpy as np
import pytest
from conftest import ROOT, finish, tiny
from nccl import NCCL, Cuda
from rank_families import images_and_labels, trained, vit

from numpyvit.backend import ALONE
from numpyvit.backend.arrays import cuda_with_nccl
from numpyvit.backend.nccl import NCCLGroup
from numpyvit.errors import ConfigError
from numpyvit.testing import stand_in
from numpyvit.testing.ranks import run_ranks


@pytest.mark.parametrize("size", [2, 3])
def test_weights_do_not_depend_on_the_number_of_gpus(size, rng):
    batches = [tuple(map(stand_in.asarray, images_and_labels(vit(), count, rng))) for count in (16, 16, 2)]
    (expected,) = run_ranks(1, lambda group: trained(tiny().to(stand_in), batches, group))
    for found in run_ranks(size, lambda group: trained(tiny().to(stand_in), batches, NCCLGroup(group, Cuda(group)))):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


@pytest.mark.parametrize("dtype, code", [("float32", NCCL.NCCL_FLOAT32), ("float64", NCCL.NCCL_FLOAT64)])
def test_arrays_go_in_one_group_of_calls_on_the_current_stream(dtype, code):
    def of_rank(below):
        cuda, other = Cuda(below), 1 - below.rank
        group = NCCLGroup(below, cuda)
        cuda.stream = 77
        sent, empty = stand_in.asarray(np.full(5, below.rank + 1, dtype)), stand_in.asarray(np.empty(0, dtype))
        received = group.empty_like(sent)
        group.swap([(other, sent), (other, empty)], [(other, received), (other, group.empty_like(empty))])
        return cuda.calls, received.get()

    for rank, (calls, received) in enumerate(run_ranks(2, of_rank)):
        assert calls == [("send", 5, code, 1 - rank, 77), ("recv", 5, code, 1 - rank, 77)]
        assert received.dtype == dtype and np.array_equal(received, np.full(5, 2 - rank, dtype))


def test_what_is_not_on_gpus_goes_as_in_the_group_below():
    def of_rank(below):
        group = NCCLGroup(below, Cuda(below))
        group.barrier()
        return group.rank, group.size, group.gather({"rank": group.rank}), group.failed_together(), group.leads

    found = run_ranks(2, of_rank)
    assert found == [(rank, 2, [{"rank": 0}, {"rank": 1}], True, rank == 0) for rank in range(2)]


def test_a_gpu_is_given_work_by_the_thread_that_chose_it(rng):
    """CUDA has a current device for each thread; those of a pool would work on the first one."""
    batch = tuple(map(stand_in.asarray, images_and_labels(vit(), 16, rng)))

    def of_rank(below):
        group, model, seen = NCCLGroup(below, Cuda(below)), tiny().to(stand_in), set()
        forward = model.forward
        model.forward = lambda *args: (seen.add(threading.get_ident()), forward(*args))[1]
        trained(model, [batch], group, threads=4)
        return seen == {threading.get_ident()}

    assert run_ranks(2, of_rank) == [True, True]


def test_each_rank_takes_the_gpu_of_its_number():
    def of_rank(below):
        cuda = Cuda(below)
        NCCLGroup(below, cuda)
        return cuda.device

    assert run_ranks(3, of_rank) == [0, 1, 2]
    message = r"ranks 0 and 2 would share the GPU 0000:00:00.0 of .*; start no more ranks on a machine than it has GPUs"
    with pytest.raises(ConfigError, match=message):
        run_ranks(3, lambda below: NCCLGroup(below, Cuda(below, gpus=2)))


def test_what_nccl_says_is_said():
    class Broken(Cuda):
        def __init__(self, group):
            super().__init__(group)
            self.nccl.NcclCommunicator = self.fail

        def fail(self, *args):
            raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR: no route")

    with pytest.raises(
        ConfigError, match=r"NCCL does not connect .* \(NCCL_ERROR_SYSTEM_ERROR: no route\); NCCL_DEBUG"
    ):
        run_ranks(2, lambda below: NCCLGroup(below, Broken(below)))


@pytest.mark.parametrize("available", [True, False])
def test_nccl_is_loaded_when_it_is_asked_for(monkeypatch, available):
    """CuPy has a module for it, which importing cupy does not load and which says whether the library is there."""
    names = ("cupy", "cupy.cuda", "cupy.cuda.nccl")
    cupy, cuda, nccl = (types.ModuleType(name) for name in names)
    for name, module in zip(names, (cupy, cuda, nccl)):
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    cupy.cuda, cupy.ndarray, nccl.available = cuda, type("ndarray", (), {}), available
    cuda.runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    if available:
        assert cuda_with_nccl() is cuda
    else:
        with pytest.raises(ConfigError, match=r"ranks on GPUs need NCCL, .* pip install nvidia-nccl-cu12"):
            cuda_with_nccl()


# ---- on GPUs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cupy():
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.runtime.getDeviceCount() == 0:
        pytest.skip("no GPU")
    pytest.importorskip("nvidia.nccl", reason="NCCL is not installed: pip install nvidia-nccl-cu12 or -cu13")
    return cupy


@pytest.mark.gpu
def test_nccl_takes_these_calls(cupy):
    """A group of one, which sends to itself."""
    group = NCCLGroup(ALONE, cuda_with_nccl())
    for dtype in ("float32", "float64"):
        sent = cupy.arange(1000, dtype=dtype)
        received = group.empty_like(sent)
        with cupy.cuda.Stream(non_blocking=True):
            group.swap([(0, sent[:500]), (0, sent[500:])], [(0, received[:500]), (0, received[500:])])
            cupy.cuda.get_current_stream().synchronize()
        assert np.array_equal(cupy.asnumpy(received), np.arange(1000, dtype=dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["vit", "swin"])
def test_weights_do_not_depend_on_the_number_of_real_gpus(mpirun, cupy, tmp_path, family):
    count = cupy.cuda.runtime.getDeviceCount()
    if count < 2:
        pytest.skip(f"needs two GPUs, there is {count}")
    found = []
    for ranks in (1, 2):
        program = (ROOT / "tests" / "rank_families.py", family, 1, 1, tmp_path / f"{ranks}.npz", "cuda")
        code, _, err = finish(mpirun(ranks, program_args=program))
        assert code == 0, err
        with np.load(tmp_path / f"{ranks}.npz") as file:
            found.append(dict(file))
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(array, found[1][name]) for name, array in found[0].items())
