"""The kernels for a GPU, proved without one: compiled for three generations of GPUs, and run on an emulator.

The emulator (cuda_emulator.h) runs every thread of a block on the CPU. The functions that launch the kernels are given
arrays of the stand-in for CuPy, so that grids, sizes and the order of arguments are tested as well. On a machine with a
GPU, `pytest -m gpu` makes the same comparisons there.
"""

import ctypes
import importlib.metadata

import numpy as np
import pytest
from cuda_emulator import COMPILER, Emulator, guarded, kernel_names

from numpyvit import functional as F
from numpyvit.gpu import program, table
from numpyvit.kernels import SETS
from numpyvit.testing import stand_in

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++ or clang++")
try:
    _NVRTC = next(file.locate() for file in importlib.metadata.files("nvidia-cuda-nvrtc") if "libnvrtc.so" in file.name)
except importlib.metadata.PackageNotFoundError:
    _NVRTC = None
KERNELS = kernel_names(program.source())


# ---------------------------------------------------------------------------------------------- compiled for GPUs


def compile_for(architecture: str) -> str:
    """The compiler's report on all kernels."""
    nvrtc = ctypes.CDLL(str(_NVRTC))
    handle, options = ctypes.c_void_p(), [f"--gpu-architecture={architecture}", *program.OPTIONS]
    options = [
        option.encode() for option in (*options, "--ftz=true", "--ptxas-options=-v", "--warning-as-error=all-warnings")
    ]
    nvrtc.nvrtcCreateProgram(ctypes.byref(handle), program.source().encode(), b"numpyvit.cu", 0, None, None)
    try:
        failed = nvrtc.nvrtcCompileProgram(handle, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(handle, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(handle, log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))
    assert not failed, log.value.decode()
    return log.value.decode()


@pytest.mark.skipif(not _NVRTC, reason="the compiler for GPUs is not installed: pip install nvidia-cuda-nvrtc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(architecture):
    report = compile_for(architecture)
    for name in KERNELS:
        _, _, properties = report.partition(f"Function properties for {name}\n")
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in properties.splitlines()[0], name


# ---------------------------------------------------------------------------------------------- compared


class Emulated:
    """numpyvit.functional as it runs on a GPU: kernels where there are, on arrays of the stand-in."""

    def __init__(self, emulator):
        self.emulator = emulator

    def __call__(self, function, *arguments):
        """What the function gives in both orders of threads, which must be equal, and what it made of its arguments."""
        runs = []
        for self.emulator.reversed in (False, True):
            given = [_on_stand_in(a) for a in arguments]
            self.emulator.launched.clear()
            result = function(*given)
            assert self.emulator.launched, "no kernel ran"
            runs.append(([_to_host(y) for y in _tuple(result)], [_to_host(a) for a in given]))
        for forward, backward in zip(runs[0][0] + runs[0][1], runs[1][0] + runs[1][1]):
            np.testing.assert_array_equal(forward, backward, err_msg="the order of threads changes the result")
        return runs[0]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def emulated(emulator, monkeypatch):
    monkeypatch.setattr(stand_in, "empty", lambda shape, dtype: _device(guarded(shape, dtype)), raising=False)
    before = {name: dict(kernels) for name, kernels in SETS.items()}
    table.register(stand_in, emulator)
    yield Emulated(emulator)
    del program.PROGRAMS[stand_in]
    for name, kernels in before.items():
        SETS[name].clear()
        SETS[name].update(kernels)


@pytest.fixture(params=[pytest.param("emulated", marks=needs_compiler), pytest.param("cupy", marks=pytest.mark.gpu)])
def run(request):
    """run(function, *arguments) -> what it gave and what it made of its arguments, on the host."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")
    cupy = pytest.importorskip("cupy")

    def on_gpu(function, *arguments):
        given = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        result = function(*given)
        return [_to_host(y) for y in _tuple(result)], [_to_host(a) for a in given]

    return on_gpu


def _device(array):
    return type(stand_in.asarray(0))(array)


def _on_stand_in(value):
    """An array on the stand-in with guards around it, in the same order of memory."""
    if not isinstance(value, np.ndarray):
        return value
    order = np.argsort([-stride for stride in value.strides], kind="stable")
    memory = guarded([value.shape[axis] for axis in order], value.dtype)
    memory[...] = value.transpose(order)
    return _device(memory.transpose(np.argsort(order)))


def _to_host(value):
    return value.get() if hasattr(value, "get") else value


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)


def normal(*shapes):
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def exact(value):
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def check(run, formula, *arguments):
    """With device arrays, for which it launches kernels, a formula gives what it gives in float64; none is changed."""
    inputs = [exact(a) for a in arguments]
    expected = _tuple(formula.plain(*inputs))
    found, given = run(formula, *arguments)
    for y, z in zip(expected, found, strict=True):
        close(z, y)
    for before, after in zip(arguments, given):
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before)


def close(found, expected, tolerance=table.TOLERANCE):
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max(initial=0)))


SIZES = [(1, 48), (3, 192), (65, 192), (197, 768), (2, 65, 50)]  # rows and width


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_layer_norm(run, shape):
    x, weight, bias = normal(shape, shape[-1:], shape[-1:])
    check(run, F.layer_norm, 3 * x + 1, weight, bias, 1e-6)


@pytest.mark.parametrize("shape", [*SIZES, (2100, 40)], ids=str)
def test_layer_norm_backward(run, shape):
    dy, weight, xhat, rstd = normal(shape, shape[-1:], shape, (*shape[:-1], 1))
    check(run, F.layer_norm_backward, dy, weight, xhat, np.abs(rstd))


@pytest.mark.parametrize("shape", [*SIZES, (2100, 33)], ids=str)
def test_sum_over_rows(run, shape):
    check(run, F.sum_over_rows, *normal(shape))


@needs_compiler
def test_a_missing_barrier_is_found(tmp_path, monkeypatch, emulator, emulated):
    code = program.source()
    place = code.index("__syncthreads();", code.index("void layer_norm_backward("))
    without = Emulator(tmp_path, code[:place] + code[place + len("__syncthreads();") :])
    monkeypatch.setitem(program.PROGRAMS, stand_in, without)
    dy, weight, xhat, rstd = normal((65, 48), 48, (65, 48), (65, 1))
    with pytest.raises(AssertionError, match="the order of threads changes the result"):
        Emulated(without)(F.layer_norm_backward, dy, weight, xhat, rstd)


@needs_compiler
def test_a_barrier_that_some_threads_miss_and_a_write_behind_an_array_are_found(tmp_path, emulated):
    miss = "if (threadIdx.x < 3) __syncthreads(); else __syncwarp();"
    beside, inside = "x[blockDim.x] = 0;", "extern __shared__ float shared[]; shared[blockDim.x] = 0;"
    bodies = {"miss": miss, "beside": beside, "behind": inside}
    code = "".join(f'extern "C" __global__ void {name}(float* x) {{ {body} }}\n' for name, body in bodies.items())
    emulator = Emulator(tmp_path, code)
    x = _on_stand_in(np.zeros(64, np.float32))
    with pytest.raises(RuntimeError, match="some threads wait at a barrier that the others do not reach"):
        emulator.launch("miss", (1,), (64,), (x,), 0)
    with pytest.raises(RuntimeError, match="wrote behind the end of its shared memory"):
        emulator.launch("behind", (1,), (64,), (x,), 64 * 4)
    with pytest.raises(AssertionError, match="beside wrote beside an array"):
        emulator.launch("beside", (1,), (64,), (x,), 0)
