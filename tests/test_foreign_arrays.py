"""Arrays of other libraries are taken where arrays of NumPy are."""

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit.backend import as_array
from numpyvit.data import Dataset
from numpyvit.errors import DtypeError, ShapeError
from numpyvit.testing import stand_in


class WithArray:
    """What only converts itself, as tensors of PyTorch, arrays of JAX and tables of pandas do."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class WithDLPack:
    """What has __dlpack__ alone; NumPy asks its class."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class OnGPU:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Sparse:
    def toarray(self):
        raise AssertionError("nothing is made dense unasked")


def torch_tensor(values):
    return pytest.importorskip("torch").from_numpy(values)


def jax_array(values):
    return pytest.importorskip("jax.numpy").asarray(values)


def memory_mapped(values):
    return np.asarray(values).view(np.memmap)


@pytest.fixture
def model():
    return nv.create_model("vit_micro_patch2_8", depth=1)


@pytest.fixture
def x(rng):
    return rng.standard_normal((3, 1, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("kind", [WithArray, WithDLPack, torch_tensor, jax_array, memory_mapped])
def test_models_and_steps_take_arrays_of_other_libraries(kind, model, x):
    labels = np.array([0, 1, 2])
    expected = model(x)
    assert np.array_equal(model(kind(x)), expected)
    assert np.array_equal(nv.infer(model, kind(x)), nv.infer(model, x))
    losses = []
    for convert in (np.asarray, kind):
        own = nv.create_model("vit_micro_patch2_8", depth=1)
        losses.append(nv.TrainStep(own, nv.optim.AdamW(own, lr=1e-3))(convert(x), convert(labels)))
    assert losses[0] == losses[1]


def test_inference_divides_them_among_threads_too(model, rng, little_work_is_shared, monkeypatch):
    sizes, forward = [], type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, x, *rest: sizes.append(len(x)) or forward(self, x, *rest))
    nv.infer(model, WithArray(rng.standard_normal((8, 1, 8, 8)).astype(np.float32)))
    assert len(sizes) > 1 and sum(sizes) == 8


@pytest.mark.parametrize("kind", [WithArray, WithDLPack, torch_tensor, jax_array, memory_mapped])
def test_sets_take_arrays_of_other_libraries(kind, rng, model):
    images, labels = rng.integers(0, 256, (4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    made = Dataset.from_arrays(kind(images), kind(labels))
    assert np.array_equal(made.images[:, 0], images) and np.array_equal(made.labels, labels)
    pair = kind(images), kind(labels)
    nv.fit(model, pair, pair, epochs=1, warmup_steps=0, progress=False)
    of_set = Dataset.from_arrays(images, labels, map(str, range(10)), model.preprocessing.mean, model.preprocessing.std)
    assert nv.evaluate(model, pair)["loss"] == nv.evaluate(model, of_set)["loss"]


def test_a_set_takes_a_list_of_images_of_pillow(rng):
    pixels = rng.integers(0, 256, (3, 8, 6, 3), np.uint8)
    made = Dataset.from_arrays([Image.fromarray(image) for image in pixels], [0, 1, 2])
    assert np.array_equal(made.images, pixels.transpose(0, 3, 1, 2))


def test_images_of_several_sizes_are_no_set():
    with pytest.raises(ShapeError, match="differ in size"):
        Dataset.from_arrays([Image.new("L", (8, 8)), Image.new("L", (9, 8))], [0, 1])


def test_labels_may_be_a_column_of_a_table(rng):
    pandas = pytest.importorskip("pandas")
    images = rng.integers(0, 256, (3, 8, 8), np.uint8)
    assert Dataset.from_arrays(images, pandas.Series([2, 0, 1])).labels.tolist() == [2, 0, 1]


def test_what_is_an_array_already_stays_the_same_object(x):
    for array in (x, memory_mapped(x), stand_in.asarray(x), np.ma.masked_array(x), np.float32(1)):
        assert as_array(array) is array


def test_memory_is_shared_where_the_library_allows_it(x):
    assert np.shares_memory(as_array(WithArray(x)), x) and np.shares_memory(as_array(WithDLPack(x)), x)


def test_nested_inputs_are_converted_item_by_item(x):
    images, (mask,) = as_array((WithArray(x), [WithArray(x > 0)]))
    assert type(images) is type(mask) is np.ndarray
    assert type(as_array({"boxes": WithArray(x)})["boxes"]) is np.ndarray


@pytest.mark.parametrize("wrong, message", [(OnGPU(), "OnGPU.*cuda:0.*cpu"), (Sparse(), r"sparse Sparse.*toarray\(\)")])
def test_what_cannot_be_converted_says_how_to(wrong, message, model):
    for call in (model, lambda x: nv.infer(model, x), lambda x: Dataset.from_arrays(x, [0])):
        with pytest.raises(DtypeError, match=message):
            call(wrong)


def test_a_tensor_on_a_tape_is_refused_with_what_to_do(model, x):
    with pytest.raises(DtypeError, match=r"patch_embed.*got a Tensor.*numpy\.asarray"):
        model.forward(torch_tensor(x), nv.Tape(model))


def test_a_tensor_that_requires_a_gradient_is_refused_with_what_to_do(model, x):
    with pytest.raises(DtypeError, match=r"requires grad.*detach"):
        model(torch_tensor(x).requires_grad_())
