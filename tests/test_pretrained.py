"""Weight files of other libraries: containers, names, and models that differ from the file."""

import pathlib
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from foreign_weights import STYLES, huggingface_names, tiny
from scipy import ndimage

import numpyvit as nv
from numpyvit.errors import CheckpointError
from numpyvit.files.budget import Budget, TooLarge
from numpyvit.functional import resample
from numpyvit.testing import randomize
from numpyvit.weights.adapt import Notice, fold_channels, load_pretrained
from numpyvit.weights.checkpoint import read_checkpoint, save_checkpoint
from numpyvit.weights.containers import read_container
from numpyvit.weights.names import to_timm

GOLDEN = pathlib.Path(__file__).parent / "golden"

# ---- containers -----------------------------------------------------------------------------------------------------

BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


def test_pytorch_files_of_every_storage_stride_and_offset():
    arrays, _, container = read_container(GOLDEN / "tensors.pth")
    expected = {
        "plain": BASE,
        "transposed": BASE.T,
        "slice": BASE[1:3, ::2],
        "shared": BASE[2],
        "half": BASE.astype(np.float16),
        "bfloat16": BASE,
        "double": BASE.astype(np.float64),
        "long": np.arange(5),
        "scalar": np.array(7, np.int32),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": BASE[0],
    }
    assert container == "torch" and arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(arrays[name], array) and arrays[name].dtype == array.dtype, name


def test_what_training_scripts_wrap_around_is_taken_off():
    assert np.array_equal(nv.load_checkpoint(GOLDEN / "wrapped.pth")["plain"], BASE)


def test_a_pytorch_file_whose_pickle_calls_something_is_refused_and_named():
    with pytest.raises(CheckpointError, match=r"calls\.pth: the pickle calls collections\.Counter"):
        nv.load_checkpoint(GOLDEN / "calls.pth")


def test_files_before_pytorch_1_6_are_refused_by_name():
    with pytest.raises(CheckpointError, match=r"before 1\.6"):
        nv.load_checkpoint(GOLDEN / "legacy.pth")


def test_bfloat16_in_npz_and_safetensors(tmp_path):
    bits = (BASE.view(np.uint32) >> 16).astype(np.uint16)
    np.savez(tmp_path / "w.npz", a=bits.view("V2"), b=np.asfortranarray(BASE))
    arrays = nv.load_checkpoint(tmp_path / "w.npz")
    assert np.array_equal(arrays["a"], BASE) and np.array_equal(arrays["b"], BASE)
    header = b'{"a":{"dtype":"BF16","shape":[4,6],"data_offsets":[0,48]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    assert np.array_equal(nv.load_checkpoint(tmp_path / "w.safetensors")["a"], BASE)


def test_pickled_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], object))
    with pytest.raises(CheckpointError, match="pickled objects are refused"):
        nv.load_checkpoint(tmp_path / "w.npz")


def test_a_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(200_000_000))
    with pytest.raises(CheckpointError, match="promises 200,000,000 bytes"):
        nv.load_checkpoint(tmp_path / "w.npz")


def whole_file(kind, folder):
    path = folder / f"whole.{kind}"
    arrays = {"a": np.arange(3000, dtype=np.float32), "b.weight": BASE}
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "npz-compressed":
        np.savez_compressed(folder / "c.npz", **arrays)
        (folder / "c.npz").rename(path)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        path.write_bytes((GOLDEN / "tensors.pth").read_bytes())
    return path.read_bytes()


def mutate(data, rng):
    """Flips, overwrites, cuts and doublings, most of them where structure is: at the ends of the file."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        near = [int(rng.integers(0, min(600, len(data)))), len(data) - 1 - int(rng.integers(0, min(600, len(data))))]
        place = int(rng.choice([*near, int(rng.integers(0, len(data)))]))
        kind = rng.integers(5)
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place] = int(rng.integers(256))
        elif kind == 2:
            data[place : place + 4] = struct.pack("<I", int(rng.integers(2**32)))
        elif kind == 3:
            del data[max(place, 100) : len(data) if rng.random() < 0.5 else max(place, 100) + 8]
        else:
            data[place:place] = data[place : place + 16]
    return bytes(data)


def survives(kind, count, folder, first=0):
    whole = whole_file(kind, folder)
    read_container(folder / f"whole.{kind}")  # imports done, before memory is watched
    path, refused = folder / "mutant", 0
    slack = 5_000_000 if kind == "npz-compressed" else 1_000_000  # deflate may unpack to a thousand times its size
    for seed in range(first, first + count):
        path.write_bytes(mutate(whole, np.random.default_rng(seed)))
        tracemalloc.start()
        try:
            for array in nv.load_checkpoint(path).values():
                assert isinstance(array, np.ndarray)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2 * len(whole) + slack, f"mutant {seed} of {kind} took {peak:,} bytes"
    assert refused > count / 4  # the mutations do damage


KINDS = ["safetensors", "npz", "npz-compressed", "pth"]


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_refused_or_load(kind, tmp_path):
    survives(kind, 200, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_mutated_files_are_refused_or_load(kind, tmp_path):
    survives(kind, 5800, tmp_path, first=200)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_deits_own_files_are_told_from_timms():
    assert read_checkpoint(GOLDEN / "wrapped.pth")[2] == "deit"
    assert read_checkpoint(GOLDEN / "tensors.pth")[2] == "timm"


def test_how_images_are_prepared_comes_with_the_file(tmp_path):
    np.savez(tmp_path / "hf.npz", **huggingface_names(tiny().state_dict()))
    model = tiny()
    load_pretrained(model, tmp_path / "hf.npz")
    assert model.pretrained_cfg["interpolation"] == "squash" and model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    np.savez(tmp_path / "timm.npz", **tiny(num_classes=1000).state_dict())
    model = tiny(num_classes=1000)
    load_pretrained(model, tmp_path / "timm.npz")
    assert model.pretrained_cfg["classes"][285] == "Egyptian cat" and len(model.pretrained_cfg["classes"]) == 1000


@pytest.mark.parametrize("style", STYLES)
def test_each_librarys_names_become_timms(style, tmp_path):
    state = randomize(tiny(), seed=3).state_dict()
    rename, origin = STYLES[style]
    np.savez(tmp_path / "w.npz", **rename(state))
    arrays, _, found = read_checkpoint(tmp_path / "w.npz")
    assert found == origin and arrays.keys() == state.keys()
    assert all(np.array_equal(arrays[name], array) for name, array in state.items())


def test_huggingfaces_distilled_names(tmp_path):
    state = randomize(tiny(distilled=True), seed=3).state_dict()
    np.savez(tmp_path / "w.npz", **huggingface_names(state, "deit"))
    arrays = nv.load_checkpoint(tmp_path / "w.npz")
    assert arrays.keys() == state.keys() and np.array_equal(arrays["head_dist.bias"], state["head_dist.bias"])


def test_a_block_without_its_key_is_named(tmp_path):
    state = huggingface_names(tiny().state_dict())
    del state["vit.encoder.layer.1.attention.attention.key.weight"]
    np.savez(tmp_path / "w.npz", **state)
    with pytest.raises(CheckpointError, match="block 1 lacks its key weight"):
        nv.load_checkpoint(tmp_path / "w.npz")


HUGGING_FACES = {
    "swin": ("swin.encoder.layers.0.blocks.0.attention.self.", "{}.weight", "layers.0.blocks.0.attn"),
    "detr": ("model.encoder.layers.0.self_attn.", "{}_proj.weight", "transformer.encoder.layers.0.self_attn"),
}


@pytest.mark.parametrize("family", HUGGING_FACES)
def test_queries_keys_and_values_that_lie_apart_must_fit_together(family):
    layer, part, named = HUGGING_FACES[family]
    q, k, v = (layer + part.format(name if family == "swin" else name[0]) for name in ("query", "key", "value"))
    marks = {"swin": [layer + "relative_position_bias_table"]}
    marks["detr"] = ["class_labels_classifier.weight", "bbox_predictor.layers.0.weight"]
    whole = dict.fromkeys([q, k, v, *marks[family]], np.ones((4, 4), np.float32))
    (packed,) = (array for name, array in to_timm({**whole})[0].items() if name.startswith(named) and len(array) == 12)
    assert packed.shape == (12, 4)
    with pytest.raises(CheckpointError, match=rf"{re.escape(named)}.* lacks its key .*only q, v"):
        to_timm({name: array for name, array in whole.items() if name != k})
    with pytest.raises(CheckpointError, match=rf"{re.escape(named)}.* \(4, 4\), \(4, 3\), \(4, 4\), which differ"):
        to_timm({**whole, k: np.ones((4, 3), np.float32)})
    with pytest.raises(TooLarge):
        to_timm({**whole}, Budget(100))


# ---- models that differ from the file -------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    model = randomize(tiny(), seed=3)
    save_checkpoint(tmp_path / "w.safetensors", model)
    return model, tmp_path / "w.safetensors"


def test_another_number_of_classes_drops_the_head_with_a_notice(saved):
    model, path = saved
    other = tiny(num_classes=7, seed=9)
    head = other.head.weight.data.copy()
    with pytest.warns(Notice, match="head for 5 classes was dropped; that for 7 is new"):
        load_pretrained(other, path)
    assert np.array_equal(other.head.weight.data, head)
    assert np.array_equal(other.norm.weight.data, model.norm.weight.data)
    features = tiny(num_classes=0)
    load_pretrained(features, path)  # no head wanted, so no notice
    assert np.array_equal(features.norm.weight.data, model.norm.weight.data)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_other_channels_fold_the_patch_weights(saved, channels, rng):
    model, path = saved
    other = tiny(in_chans=channels)
    load_pretrained(other, path)
    gray = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
    if channels == 1 or channels % 3 == 0:  # the same gray image in every channel gives the same answer
        expected = model(np.repeat(gray, 3, axis=1))
        np.testing.assert_allclose(other(np.repeat(gray, channels, axis=1)), expected, rtol=1e-4, atol=1e-5)
    assert fold_channels(model.patch_embed.proj.weight.data, channels).shape[1] == channels


@pytest.mark.parametrize("size", [16, (8, 12), (4, 20)])
def test_another_image_size_resizes_the_position_embedding(saved, size):
    model, path = saved
    other = tiny(img_size=size)
    load_pretrained(other, path)
    assert other.pos_embed.data.shape[1] == 1 + other.patch_embed.num_patches
    assert np.array_equal(other.pos_embed.data[:, 0], model.pos_embed.data[:, 0])


def test_what_cannot_be_adapted_is_listed(saved):
    _, path = saved
    with pytest.raises(CheckpointError, match=r"missing blocks\.2\.norm1\.weight"):
        load_pretrained(tiny(depth=3), path)
    with pytest.raises(CheckpointError, match=r"cls_token: given \(1, 1, 8\), expected \(1, 1, 16\)"):
        load_pretrained(tiny(embed_dim=16), path)


def test_huggingfaces_epsilon_comes_with_its_weights(tmp_path):
    np.savez(tmp_path / "w.npz", **huggingface_names(tiny().state_dict()))
    model = tiny()
    load_pretrained(model, tmp_path / "w.npz")
    assert {model.norm.eps, model.blocks[0].norm1.eps} == {1e-12}


# ---- resampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["bicubic", "bicubic_antialias", "bicubic_corners"])
def test_resizing_equals_pytorchs(way):
    with np.load(GOLDEN / "resample.npz") as arrays:
        grid = arrays["grid"][0].transpose(1, 2, 0)
        for name in arrays:
            if name.startswith(f"{way}/"):
                expected = arrays[name][0].transpose(1, 2, 0)
                resized = resample.resize(grid, expected.shape[:2], getattr(resample, way))
                np.testing.assert_allclose(resized, expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("size", [(6, 6), (3, 2), (8, 4)])
def test_googles_resizing_equals_scipys_zoom(size, rng):
    grid = rng.standard_normal((4, 4, 3))
    expected = ndimage.zoom(grid, (size[0] / 4, size[1] / 4, 1), order=1)
    np.testing.assert_allclose(resample.resize(grid, size, resample.linear), expected, atol=1e-12)
