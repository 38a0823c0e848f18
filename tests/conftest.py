import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.optim import Optimizer
from numpyvit.testing import stand_in
from numpyvit.training import shards

# A shell that starts the suite in the background has Ctrl-C ignored, and the programs that the tests start inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


ROOT = pathlib.Path(__file__).resolve().parent.parent
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


@pytest.fixture
def cupy():
    """CuPy, where there is a GPU."""
    return _cupy()


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


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, for tests of pages."""
    api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome") or pytest.skip("no Chromium")
    with (
        api.sync_playwright() as play,
        contextlib.closing(play.chromium.launch(executable_path=program, args=["--no-sandbox"])) as browser,
    ):
        yield browser


@pytest.fixture
def open_page(chromium):
    """open_page(file or address, width=1400, dark=False) -> a page.

    What it says on the console, an error in it, and what it asks from elsewhere fail the test.
    """
    trouble, contexts = [], []

    def open_one(place, width=1400, dark=False):
        address = place.absolute().as_uri() if isinstance(place, pathlib.Path) else place
        viewport, scheme = {"width": width, "height": 900}, "dark" if dark else "light"
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True))
        page = contexts[-1].new_page()
        page.on("console", lambda said: trouble.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("requestfailed", lambda asked: trouble.append(f"{asked.url[:200]} failed"))
        home = address.split("//")[1].split("/")[0]
        page.on("request", lambda asked: trouble.append(asked.url) if _is_elsewhere(asked.url, home) else None)
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not trouble


def _is_elsewhere(url, home):
    return not url.startswith(("data:", "blob:")) and url.split("//")[1].split("/")[0] != home


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
def mpi():
    """-> where mpirun is, and the environment for it."""
    pytest.importorskip("mpi4py")
    beside = pathlib.Path(sys.executable).parent / "mpirun"
    program = str(beside) if beside.exists() else shutil.which("mpirun") or pytest.skip("no mpirun")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return program, environment


@pytest.fixture
def mpirun(mpi):
    """mpirun(ranks, arguments of numpyvit, …) -> the process, started."""
    program, environment = mpi
    with contextlib.ExitStack() as stack:

        def start(ranks, *args, program_args=("-m", "numpyvit")):
            process = subprocess.Popen(
                [program, "-n", str(ranks), sys.executable, *map(str, (*program_args, *args))],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def finish(process, timeout=120):
    """-> (exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


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
