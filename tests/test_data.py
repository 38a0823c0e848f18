import contextlib
import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from numpyvit import data, pickles
from numpyvit.data import formats
from numpyvit.data.download import download
from numpyvit.errors import DataError, RunError
from numpyvit.files import write_atomically


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


LABELS = np.array([3, 1, 4, 1, 5, 9], np.uint8)
NAMES = [name for name, *_ in data.SOURCES["mnist"].files]


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


def test_a_flipped_bit_in_an_official_file_is_found(tmp_path, monkeypatch):
    source = data.SOURCES["mnist"]
    name, _, _, size = source.files[1]
    (tmp_path / name).write_bytes(bytes(size))
    with pytest.raises(DataError, match="checksum"):
        source._array([tmp_path], False, *source.files[1])


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

    monkeypatch.setattr("urllib.request.urlopen", offline)
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


# ---- folders of pictures --------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_becomes_classes(pictures):
    train, test = data.load(str(pictures), img_size=(8, 6), in_chans=3)
    assert train.classes == ("bright", "dark") and (len(train), len(test)) == (16, 4)
    batch = train.pictures(np.arange(len(train)))
    assert batch.shape == (16, 3, 8, 6) and batch.dtype == np.uint8
    assert batch[train.labels == 0].mean() > 150 > 100 > batch[train.labels == 1].mean()
    assert data.load(str(pictures), img_size=(8, 8), in_chans=1)[0].pictures([0]).shape == (1, 1, 8, 8)


def test_sixteen_bit_pictures_are_scaled(tmp_path):
    from PIL import Image

    Image.fromarray(np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)).save(tmp_path / "deep.png")
    pixels = data.read_picture(tmp_path / "deep.png", (4, 4), 1)
    assert pixels.reshape(-1).tolist() == np.rint(np.linspace(0, 255, 16)).astype(int).tolist()


def test_a_val_folder_is_used_and_must_hold_the_same_classes(pictures):
    (pictures / "val" / "dark").mkdir(parents=True)
    os.rename(pictures / "train" / "dark" / "0.png", pictures / "val" / "dark" / "0.png")
    with pytest.raises(DataError, match="different classes: bright"):
        data.load(str(pictures))
    (pictures / "val" / "bright").mkdir()
    os.rename(pictures / "train" / "bright" / "0.png", pictures / "val" / "bright" / "0.png")
    train, test = data.load(str(pictures))
    assert (len(train), len(test)) == (18, 2)


def test_folders_without_pictures_and_files_that_are_none(pictures, tmp_path):
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no pictures; expected .*<class>/\*\.png"):
        data.load(str(tmp_path / "empty"))
    bad = pictures / "train" / "dark" / "3.png"
    for content in (b"no picture", b"", bad.read_bytes()[:60]):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"3\.png: is no picture"):
            data.read_picture(bad, (8, 8), 3)
    with pytest.raises(DataError, match="no such file"):
        data.read_picture(tmp_path / "nothing.png", (8, 8), 3)


# ---- batches --------------------------------------------------------------------------------------------------------


def test_the_loader_shows_every_picture_once_and_follows_the_seed():
    train, _ = data.load("digits")
    loader = data.Loader(train, 100, shuffle=True, seed=1)
    first = [labels for _, labels in loader.epoch(0)]
    assert [len(labels) for labels in first] == [100] * 14 + [37] and len(loader) == 15
    assert np.array_equal(np.sort(np.concatenate(first)), np.sort(train.labels))
    assert all(np.array_equal(a, b) for a, (_, b) in zip(first, loader.epoch(0)))
    assert not np.array_equal(first[0], next(loader.epoch(1))[1])
    assert not np.array_equal(first[0], next(data.Loader(train, 100, shuffle=True, seed=2).epoch(0))[1])


def test_an_epoch_can_begin_in_its_middle():
    train, _ = data.load("digits")
    loader = data.Loader(train, 100, shuffle=True, augment=[data.random_affine(10, 1)], seed=1)
    whole, rest = list(loader.epoch(2)), list(loader.epoch(2, first=9))
    assert len(rest) == 6
    assert all(np.array_equal(a, b) for one, other in zip(whole[9:], rest) for a, b in zip(one, other))


def test_images_are_normalised(images):
    x = data.normalize(images[:, None], (0.25,), (0.5,))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, (images[:, None] / 255 - 0.25) / 0.5, atol=1e-6)


def test_an_error_on_the_preparing_thread_reaches_the_caller(pictures):
    train, _ = data.load(str(pictures), img_size=(8, 8))
    train.paths[0].write_bytes(b"broken")
    with pytest.raises(DataError, match="no picture"):
        list(data.Loader(train, 4).epoch())


# ---- augmentation ---------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(rng):
    return rng.integers(0, 256, (5, 3, 9, 7), dtype=np.uint8)


def test_an_affine_that_does_nothing_is_the_identity(batch, rng):
    assert np.array_equal(data.random_affine()(batch, rng), batch)


def test_bilinear_sampling_turns_shifts_and_mixes(batch):
    from numpyvit.data.augment import sample_bilinear

    y, x = (np.broadcast_to(a, (5, 9, 7)).astype(float) for a in np.mgrid[:9, :7])
    shifted = sample_bilinear(batch, y + 2, x - 1)
    assert np.array_equal(shifted[:, :, :-2, 1:], batch[:, :, 2:, :-1])
    assert (shifted[:, :, -2:] == 0).all() and (shifted[:, :, :, 0] == 0).all()
    half = sample_bilinear(batch.astype(np.float64), y, x + 0.5)
    np.testing.assert_allclose(half[..., :-1], (batch[..., :-1].astype(float) + batch[..., 1:]) / 2)


def test_a_quarter_turn_is_rot90(rng, monkeypatch):
    square = rng.integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)

    class Fixed:
        def uniform(self, low, high, size):
            return np.full(size, {-90: 90.0, 0: 0.0, 1: 1.0}[int(low)])

    turned = data.random_affine(degrees=90)(square, Fixed())
    assert any(np.array_equal(turned, np.rot90(square, k, (2, 3))) for k in (1, 3))


def test_random_crop_moves_each_picture_by_itself(batch, rng):
    cropped = data.random_crop(2)(np.repeat(batch[:1], 64, axis=0), rng)
    assert cropped.shape == (64, 3, 9, 7)
    padded = np.pad(batch[0], ((0, 0), (2, 2), (2, 2)))
    windows = {padded[:, i : i + 9, j : j + 7].tobytes() for i in range(5) for j in range(5)}
    seen = {picture.tobytes() for picture in cropped}
    assert seen <= windows and len(seen) > 15


def test_random_flip_flips_some_and_leaves_the_original(batch, rng):
    many = np.repeat(batch[:1], 50, axis=0)
    before = many.copy()
    flipped = data.random_flip()(many, rng)
    count = sum(np.array_equal(picture, batch[0, :, :, ::-1]) for picture in flipped)
    assert 10 < count < 40 and np.array_equal(many, before)


# ---- downloads and files --------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.gz").write_bytes(b"content")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    httpd.server_close()


MD5 = "9a0364b9e99bb480dd25e1f0284c8555"  # of b"content"


def test_a_download_goes_on_to_the_next_mirror(server, tmp_path, capsys):
    path = download("file.gz", (server + "missing/", server), MD5, tmp_path / "new")
    assert path.read_bytes() == b"content"


def test_a_download_with_another_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match="checksum differs"):
        download("file.gz", (server,), "0" * 32, tmp_path / "new")
    assert not (tmp_path / "new" / "file.gz").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*file: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
