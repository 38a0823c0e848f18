"""Sets by name: digits, files of MNIST's form, CIFAR."""

import contextlib
import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from numpyvit import data
from numpyvit.data import formats
from numpyvit.errors import DataError, RunError
from numpyvit.files import pickles, write_atomically


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


LABELS = np.array([3, 1, 4, 1, 5, 9], np.uint8)
NAMES = [content.name for _, content in data.SOURCES["mnist"].files]


@pytest.fixture
def mnist(tmp_path, images):
    for name, content in zip(NAMES, [idx(images), idx(LABELS), idx(images[:2]), idx(LABELS[:2])]):
        (tmp_path / name).write_bytes(content)
    return tmp_path


# ---- sets by name ---------------------------------------------------------------------------------------------------


def test_digits_are_split_without_overlap():
    train, test = data.load("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert train.image_shape == (1, 8, 8) and train.images.max() == 255
    rows = {image.tobytes() for image in train.images}
    assert len(rows) > 1400 and sum(image.tobytes() in rows for image in test.images) < 5
    pixels = train.images / 255
    assert (pixels.mean(), pixels.std()) == pytest.approx((train.mean[0], train.std[0]), abs=1e-3)


def test_idx_files_plain_and_gzipped_are_the_same(mnist, images):
    plain, _ = data.load("mnist", mnist)
    for name in NAMES:
        (mnist / f"{name}.gz").write_bytes(gzip.compress((mnist / name).read_bytes()))
        (mnist / name).unlink()
    packed, test = data.load("mnist", mnist)
    assert np.array_equal(plain.images[:, 0], images) and np.array_equal(packed.images, plain.images)
    assert packed.labels.tolist() == LABELS.tolist() and len(test) == 2


@pytest.mark.parametrize("inner", ["mnist", "MNIST/raw"])
def test_files_are_found_in_inner_folders_and_by_environment(mnist, inner, monkeypatch):
    (mnist / inner).mkdir(parents=True)
    for name in NAMES:
        os.rename(mnist / name, mnist / inner / name)
    monkeypatch.setenv("NUMPYVIT_DATA", str(mnist))
    assert len(data.load("mnist")[0]) == 6


@pytest.mark.parametrize("damage", ["truncated", "longer", "not idx", "gzip cut", "gzip flipped", "empty"])
def test_damaged_idx_files_are_named(mnist, damage):
    path = mnist / NAMES[0]
    whole = path.read_bytes()
    if damage.startswith("gzip"):
        packed = bytearray(gzip.compress(whole))
        packed = packed[:-20] if damage == "gzip cut" else packed[:1000] + bytes([packed[1000] ^ 4]) + packed[1001:]
        (mnist / f"{NAMES[0]}.gz").write_bytes(packed)
    else:
        content = {"truncated": whole[:-1], "longer": whole + b"\0", "not idx": b"hello", "empty": b""}[damage]
        path.write_bytes(content)
    with pytest.raises(DataError, match="train-images"):
        data.load("mnist", mnist)


def test_a_flipped_bit_in_an_official_file_is_found(tmp_path):
    for _, content in data.SOURCES["mnist"].files:
        (tmp_path / content.name).write_bytes(bytes(content.size))
    with pytest.raises(DataError, match=r"train-images.*checksum"):
        data.load("mnist", tmp_path)


def test_labels_outside_the_classes_are_refused(mnist):
    (mnist / NAMES[1]).write_bytes(idx(np.array([0, 1, 2, 3, 4, 10])))
    with pytest.raises(DataError, match="0 to 10"):
        data.load("mnist", mnist)


def test_images_and_labels_of_different_length_are_refused(mnist):
    (mnist / NAMES[1]).write_bytes(idx(LABELS[:5]))
    with pytest.raises(DataError, match="belong together"):
        data.load("mnist", mnist)


def test_missing_files_without_a_network_are_explained_in_one_line(tmp_path, monkeypatch):
    import urllib.error

    def offline(*args, **keywords):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", offline)
    for name, wanted in (("mnist", "train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz")):
        with pytest.raises(DataError) as caught:
            data.load(name, tmp_path)
        assert wanted in str(caught.value) and str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value) and "no network" in str(caught.value)


def test_unknown_names_suggest_near_ones(tmp_path):
    with pytest.raises(DataError, match="did you mean cifar10"):
        data.load("cifar11")
    with pytest.raises(DataError, match="no such folder"):
        data.load("mnist", tmp_path / "nowhere")


# ---- CIFAR ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar():
    rng = np.random.default_rng(0)
    return {f"data_batch_{i}": rng.integers(0, 256, (4, 3072), dtype=np.uint8) for i in range(1, 6)} | {
        "test_batch": rng.integers(0, 256, (4, 3072), dtype=np.uint8)
    }


def write_python(folder, cifar, protocol=2, text=True):
    for name, rows in cifar.items():
        content = {"data": rows, "labels": [0, 1, 2, 9], "filenames": ["a"] * 4}
        if not text:
            content = {key.encode(): value for key, value in content.items()}
        (folder / name).write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("text", [True, False])
def test_cifar_python_batches_of_any_protocol(tmp_path, cifar, protocol, text):
    write_python(tmp_path, cifar, protocol, text)
    train, test = data.load("cifar10", tmp_path)
    assert np.array_equal(train.images.reshape(20, -1)[4:8], cifar["data_batch_2"])
    assert test.labels.tolist() == [0, 1, 2, 9] and test.image_shape == (3, 32, 32)
    assert train.classes[9] == "truck"


def test_cifar_binary_files_and_both_archives(tmp_path, cifar):
    for name, rows in cifar.items():
        (tmp_path / f"{name}.bin").write_bytes(np.insert(rows, 0, [7, 1, 2, 3], axis=1).tobytes())
    train, _ = data.load("cifar10", tmp_path)
    assert train.labels[:4].tolist() == [7, 1, 2, 3]
    assert np.array_equal(train.images.reshape(20, -1)[:4], cifar["data_batch_1"])
    (tmp_path / "archive").mkdir()
    with tarfile.open(tmp_path / "archive" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in cifar:
            archive.add(tmp_path / f"{name}.bin", f"cifar-10-batches-bin/{name}.bin")
    packed, _ = data.load("cifar10", tmp_path / "archive")
    assert np.array_equal(packed.images, train.images)


def test_cifar100_fine_labels_and_names(tmp_path, cifar):
    for name in ("train", "test"):
        content = {"data": cifar["test_batch"], "coarse_labels": [0] * 4, "fine_labels": [5, 99, 0, 1]}
        (tmp_path / name).write_bytes(pickle.dumps(content, 2))
    names = [f"name {i}" for i in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, 2))
    train, _ = data.load("cifar100", tmp_path)
    assert train.labels.tolist() == [5, 99, 0, 1] and train.classes[99] == "name 99"


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/numpyvit-was-here",)


def test_a_pickle_that_calls_something_is_refused_and_named(tmp_path, cifar):
    write_python(tmp_path, cifar)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(DataError, match=r"system.*refused"):
        data.load("cifar10", tmp_path)
    assert not os.path.exists("/tmp/numpyvit-was-here")


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "numpy.load", "numpyvit.files.write_atomically"])
def test_no_name_is_ever_looked_up(name):
    module, _, function = name.rpartition(".")
    program = f"c{module}\n{function}\n(S'x'\ntR.".encode()
    with pytest.raises(pickles.PickleError, match="refused"):
        pickles.read(program, pickles.NUMPY_CONSTRUCTORS)


@pytest.mark.parametrize("seed", range(200))
def test_mutated_pickles_end_in_an_error_or_a_value(seed, cifar):
    rng = np.random.default_rng(seed)
    whole = bytearray(pickle.dumps({"data": cifar["test_batch"][:1], "labels": [1], "x": [1.5, None, (2, "a")]}, 2))
    for _ in range(int(rng.integers(1, 4))):
        whole[int(rng.integers(0, 200))] = int(rng.integers(0, 256))
    with contextlib.suppress(DataError):
        formats.parse_cifar_python(bytes(whole[: int(rng.integers(50, len(whole) + 1))]), "file")


def test_a_flipped_bit_in_an_archive_is_found(tmp_path, cifar):
    path = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("train", "test"):
            content = pickle.dumps({"data": cifar["test_batch"], "fine_labels": [0, 1, 2, 3]}, 2)
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    whole = path.read_bytes()
    assert len(data.load("cifar100", tmp_path)[0]) == 4
    for place in range(40, len(whole), len(whole) // 40):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(DataError):
            data.load("cifar100", tmp_path)


def test_truncated_binary_files_and_archives_are_named(tmp_path, cifar):
    with pytest.raises(DataError, match="multiple of 3073"):
        formats.parse_cifar_binary(b"\0" * 3000, "batch.bin", 1)
    path = tmp_path / "cifar-10-python.tar.gz"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("data_batch_1")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(os.urandom(100_000)))
    path.write_bytes(buffer.getvalue()[:50_000])
    with pytest.raises(DataError, match="cut short"):
        data.load("cifar10", tmp_path)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*file: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
