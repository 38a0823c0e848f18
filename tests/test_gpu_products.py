"""Products on a GPU, proved without one: a library that takes cuBLASLt's calls computes from what it was told.

It reads the operands from memory by the layouts that were described, column after column, so a wrong order, distance,
transposition or pointer gives a wrong product. On a machine with a GPU, `pytest -m gpu` compares the real library.
"""

import ctypes

import numpy as np
import pytest
from cuda_emulator import COMPILER, Emulator, kernels_on_stand_in, on_stand_in

import numpyvit as nv
from numpyvit import functional as F
from numpyvit import layers
from numpyvit.gpu import precision, products
from numpyvit.testing import stand_in

_BITS = {"float32": 24, "tf32": 11, "bf16": 8}


class FakeLibrary:
    """cuBLASLt as far as numpyvit.gpu.products calls it, on the memory of the host."""

    def __init__(self):
        self.objects, self.plans, self.products = [], 0, 0

    def _make(self, place, **facts):
        self.objects.append(facts)
        place._obj.value = len(self.objects)
        return 0

    def _set(self, handle, attribute, value, size):
        assert size.value == ctypes.sizeof(value._obj)
        self.objects[handle.value - 1][attribute.value] = value._obj.value
        return 0

    def cublasLtCreate(self, place):
        return self._make(place)

    def cublasLtMatmulDescCreate(self, place, compute, scale):
        assert scale.value == 0  # CUDA_R_32F
        return self._make(place, compute=compute.value)

    def cublasLtMatrixLayoutCreate(self, place, kind, rows, columns, leading):
        assert leading.value >= rows.value
        return self._make(place, kind=kind.value, rows=rows.value, columns=columns.value, leading=leading.value)

    def cublasLtMatmulPreferenceCreate(self, place):
        return self._make(place)

    cublasLtMatmulDescSetAttribute = cublasLtMatrixLayoutSetAttribute = cublasLtMatmulPreferenceSetAttribute = _set

    def cublasLtMatmulAlgoGetHeuristic(self, handle, description, a, b, c, d, preference, asked, heuristic, found):
        assert self.objects[preference.value - 1][1] == products.WORKSPACE_BYTES
        self.plans += 1
        heuristic._obj.algorithm[0] = 4711
        self.alignments = [self.objects[preference.value - 1][attribute] for attribute in (5, 6, 7, 8)]
        self.bias_place = self.objects[description.value - 1].get(8)
        found._obj.value = asked.value
        return 0

    def cublasLtMatmul(self, handle, description, alpha, a, of_a, b, of_b, beta, c, of_c, d, of_d, *rest):
        (algorithm, workspace, size, stream), one, zero = rest, alpha._obj.value, beta._obj.value
        assert (one, zero, size.value, stream.value) == (1, 0, products.WORKSPACE_BYTES, 99) and workspace.value
        assert algorithm._obj.algorithm[0] == 4711 and (c.value, of_c.value) == (d.value, of_d.value)
        self.products += 1
        stand_in.launch("cublasLt", lambda: self._multiply(description, a, of_a, b, of_b, d, of_d))
        return 0

    def _multiply(self, description, a, of_a, b, of_b, d, of_d):
        described, a_layout, b_layout, out_layout = (
            self.objects[handle.value - 1] for handle in (description, of_a, of_b, of_d)
        )
        self.compute = described["compute"]
        left = self._matrices(a, a_layout, described[3])
        right = self._matrices(b, b_layout, described[4])
        out = np.einsum("bmk,bkn->bmn", left, right)
        if described.get(7) == 4:  # with a bias, one number a row
            out += _floats(described[8], out.shape[1])[:, None]
        for i, matrix in enumerate(out):
            for j in range(matrix.shape[1]):  # column after column
                place = d.value + 4 * (i * out_layout[6] + j * out_layout["leading"])
                _floats(place, len(matrix))[:] = matrix[:, j]

    def _matrices(self, pointer, layout, transposed):
        size = {0: 4, 14: 2}[layout["kind"]]
        matrices = []
        for i in range(layout[5]):
            columns = []
            for j in range(layout["columns"]):
                place = pointer.value + size * (i * layout[6] + j * layout["leading"])
                if size == 4:
                    columns.append(_floats(place, layout["rows"]).astype(float))
                else:
                    upper = np.ctypeslib.as_array((ctypes.c_uint16 * layout["rows"]).from_address(place))
                    columns.append((upper.astype(np.uint32) << 16).view(np.float32).astype(float))
            matrix = np.stack(columns, axis=1)
            matrices.append(matrix.T if transposed else matrix)
        return np.stack(matrices)


def _floats(address, count):
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


class OnHost(products.CublasLt):
    def address(self, x):
        return x._array.ctypes.data

    def stream(self):
        return 99


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(tmp_path_factory.mktemp("cuda")) if COMPILER else None


@pytest.fixture
def fake(emulator, monkeypatch):
    library = FakeLibrary()
    made = OnHost(stand_in, library)
    monkeypatch.setitem(products.PRODUCTS, stand_in, lambda: made)
    with kernels_on_stand_in(emulator):
        yield library


def normal(*shapes):
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def transposed(*shapes):
    return [array.swapaxes(-1, -2) for array in normal(*((*s[:-2], s[-1], s[-2]) for s in shapes))]


_packed = np.moveaxis(*normal((2, 5, 3, 4, 6)), 2, 0).swapaxes(2, 3)  # q, k, v as (B, H, N, d)
PAIRS = {
    "in rows": normal((3, 4), (4, 5)),
    "a transposed": [*transposed((3, 4)), *normal((4, 5))],
    "b transposed": [*normal((3, 4)), *transposed((4, 5))],
    "both transposed": transposed((3, 4), (4, 5)),
    "one row": normal((1, 4), (4, 5)),
    "one column": normal((3, 4), (4, 1)),
    "one number": normal((3, 1), (1, 5)),
    "part of the columns": [normal((3, 9))[0][:, 2:6], normal((4, 9))[0][:, 1:6]],
    "every second column": [normal((3, 8))[0][:, ::2], *normal((4, 5))],
    "a batch": normal((2, 3, 4), (2, 4, 5)),
    "a batch of transposed": transposed((2, 3, 4), (2, 4, 5)),
    "b shared by the batch": normal((2, 7, 3, 4), (4, 5)),
    "a shared by the batch": [*normal((3, 4)), *transposed((2, 7, 4, 5))],
    "broadcast": normal((2, 1, 3, 4), (7, 4, 5)),
    "scores of packed heads": [_packed[0], _packed[1].swapaxes(-1, -2)],
    "values of packed heads": [normal((2, 4, 5, 5))[0], _packed[2]],
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("chosen", ["float32", "tf32", "bf16"])
def test_matmul_tells_the_library_where_its_operands_lie(fake, chosen, pair):
    if chosen == "bf16" and COMPILER is None:
        pytest.skip("the emulator, which rounds to bf16, needs g++ or clang++")
    a, b = PAIRS[pair]
    expected = (_to_bf16(a) @ _to_bf16(b)) if chosen == "bf16" else a.astype(float) @ b
    with precision.products_in(chosen):
        for _ in range(2):
            found = F.matmul(*map(on_stand_in, (a, b)))
    assert fake.products == 2 and found.dtype == np.float32
    assert fake.compute == {"float32": 68, "tf32": 77, "bf16": 68}[chosen]
    np.testing.assert_allclose(found.get(), expected, atol=1e-5)


@pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++ or clang++")
def test_what_is_not_finite_stays_so_in_bf16(fake):
    a, b = np.ones((4, 3), np.float32), np.eye(3, dtype=np.float32) + 1
    a[0, 0], a[1, 0], a[2, 0] = np.nan, np.inf, -np.inf
    a.view(np.uint32)[0, 1] = 0x7F800001  # NaN, of which only the lower half says so
    with precision.products_in("bf16"):
        found = F.matmul(on_stand_in(a), on_stand_in(b)).get()
    np.testing.assert_array_equal(found, np.repeat([[np.nan], [np.inf], [-np.inf], [4]], 3, axis=1))


def _to_bf16(array):
    upper = np.ascontiguousarray(array).view(np.uint32)
    upper = (upper + 0x7FFF + (upper >> 16 & 1)) >> 16 << 16
    return upper.view(np.float32).astype(float)


@pytest.mark.parametrize("weight", [*normal((5, 4)), *transposed((5, 4))], ids=["in rows", "transposed"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_adds_its_bias_in_the_product(fake, weight, with_bias):
    x, bias = normal((2, 3, 4), 5)
    arrays = [on_stand_in(array) for array in (x, weight, bias)]
    found = F.linear(*arrays[: 3 if with_bias else 2]).get()
    assert fake.products == 1
    np.testing.assert_allclose(found, x @ weight.T + (bias if with_bias else 0), atol=1e-5)


def test_a_bias_of_the_first_columns_is_added_there(fake):
    x, weight, bias = normal((2, 3, 4), (5, 4), 2)
    found = F.linear(*map(on_stand_in, (x, weight, bias))).get()
    np.testing.assert_allclose(found, x @ weight.T + [*bias, 0, 0, 0], atol=1e-5)


def test_a_product_is_planned_once_and_again_for_memory_that_is_less_aligned(fake):
    memory = stand_in.zeros(1000, dtype=np.float32)
    first = -(memory._array.ctypes.data // 4) % 64
    b = stand_in.zeros((4, 4), dtype=np.float32)
    for offset, plans in ((0, 1), (0, 1), (1, 2), (2, 3)):
        a = memory[first + offset : first + offset + 16].reshape(4, 4)
        F.matmul(a, b)
        assert fake.plans == plans and fake.alignments[1] == {0: 256, 1: 4, 2: 8}[offset]


def test_the_library_is_told_how_the_bias_is_aligned(fake):
    x, weight, memory = (stand_in.zeros(shape, dtype=np.float32) for shape in ((3, 4), (5, 4), 1000))
    first = -(memory._array.ctypes.data // 4) % 64
    for offset, place in ((0, 256), (4, 16), (1, 4), (64, 4)):  # in the end planned before
        F.linear(x, weight, memory[first + offset : first + offset + 5])
        assert fake.bias_place == place


def test_what_the_library_refuses_is_an_error(fake, monkeypatch):
    a, b = (stand_in.zeros((3, 3), dtype=np.float32) for _ in range(2))
    monkeypatch.setattr(fake, "cublasLtMatmul", lambda *arguments: 15)
    with pytest.raises(RuntimeError, match="cublasLtMatmul failed with status 15"):
        F.matmul(a, b)
    monkeypatch.setattr(fake, "cublasLtMatmulAlgoGetHeuristic", lambda *arguments: 0)
    with pytest.raises(RuntimeError, match=r"no algorithm for .* in tf32"), precision.products_in("tf32"):
        F.matmul(a, b)


def test_other_types_and_empty_arrays_run_as_the_formula(fake):
    for shapes, dtype in ((((3, 4), (4, 5)), np.float64), (((0, 4), (4, 5)), np.float32)):
        a, b = (stand_in.zeros(shape, dtype=dtype) for shape in shapes)
        assert F.matmul(a, b).shape == (shapes[0][0], 5)
    assert fake.products == 0


@pytest.mark.gpu
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("chosen", _BITS)
def test_the_real_library_gives_products_in_the_precision_asked_for(cupy, chosen, pair):
    a, b = PAIRS[pair]
    with precision.products_in(chosen):
        found = F.matmul(cupy.asarray(a), cupy.asarray(b)).get()
    bound = 2.0 ** -_BITS[chosen] * (np.abs(a) @ np.abs(b)).max()
    np.testing.assert_allclose(found, a.astype(float) @ b, atol=2 * bound)


def test_launches_of_a_block_of_vit_tiny_by_kernels(fake):
    block = layers.Block(192, 3, qkv_bias=True).to(stand_in)
    tape, x = nv.Tape(block), on_stand_in(normal((2, 17, 192))[0])
    with stand_in.counting() as forward:
        y = block.forward(x, tape)
    with stand_in.counting() as backward:
        block.backward(y, tape)
    assert [forward.launches, backward.launches] == [10, 34]
    assert forward.by_name("launches")["cublasLt"] == 4 and backward.by_name("launches")["cublasLt"] == 8
