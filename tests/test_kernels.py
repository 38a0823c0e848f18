"""Every kernel against the formula that it stands in for."""

import importlib.util
import sys

import numpy as np
import pytest
from conftest import tiny

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.errors import ConfigError
from numpyvit.kernels import SETS


def _normal(*shapes):
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape) * 2 for shape in shapes]


def _features_first(tokens, width):
    """The tokens of one image, laid out as kernels/cpu/linear.py does."""
    return _normal((1, width, tokens))[0].swapaxes(1, 2)


def _probabilities(*shape):
    return F.softmax(_normal(shape)[0])


def _keep(*shape):
    return (np.random.default_rng(3).random(shape) >= 0.3) / 0.7


def _masked(scores):
    return scores - 100.0 * (np.arange(scores.shape[-1]) % 3 == 1)


def _maps(shape, weight, *places):
    """An image batch, the gradient of its convolution, and stride, padding and dilation."""
    x, weight = _normal(shape, weight)
    y = F.conv2d(x, weight, None, *places)
    return x, weight, _normal(y.shape)[0], places


_HEADS = (3, 2, 7, 4)  # B, H, N, d
_SCORES = (3, 2, 7, 7)

_ONCE, _NONE = (1, 1), (0, 0)
_CONVOLUTIONS = [
    _maps((3, 4, 7, 6), (5, 4, 3, 3), _ONCE, _ONCE, _ONCE),
    _maps((70, 2, 5, 4), (3, 2, 3, 3), _ONCE, _ONCE, _ONCE),  # several pieces of several images
    _maps((2, 3, 70, 40), (2, 3, 3, 3), _ONCE, _ONCE, _ONCE),  # several bands of an image, the last one smaller
    _maps((2, 3, 71, 82), (2, 3, 7, 7), (2, 2), (3, 3), _ONCE),
    _maps((2, 3, 70, 41), (2, 3, 3, 5), (2, 3), (1, 4), (3, 2)),
    _maps((2, 3, 9, 9), (2, 3, 2, 2), (3, 3), _NONE, _ONCE),
    _maps((2, 3, 40, 41), (2, 3, 1, 1), _ONCE, _NONE, _ONCE),
    _maps((70, 3, 6, 5), (2, 3, 1, 1), (2, 2), _NONE, _ONCE),
    _maps((2, 3, 6, 5), (2, 3, 1, 1), _ONCE, (1, 2), _ONCE),
    _maps((2, 3, 6, 5), (2, 3, 1, 1), _ONCE, (0, 1), _ONCE),
    _maps((2, 3, 6, 5), (2, 3, 1, 2), _ONCE, _NONE, _ONCE),
    _maps((2, 3, 6, 5), (2, 3, 2, 1), _ONCE, _NONE, _ONCE),
]


def _update(lr, decay):
    theta, g, m, v = _normal(7, 7, 7, 7)
    return [theta, g, m, v * v, 3, lr, (0.9, 0.999), 1e-6, decay]


# name of a kernel: the arguments of several calls
CALLS = {
    "linear": [
        [*_normal((3, 5, 8), (6, 8), 6)],
        [*_normal((1, 5, 8), (6, 8), 6)],
        [*_normal((4, 8), (6, 8)), None],
        [*_normal((1, 1, 8), (6, 8), 6)],
        [*_normal((3, 5, 8), (6, 8), 2)],  # a bias of the first columns alone
        [*_normal((1, 5, 8), (6, 8), 2)],
    ],
    "adamw_": [_update(0.1, 0.05), _update(0.1, 0.0), _update(np.linspace(0, 0.1, 7), 0.05)],
    "sum_over_rows": [_normal((3, 5, 8)), _normal((1, 8))],
    "softmax_": [
        [*_normal((3, 5, 8))],
        [_normal((3, 5, 8))[0] * 100],
        [*_normal((3, 5, 8)), 1],
        [np.zeros((0, 5))],
        [_masked(*_normal((3, 5, 8)))],
        [_masked(*_normal((3, 5, 8))), 1],
        [_normal((3, 5, 8))[0] - 1000 * (np.arange(5) == 2)[:, None]],  # a whole row far below the others
    ],
    "gelu": [
        *([*_normal((3, 5, 8)), *bias] for bias in ((), _normal(8))),
        _normal(200_000),
        [np.array([-60.0, -9, -0.0, 0, 9, 60])],
        [_features_first(5, 8), *_normal(8)],
        [_normal((3, 5, 8))[0].swapaxes(0, 1), *_normal(8)],
    ],
    "gelu_with_slope": [_normal((3, 5, 8)), _normal(200_000), [np.array([-60.0, -9, -0.0, 0, 9, 60])]],
    "attention": [
        [*_normal(_HEADS, _HEADS, _HEADS), 0.5],
        [*_normal(_HEADS, _HEADS, _HEADS), 0.5, *_normal((2, 7, 7)), _keep(*_SCORES)],
        [*_normal((5, 4), (7, 4), (7, 4)), 0.5],
    ],
    "attention_backward": [
        [*_normal(_HEADS, _HEADS, _HEADS, _HEADS), _probabilities(*_SCORES), 0.5],
        [*_normal(_HEADS, _HEADS, _HEADS, _HEADS), _probabilities(*_SCORES), 0.5, _keep(*_SCORES)],
    ],
    "conv2d": [
        [x, weight, bias, *places] for x, weight, _, places in _CONVOLUTIONS for bias in (None, _normal(len(weight))[0])
    ],
    "conv2d_weight_gradient": [[dy, x, weight.shape[2:], *places] for x, weight, dy, places in _CONVOLUTIONS],
    "group_norm": [[*_normal((3, 8, 5, 4), 8, 8), 2, 1e-5], [*_normal((2, 4, 1, 3), 4, 4), 4, 1e-3]],
    "group_norm_backward": [
        [*_normal((3, 8, 5, 4), 8, (3, 8, 5, 4)), *np.abs(_normal((3, 2, 1)))],
        [*_normal((2, 4, 1, 3), 4, (2, 4, 1, 3)), *np.abs(_normal((2, 4, 1)))],
    ],
    "standardize": [
        [*_normal((3, 5, 8)), 1e-6],
        [*_normal((4, 8)), 1e-3],
        [_features_first(5, 8), 1e-6],
        [_normal((3, 5, 8))[0].swapaxes(0, 1), 1e-6],
    ],
    "layer_norm": [[*_normal((3, 5, 8), 8, 8), 1e-6], [*_normal((4, 8), 8, 8), 1e-3]],
    "layer_norm_backward": [[*_normal((3, 5, 8), 8, (3, 5, 8)), np.full((3, 5, 1), 1.7)]],
}

if importlib.util.find_spec("numba"):
    with nv.kernels("fast"):
        pass  # compiled and in the table from here on

KERNELS = sorted({(chosen, name, dtype) for chosen, table in SETS.items() for name, _, dtype in table})


@pytest.mark.parametrize("chosen, name, dtype", KERNELS, ids=map("-".join, KERNELS))
def test_a_kernel_gives_what_its_formula_gives_and_changes_nothing_it_was_given(chosen, name, dtype):
    kernel, formula = SETS[chosen][name, np, dtype], getattr(F, name).plain
    tolerance = kernel.tolerance if dtype == "f" else 1e-12
    for arguments in CALLS[name]:
        own, given = ([_as(dtype, a) for a in arguments] for _ in range(2))
        expected, found = formula(*own), kernel.function(*given)
        if expected is None:  # what it changes in place
            expected, found = (tuple(a for a in side if isinstance(a, np.ndarray)) for side in (own, given))
        for y, z in zip(_tuple(expected), _tuple(found), strict=True):
            assert z.shape == y.shape and z.dtype == y.dtype == np.dtype(dtype)
            np.testing.assert_allclose(z, y, rtol=0, atol=tolerance * max(1.0, np.abs(y).max(initial=0)))
        if not name.endswith("_"):
            assert all(np.array_equal(_as(dtype, a), b) for a, b in zip(arguments, given))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_gives_no_subnormal_numbers(dtype):
    """With them, products take a hundred times as long. Behind a mask probabilities are 0."""
    for low in (-100, -750, -1e4):
        scores = np.zeros((4, 16), dtype)
        scores[:, 5:] = np.linspace(low, low + 30, 11)
        for shift in (0, 60):
            p = F.softmax(scores + np.array(shift, dtype))
            assert ((p == 0) | (p > np.finfo(dtype).tiny)).all()
            np.testing.assert_allclose(p[:, :5], 0.2)


def _as(dtype, value):
    return np.array(value, dtype) if isinstance(value, np.ndarray) else value


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)


def test_a_whole_model_runs_on_formulas_alone_and_on_every_thread(rng, monkeypatch):
    model = nv.create_model("vit_micro_patch7_28", seed=0)
    x = rng.standard_normal((128, 1, 28, 28)).astype(np.float32)
    expected = nv.infer(model, x, threads=2)
    table = {key: value for key, value in SETS["numpy"].items()}

    def refuse(*_):
        raise AssertionError("a kernel ran")

    for key, kernel in table.items():
        monkeypatch.setitem(SETS["numpy"], key, type(kernel)(kernel.name, refuse, 0, 0))
    with nv.plain():
        found = nv.infer(model, x, threads=2)
        step = nv.TrainStep(model, nv.optim.AdamW(model), threads=2)
        assert np.isfinite(step(x, rng.integers(0, 10, 128)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(AssertionError, match="a kernel ran"):
        nv.infer(model, x, threads=2)


def test_sets_are_chosen_by_name_and_for_a_while():
    with nv.kernels("plain"), nv.kernels("numpy"):
        pass
    with pytest.raises(ConfigError, match="'plain', 'numpy'"):
        nv.kernels("cuda")


def test_a_set_can_be_chosen_again_and_formulas_take_keywords():
    x = np.ones((1, 2, 3, 4), np.float32)
    again = nv.kernels("plain")
    for _ in range(2):
        with again:
            F.attention(q=x, k=x, v=x, scale=1.0)
    plain = nv.plain()
    assert np.array_equal(F.softmax(x), F.softmax(x)) and F.gelu(x).dtype == np.float32
    with plain:
        pass


def test_compiled_kernels_are_asked_for_by_name_and_say_what_they_need(monkeypatch):
    monkeypatch.setitem(SETS, "fast", {})
    monkeypatch.setitem(sys.modules, "numba", None)  # as where it is not installed
    for name in [name for name in sys.modules if name.startswith("numpyvit.kernels.fast")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'numpyvit\[fast\]'"):
        nv.kernels("fast")


def test_a_run_that_goes_on_with_other_kernels_says_so(tmp_path, rng):
    images, labels = rng.random((16, 1, 8, 8), dtype=np.float32), np.arange(16) % 3
    settings = dict(out=tmp_path, batch_size=8, warmup_steps=0, val_fraction=0, progress=False)
    nv.fit(tiny(), (images, labels), None, epochs=1, **settings)
    with nv.kernels("plain"), pytest.warns(UserWarning, match="with the kernels 'numpy' and goes on with 'plain'"):
        nv.fit(tiny(), (images, labels), None, epochs=2, resume=True, **settings)


@pytest.mark.skipif(not SETS["fast"], reason="Numba is not installed")
class TestCompiled:
    """What holds for the compiled kernels beyond what holds for every kernel."""

    def test_a_step_and_an_inference_agree_with_numpy_and_do_not_depend_on_threads(self, rng):
        x, labels = rng.standard_normal((64, 1, 8, 8)).astype(np.float32), np.arange(64) % 3
        found = {}
        for chosen, threads in (("numpy", 1), ("fast", 1), ("fast", 3)):
            model = tiny(drop_rate=0.1)
            step = nv.TrainStep(model, nv.optim.AdamW(model), threads=threads)
            with nv.kernels(chosen):
                for _ in range(3):
                    step(x, labels)
                found[chosen, threads] = [*model.state_dict().values(), nv.infer(model, x, threads)]
        for a, b, c in zip(found["numpy", 1], found["fast", 1], found["fast", 3]):
            np.testing.assert_allclose(b, a, atol=2e-5)
            assert np.array_equal(b, c)

    def test_they_are_as_exact_as_those_of_numpy(self):
        x = np.linspace(-20, 20, 100_001)
        with nv.kernels("fast"):
            y, slope = F.gelu_with_slope(x.astype(np.float32))
            np.testing.assert_allclose(F.gelu(x.astype(np.float32)), y, rtol=1e-6)
        exact, exact_slope = F.gelu_with_slope.plain(x.astype(np.float32).astype(float))
        assert (np.abs(y - exact) / np.maximum(np.abs(x), 1)).max() < 3e-7
        assert np.abs(slope - exact_slope).max() < 3e-7

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_stays_so(self, bad):
        x = np.ones((4, 40), np.float32)
        x[1, 3] = bad
        weight = np.ones(40, np.float32)
        with nv.kernels("fast"):
            outcomes = [F.gelu(x), F.gelu_with_slope(x)[0], F.layer_norm(x, weight, weight, 1e-6)[0], F.softmax(x)]
        for y in outcomes:
            assert not np.isfinite(y[1]).all() and np.isfinite(y[[0, 2, 3]]).all()

    def test_arrays_in_another_order_of_memory_give_the_same(self, rng):
        x = rng.standard_normal((1, 9, 40)).astype(np.float32)
        other = np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)
        weight = rng.standard_normal(40).astype(np.float32)
        with nv.kernels("fast"):
            for f in (F.gelu, F.softmax, lambda x: F.layer_norm(x, weight, weight, 1e-6)[0]):
                np.testing.assert_allclose(f(other), f(x), atol=1e-6)
                np.testing.assert_allclose(f(x[:, ::2]), f(x)[:, ::2], atol=1e-6)
