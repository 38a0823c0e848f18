"""The kernels for a GPU, proved without one: compiled for three generations of GPUs, and run on an emulator.

The emulator (cuda_emulator.h) runs every thread of a block on the CPU. The functions that launch the kernels are given
arrays of the stand-in for CuPy, so that grids, sizes and the order of arguments are tested as well. On a machine with a
GPU, `pytest -m gpu` makes the same comparisons there.
"""

import ctypes
import importlib.metadata
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cuda_emulator import COMPILER, Emulator, guarded, kernel_names, kernels_on_stand_in, on_stand_in

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.backend import array_module
from numpyvit.backend import philox as host_philox
from numpyvit.data.augment import normalize
from numpyvit.gpu import elementwise, images, philox, program, table
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
            given = [_with_guards(a) for a in arguments]
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
    monkeypatch.setattr(stand_in, "empty", lambda shape, dtype: on_stand_in(guarded(shape, dtype)), raising=False)
    with kernels_on_stand_in(emulator):
        yield Emulated(emulator)


@pytest.fixture(params=[pytest.param("emulated", marks=needs_compiler), pytest.param("cupy", marks=pytest.mark.gpu)])
def run(request):
    """run(function, *arguments) -> what it gave and what it made of its arguments, on the host."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")
    cupy = request.getfixturevalue("cupy")

    def once(function, arguments):
        given = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        return [_to_host(y) for y in _tuple(function(*given))], [_to_host(a) for a in given]

    def on_gpu(function, *arguments):
        first, second = (once(function, arguments) for _ in range(2))
        for y, z in zip(first[0], second[0]):
            np.testing.assert_array_equal(y, z, err_msg="the same call gives other bits")
        return first

    return on_gpu


def _with_guards(value):
    """An array on the stand-in with guards around it, in the same order of memory."""
    if not isinstance(value, np.ndarray):
        return value
    order = np.argsort([-stride for stride in value.strides], kind="stable")
    memory = guarded([value.shape[axis] for axis in order], value.dtype)
    memory[...] = value.transpose(order)
    return on_stand_in(memory.transpose(np.argsort(order)))


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


@pytest.mark.parametrize("formula", [F.gelu, F.gelu_with_slope], ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [1, 65 * 48, 1025])
def test_gelu(run, formula, size):
    x = 4 * normal(size)[0]
    x[0] = -30
    check(run, formula, x)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_gelu_with_a_bias(run, shape):
    check(run, F.gelu, *normal(shape, shape[-1:]))


@pytest.mark.parametrize("shape", [(1, 1, 48), (3, 65, 50)], ids=str)
def test_residual(run, shape):
    x, branch = normal(shape, shape)
    keep = np.array([0, 1.25, 0][: shape[0]], np.float32).reshape(-1, 1, 1)
    for mask in (None, keep):
        (found,), _ = run(elementwise.residual, x, branch, mask)
        close(found, x + branch * (1 if mask is None else mask))
    branch[0] = np.nan  # left out, so it does not matter
    assert np.isfinite(run(elementwise.residual, x, branch, keep)[0][0]).all()


@pytest.mark.parametrize("shape", [*SIZES, (3, 2, 65, 65)], ids=str)
def test_softmax(run, shape):
    x = 5 * normal(shape)[0]
    (found,), (changed,) = run(F.softmax_, x)
    close(found, F.softmax(exact(x)))
    np.testing.assert_array_equal(found, changed)


@pytest.mark.parametrize("shape", [(1, 2), (65, 10), (9, 1000)], ids=str)
def test_softmax_cross_entropy(run, shape):
    logits, target = normal(shape, shape)
    for total in (7.0, np.array(5, np.float32)):
        check(run, F.softmax_cross_entropy, 5 * logits, np.abs(target), total)


HEADS = [  # images, heads, queries, keys, numbers a head
    (1, 1, 1, 1, 16),
    (2, 3, 65, 65, 16),
    (1, 1, 65, 65, 64),
    (1, 2, 1, 65, 48),
    (1, 1, 17, 49, 33),
    (1, 1, 197, 197, 64),
]


def heads(B, H, N, M, d):
    """q, k and v as a layer has them: views of (B, N, 3, H, d), or of two arrays where there are fewer queries."""
    if N == M:
        return np.moveaxis(*normal((B, N, 3, H, d)), 2, 0).swapaxes(2, 3)
    q, kv = normal((B, N, 1, H, d), (B, M, 2, H, d))
    return (*np.moveaxis(q, 2, 0).swapaxes(2, 3), *np.moveaxis(kv, 2, 0).swapaxes(2, 3))


@pytest.mark.parametrize("sizes", HEADS, ids=str)
def test_attention(run, sizes):
    check(run, F.attention, *heads(*sizes), 1.5 * sizes[-1] ** -0.5)


@pytest.mark.parametrize("sizes", HEADS, ids=str)
def test_attention_backward(run, sizes):
    (q, k, v), (B, H, N, M, d) = heads(*sizes), sizes
    dout, p = normal((B, N, H, d), (B, H, N, M))
    check(run, F.attention_backward, dout.swapaxes(1, 2), q, k, v, F.softmax(p), 1.5 * d**-0.5)


def test_attention_backward_writes_into_places_that_it_is_given(run):
    B, H, N, d = 2, 3, 10, 16
    (q, k, v), (dout, p) = heads(B, H, N, N, d), normal((B, H, N, d), (B, H, N, N))
    expected = F.attention_backward.plain(dout, q, k, v, p, 0.5)

    def backward(packed, *arguments):
        out = F.split_heads(packed, 3, H)
        found = F.attention_backward(*arguments, out=out)
        assert all(a is b for a, b in zip(found, out)) or True
        return found[3]

    packed = np.zeros((B, N, 3 * H * d), np.float32)
    (ds,), (packed, *_) = run(backward, packed, dout, q, k, v, p, 0.5)
    close(packed, F.join_heads(expected[:3]))
    close(ds, expected[3])


RATES = [1e-2, np.array(1e-2, np.float32), np.linspace(0, 1e-2, 1025, dtype=np.float32)]


@pytest.mark.parametrize("lr", RATES, ids=["number", "on the device", "for each weight"])
@pytest.mark.parametrize("step", [3, np.array(3, np.uint64)], ids=["step", "step on the device"])
def test_adamw(run, lr, step):
    theta, g, m, v = normal(1025, 1025, 1025, 1025)
    settings = (theta, g, m, v * v, step, lr, (0.9, 0.999), 1e-8, 0.05)
    expected = [exact(a) for a in settings[:4]]
    F.adamw_.plain(*expected, 3, exact(lr), *settings[6:])
    _, found = run(F.adamw_, *settings)
    for y, z in zip(expected, found[:4]):
        close(z, y)


def test_adamw_clips_and_averages_in_the_same_pass(run):
    theta, g, m, v, average = normal(300, 300, 300, 300, 300)
    settings = (3, 1e-2, (0.9, 0.999), 1e-8, 0.05)
    expected = [exact(a) for a in (theta, g * 0.3, m, v * v)]
    F.adamw_.plain(*expected, *settings)
    scale = np.array(0.3, np.float32)
    _, found = run(F.adamw_, theta, g, m, v * v, *settings, scale, average, 0.9)
    close(found[0], expected[0])
    close(found[10], (4 / 13) * average + (9 / 13) * expected[0])  # β = min(0.9, (1 + 3)/(10 + 3))


@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zero", "ones", "pi"],
)
def test_philox_gives_the_published_words(counter, key, expected):
    """Those of Random123 1.14, kat_vectors."""
    words = host_philox.philox([np.array([word], np.uint64) for word in counter], tuple(key))
    assert " ".join(f"{int(word[0]):08x}" for word in words) == expected


@pytest.mark.parametrize("step", [5, np.array(2**40 + 5, np.uint64)], ids=["step", "step on the device"])
@pytest.mark.parametrize("shape", [(1,), (65, 3), (2, 1029)], ids=str)
def test_draws_are_the_same_bits_as_on_the_host(run, shape, step):
    key, number = (0xA4093822, 0x299F31D0), 7
    expected = host_philox.uniform(np, key, int(step) % 2**32, number, shape)

    def draw(like, step):
        return host_philox.uniform(array_module(like), key, step, number, shape)

    def mask(like, step):
        return philox.dropout_mask(array_module(like), key, step, number, shape, 0.3)

    like = np.zeros(1, np.float32)
    np.testing.assert_array_equal(run(draw, like, step)[0][0], expected)
    np.testing.assert_array_equal(run(mask, like, step)[0][0], (expected >= 0.3) * np.float32(1 / 0.7))


def test_images_are_chosen_cropped_mirrored_and_normalized(run, rng):
    mean, std, padding = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 2
    pixels = rng.integers(0, 256, (7, 3, 9, 11), dtype=np.uint8)
    chosen, flip = np.array([6, 0, 3, 3]), np.array([1, 0, 1, 0], np.uint8)
    top, left = np.array([[2, 0, 4, 1], [2, 4, 1, 0]], np.int32)
    padded = np.pad(pixels, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    cut = [padded[i, :, t : t + 9, l : l + 11] for i, t, l in zip(chosen, top, left)]
    expected = normalize(np.stack([c[:, :, ::-1] if f else c for c, f in zip(cut, flip)]), mean, std, np.float64)

    def make(pixels, chosen, top, left, flip):
        return images.images_from_pixels(pixels, chosen, mean, std, top=top, left=left, flip=flip, padding=padding)

    (found,), _ = run(make, pixels, chosen, top, left, flip)
    close(found, expected)


MODEL = dict(img_size=8, patch_size=2, in_chans=1, num_classes=3, embed_dim=32, depth=2, num_heads=2)
IN_A_STEP = {
    *("layer_norm", "layer_norm_backward", "sum_over_rows", "gelu_with_slope", "softmax_cross_entropy", "adamw"),
    *("attention_5", "attention_1", "attention_backward_5", "attention_backward_1", "attention_backward_keys"),
}


def test_a_training_step_runs_on_kernels_and_agrees_with_the_formulas(run, rng):
    """17 tokens, of which the last block has one query."""
    x, labels = rng.standard_normal((3, 1, 8, 8)).astype(np.float32), np.array([0, 2, 1])

    def step(x, labels):
        model = nv.VisionTransformer(**MODEL).to(array_module(x))
        optimizer, tape = nv.optim.AdamW(model, lr=1e-2, eps=1e-3), nv.Tape(model, input_gradient=False)
        loss, dlogits = nv.losses.cross_entropy(model.forward(x, tape), labels)
        model.backward(dlogits, tape)
        optimizer.step(tape)
        return loss, tape.flat, optimizer.weights.flat, model(x)

    with nv.plain():
        expected = step(x, labels)
    found, _ = run(step, x, labels)
    for y, z in zip(expected, found):
        np.testing.assert_allclose(z, y, rtol=0, atol=1e-5)
    if isinstance(run, Emulated):
        assert {*run.emulator.launched} >= IN_A_STEP


@needs_compiler
@pytest.mark.parametrize("change", [lambda x: x.astype(np.float64), lambda x: x[:, ::2], lambda x: x[:0]])
def test_what_kernels_do_not_serve_runs_as_the_formula(emulated, change):
    x, weight = change(normal((6, 48))[0]), np.ones(48)
    emulated.emulator.launched.clear()

    def normalized(x):
        own = array_module(x).asarray(weight[: x.shape[1]], dtype=x.dtype)
        return F.layer_norm(x, own, own, 1e-6)[0]

    for formula in (F.gelu, F.sum_over_rows, normalized, lambda x: F.softmax(x, axis=0)):
        np.testing.assert_array_equal(formula(on_stand_in(x)).get(), _plainly(formula, x))
    assert not emulated.emulator.launched


def _plainly(formula, x):
    with nv.plain():
        return formula(x)


FAKE_CUPY = """
import types
import numpy as np

class ndarray:
    shape, ndim, size, dtype = (3, 100), 2, 300, np.dtype("f")
    flags = types.SimpleNamespace(c_contiguous=True)

def empty(shape, dtype):
    return ndarray()

class RawModule:
    def __init__(self, code, options):
        assert "__global__ void gelu(" in code and options == ("--std=c++17",)

    def get_function(self, name):
        def launch(grid, block, arguments, shared_mem):
            print(name, grid, block, [type(a).__name__ for a in arguments], shared_mem)
        return launch
"""
FIRST_ARRAY = """
import sys
import numpyvit as nv
from numpyvit import functional as F

assert not {"cupy", "numpyvit.gpu.program"} & {*sys.modules}
import cupy
F.gelu(cupy.ndarray())
assert all(nv.kernels.SETS["numpy"][name, cupy, "f"] for name in ("layer_norm", "attention", "adamw_", "matmul"))
assert not any(cupy in key for key in nv.kernels.SETS["plain"])
"""


def test_kernels_enter_the_table_with_the_first_device_array(tmp_path):
    (tmp_path / "cupy.py").write_text(FAKE_CUPY)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", FIRST_ARRAY], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "gelu (2,) (256,) ['ndarray', 'uint64', 'ndarray', 'int32', 'int32'] 0\n"


def _attend():
    q, k, v = (_with_guards(array) for array in heads(1, 1, 65, 65, 64))
    out, p = F.attention(q, k, v, 0.125)
    return out, *F.attention_backward(out, q, k, v, p, 0.125)


def _update():
    weights = [_with_guards(array) for array in normal(300, 300, 300, 300)]
    F.adamw_(*weights[:3], weights[3] * weights[3], 3, 1e-2, (0.9, 0.999), 1e-8, 0.05)
    return tuple(weights)


USES = {  # of the files with barriers
    "adamw.cu": _update,
    "attention.cu": _attend,
    "layer_norm.cu": lambda: F.layer_norm_backward(*map(_with_guards, normal((65, 48), 48, (65, 48), (65, 1)))),
    "sums.cu": lambda: F.sum_over_rows(*map(_with_guards, normal((65, 48)))),
}
FILES = dict(re.findall(r'#line 1 "(.*)"\n((?:(?!#line).*\n)*)', program.source()))
BARRIERS = [(name, match.span()) for name, code in FILES.items() for match in re.finditer(r"__syncthreads\(\);", code)]


@needs_compiler
@pytest.mark.parametrize("name, barrier", BARRIERS, ids=[f"{i}. in {name}" for i, (name, _) in enumerate(BARRIERS)])
def test_each_barrier_is_missed_where_it_is_left_out(tmp_path, emulated, name, barrier):
    code = FILES[name]
    files = {**FILES, name: code[: barrier[0]] + code[barrier[1] :]}
    emulator = Emulator(tmp_path, "".join(files[name] for name in {"common.cu": 0, "sums.cu": 0, name: 0}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(program.PROGRAMS, stand_in, emulator)
        runs = []
        for emulator.reversed in (False, True):
            runs.append([y.get() for y in _tuple(USES[name]())])
    assert not all(np.array_equal(x, y) for x, y in zip(*runs))  # what is NaN is equal to nothing


@needs_compiler
def test_a_barrier_that_some_threads_miss_and_a_write_behind_an_array_are_found(tmp_path, emulated):
    miss = "if (threadIdx.x < 3) __syncthreads(); else __syncwarp();"
    beside, inside = "x[blockDim.x] = 0;", "extern __shared__ float shared[]; shared[blockDim.x] = 0;"
    bodies = {"miss": miss, "beside": beside, "behind": inside}
    code = "".join(f'extern "C" __global__ void {name}(float* x) {{ {body} }}\n' for name, body in bodies.items())
    emulator = Emulator(tmp_path, code)
    x = _with_guards(np.zeros(64, np.float32))
    with pytest.raises(RuntimeError, match="some threads wait at a barrier that the others do not reach"):
        emulator.launch("miss", (1,), (64,), (x,), 0)
    with pytest.raises(RuntimeError, match="wrote behind the end of its shared memory"):
        emulator.launch("behind", (1,), (64,), (x,), 64 * 4)
    with pytest.raises(AssertionError, match="beside wrote beside an array"):
        emulator.launch("beside", (1,), (64,), (x,), 0)
