"""Files and folders of data sets that are damaged, made to do harm, or may not be read."""

import contextlib
import gzip
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import zlib

import numpy as np
import pytest

from numpyvit import data
from numpyvit.data import formats
from numpyvit.errors import DataError

NAMES = [content.name for _, content in data.SOURCES["mnist"].files]


def idx(kind, shape, content=b""):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def own_mnist(folder, images=None, labels=None):
    """A set of two images in MNIST's form."""
    images = idx(8, (2, 28, 28), bytes(2 * 784)) if images is None else images
    labels = idx(8, (2,), bytes(2)) if labels is None else labels
    for name, content in zip(NAMES, [images, labels] * 2):
        (folder / name).write_bytes(content)
    return folder


def in_a_process(code, *args, seconds=60):
    """What `code` prints, run beside this process, where it may wait or crash."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=seconds, check=True
    ).stdout


# ---- sizes ----------------------------------------------------------------------------------------------------------


def zeros(count):
    """A gzip file of so many zeros."""
    deflate, block = zlib.compressobj(1, wbits=31), bytes(1 << 20)
    return b"".join(deflate.compress(block) for _ in range(count >> 20)) + deflate.flush()


@pytest.mark.parametrize("name", [f"{NAMES[0]}.gz", "data_batch_1", "cifar-10-python.tar.gz"])
def test_a_small_gzip_file_is_not_unpacked_without_bound(tmp_path, name):
    own_mnist(tmp_path)
    (tmp_path / name).write_bytes(zeros(1 << 28))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"{name}: unpacks to more than"):
            data.load("mnist" if name.startswith("train") else "cifar10", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 3 * (64 << 20)
    finally:
        tracemalloc.stop()


def test_a_gzip_file_of_many_empty_members_is_read_at_once(tmp_path):
    images = gzip.compress(b"") * 200_000 + gzip.compress(idx(8, (2, 28, 28), bytes(2 * 784)))
    own_mnist(tmp_path)
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(images)
    code = "import sys; from numpyvit import data; print(len(data.load('mnist', sys.argv[1])[0]))"
    assert in_a_process(code, tmp_path) == "2\n"


def test_members_of_a_gzip_file_are_joined_and_padding_is_passed_over(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"one, ") + bytes(100) + gzip.compress(b"two") + bytes(20_000))
    assert formats.read_bytes(path) == b"one, two"
    for damaged in (path.read_bytes()[:-20_010], path.read_bytes() + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged or cut short"):
            formats.read_bytes(path)


def tar(*members):
    """A .tar of (name, type, size in the header, content)."""
    blocks = []
    for name, kind, size, content in members:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, size
        blocks += [info.tobuf(tarfile.GNU_FORMAT), content, bytes(-len(content) % 512)]
    return b"".join(blocks) + bytes(1024)


HOSTILE_TARS = {
    "sparse, 1 TiB": tar(("c/train", tarfile.GNUTYPE_SPARSE, 1 << 40, b"")),
    "1 TiB": tar(("c/train", tarfile.REGTYPE, 1 << 40, b"")),
    "negative": tar(("c/train", tarfile.REGTYPE, -512, b"")),
    "link": tar(("c/train", tarfile.SYMTYPE, 0, b""), ("c/test", tarfile.LNKTYPE, 5, b"")),
    "device": tar(("c/train", tarfile.CHRTYPE, 0, b"")),
    "long names in long names": tar(*[("c/train", tarfile.GNUTYPE_LONGNAME, 6, b"train\0")] * 3000),
    "a header of one megabyte of digits": tar(("c/train", tarfile.XHDTYPE, 1 << 20, b"1" * (1 << 20))),
    "no header": b"x" * 512,
    "cut header": tar(("c/train", tarfile.REGTYPE, 0, b""))[:200],
}


@pytest.mark.parametrize("kind", HOSTILE_TARS)
def test_hostile_archives_end_in_an_error_that_names_them(tmp_path, kind):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(gzip.compress(HOSTILE_TARS[kind]))
    code = """if True:
        import sys, tracemalloc
        from numpyvit import data, errors
        tracemalloc.start()
        try:
            data.load("cifar100", sys.argv[1], allow_download=False)
        except errors.DataError as error:
            print(tracemalloc.get_traced_memory()[1] >> 20, error)
        """
    megabytes, message = in_a_process(code, tmp_path).split(" ", 1)
    assert int(megabytes) < 64 and ("cifar-100-python.tar.gz" in message or "train is missing" in message)


def test_members_behind_links_folders_and_extensions_are_found(tmp_path):
    path = tmp_path / "set.tar"
    link, folder = ("c/link", tarfile.LNKTYPE, 700, b""), ("c", tarfile.DIRTYPE, 0, b"")
    extension = ("pax", tarfile.XHDTYPE, 12, b"11 mtime=1.5")
    path.write_bytes(tar(extension, folder, link, ("c/train", tarfile.REGTYPE, 3, b"abc")))
    assert formats.read_archive(path, ["train", "test"]) == {"train": b"abc"}


# ---- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 2**32 - 1, 2**32 - 1), (0,), (2**32 - 1,) * 8, (0, 28, 28)])
def test_headers_of_impossible_or_empty_arrays_are_refused(tmp_path, shape):
    own_mnist(tmp_path, images=idx(8, shape))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: .*fetch it again"):
        data.load("mnist", tmp_path)


def test_labels_that_are_not_integers_are_refused(tmp_path):
    own_mnist(tmp_path, labels=idx(13, (2,), struct.pack(">2f", 0.5, 1.0)))
    with pytest.raises(DataError, match="float32, expected integers"):
        data.load("mnist", tmp_path)


# ---- rights, pipes --------------------------------------------------------------------------------------------------


@pytest.fixture
def own_folder():
    """A folder of a plain user's; tmp_path may lie in one that root alone may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


@contextlib.contextmanager
def locked(path, mode=0):
    """The rights on a path taken away, and those of root with them where root runs the tests."""
    before = path.stat().st_mode
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield
    path.chmod(before)


@pytest.mark.parametrize("place", ["", "train", "train/dog", "train/dog/inner", "train/dog/inner/3.png"])
def test_what_may_not_be_read_in_a_folder_of_images_is_named(own_folder, place):
    from PIL import Image

    root = own_folder / "root"
    for name in ("cat", "dog"):
        (root / "train" / name / "inner").mkdir(parents=True)
        for i in range(5):
            Image.new("L", (4, 4)).save(root / "train" / name / "inner" / f"{i}.png")
    assert len(data.load(str(root))[0]) == 8
    with locked(root / place), pytest.raises(DataError, match=f"{root / place}.*Permission denied"):
        data.load(str(root))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_folders_of_sets_that_may_not_be_read_are_named(own_folder, name):
    folder = own_mnist(own_folder)
    for mode in (0, 0o200, 0o400):
        with locked(folder, mode), pytest.raises(DataError, match=f"{folder}.*Permission denied"):
            data.load(name, folder, allow_download=False)
    with locked(folder / NAMES[0]), pytest.raises(DataError, match=r"train-images-idx3-ubyte: .*Permission denied"):
        data.load("mnist", folder)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link", "loop"])
def test_what_is_not_a_file_is_named_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "root" / "cat" / "0.png"
    path.parent.mkdir(parents=True)
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to("nowhere"),
        "loop": lambda: path.symlink_to(path),
    }[kind]()
    code = """if True:
        import sys
        from numpyvit import data, errors
        for call in (lambda: data.read_image(sys.argv[1], (8, 8), 3), lambda: data.load_test(sys.argv[2])):
            try:
                call()
            except errors.DataError as error:
                print(error)
        """
    first, second = in_a_process(code, path, tmp_path / "root").splitlines()
    assert first.startswith(f"{path}: ") and str(path if kind != "folder" else path.parent.parent) in second


def test_a_pipe_in_the_place_of_a_set_is_not_waited_for(tmp_path):
    own_mnist(tmp_path)
    (tmp_path / NAMES[0]).unlink()
    os.mkfifo(tmp_path / NAMES[0])
    code = """if True:
        import sys
        from numpyvit import data, errors
        try:
            data.load("mnist", sys.argv[1], allow_download=False)
        except errors.DataError as error:
            print(error)
        """
    assert "missing data" in in_a_process(code, tmp_path)
    with pytest.raises(DataError, match="is a pipe or device, expected a file"):
        formats.read_bytes(tmp_path / NAMES[0])


def test_numbers_of_a_set_survive_the_check(tmp_path):
    own_mnist(tmp_path, images=idx(8, (2, 28, 28), bytes(range(256)) * 6 + bytes(32)))
    train, _ = data.load("mnist", tmp_path)
    assert np.array_equal(train.images.reshape(-1)[:512], np.tile(np.arange(256), 2))
