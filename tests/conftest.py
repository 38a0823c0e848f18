import concurrent.futures
import signal
import threading

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.optim import Optimizer
from numpyvit.testing import stand_in
from numpyvit.training import shards

# A shell that starts the suite in the background has Ctrl-C ignored, and the programs that the tests start inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


TINY = dict(img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2)


def tiny(**options):
    """A ViT of two narrow blocks for images of 1×8×8 pixels and three classes."""
    return nv.VisionTransformer(**{**TINY, **options})


@pytest.fixture
def rng():
    return np.random.default_rng(1234)


def _cupy():
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.runtime.getDeviceCount() == 0:
        pytest.skip("no GPU")
    return cupy


@pytest.fixture(params=["numpy", "stand_in", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """Each array namespace that layers must run on."""
    return {"numpy": lambda: np, "stand_in": lambda: stand_in, "cupy": _cupy}[request.param]()


@pytest.fixture(scope="module")
def torch():
    """PyTorch, for tests of parity, beside which torchvision and timm load."""
    import torch

    # torchvision's compiled part is absent beside a CPU build; these two names let the rest of it load
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield torch
    del library


def call_in_threads(count, function):
    """[function()] of so many threads at once; what one raises is raised here."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        together = threading.Barrier(count)
        calls = [pool.submit(lambda: (together.wait(timeout=60), function())[1]) for _ in range(count)]
        return [call.result(timeout=120) for call in calls]


@pytest.fixture(params=["the main thread", "another thread"])
def call(request):
    """call(function) -> function(), from the main thread and from another one after the main one has used BLAS."""
    with nv.backend.blas_threads(1):
        pass
    return (lambda function: function()) if "main" in request.param else (lambda f: call_in_threads(1, f)[0])


@pytest.fixture
def image_folder(tmp_path):
    """A folder of own image_folder: two classes, bright and dark, of different sizes and modes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, low in (("bright", 150), ("dark", 0)):
        folder = tmp_path / "image_folder" / "train" / name
        folder.mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(low, low + 100, (10 + i, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB" if i % 2 else "L").save(folder / f"{i}.png")
    return tmp_path / "image_folder"


@pytest.fixture
def little_work_is_shared(monkeypatch):
    """Small image_folder and models stand for large ones, which are worth several threads and pieces."""
    monkeypatch.setattr(shards, "DEFAULT", shards.Sharding(tiny_batch=0, small_update=0))
    monkeypatch.setattr(Optimizer, "chunk_size", 500)
