"""Image sets by name: digits (in the package), shapes (drawn), mnist, fashion-mnist, cifar10, cifar100; own files."""

import difflib
import importlib.resources
import os
import pathlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import ConfigError, DataError
from .cache import CACHE_MB
from .csv_files import is_csv
from .dataset import Dataset, LabeledImages
from .detection import DetectionDataset
from .detection_folder import is_detection_folder, load_detection_folder, load_test_detection_folder
from .folder import FolderDataset, load_folder, load_test_folder
from .paths import is_folder
from .preprocessing import Preprocessing
from .shapes import load_shapes
from .sources import SOURCES

_DETR_SIDE = 800  # pixels of the shorter side


def load(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int = 3,
    allow_download: bool = True,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> tuple[LabeledImages, LabeledImages] | tuple[DetectionDataset, DetectionDataset]:
    """-> (training set, test set) by the name of a set, or the path of a folder `train/<class>/*.png` or of a CSV with
    the columns path, label and maybe split.

    "shapes" and folders in the form of Pascal VOC or COCO are sets of images with boxes, see load_detection.
    data_dir: where the files lie or go; default NUMPYVIT_DATA, else a cache folder of the user's.
    img_size, in_chans, skip_bad, cache_mb: for files of one's own, see load_folder_parts; images are resized to
    img_size and converted.
    Errors: DataError that says what is missing or damaged, and which files to put where.
    """
    if has_boxes(name):
        parts = load_detection(name, img_size=img_size, in_chans=in_chans, skip_bad=skip_bad, cache_mb=cache_mb)
        return parts["train"], parts["test"]
    if has_classes(name):
        return load_folder(name, img_size or (224, 224), in_chans, skip_bad=skip_bad, cache_mb=cache_mb)
    return _load_named(name, data_dir, allow_download)


def load_test(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int = 3,
    allow_download: bool = True,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
    classes: Sequence[str] | None = None,
) -> LabeledImages | DetectionDataset:
    """-> the set to evaluate on: the test part of a set by name, or a folder or a CSV as it is.

    Of a folder, all of val/ (or test/) is taken, else all of its own class folders, however few images they hold and
    whatever the classes are called; see load_test_folder and load_test_detection. classes: of a folder with boxes, see
    load_detection; None: its own. Other options and errors: as load's.
    """
    options = {"skip_bad": skip_bad, "cache_mb": cache_mb}
    if has_boxes(name):
        return load_test_detection(name, img_size=img_size, in_chans=in_chans, classes=classes, **options)
    if has_classes(name):
        return load_test_folder(name, img_size or (224, 224), in_chans, **options)
    return _load_named(name, data_dir, allow_download)[1]


def has_boxes(name: str | os.PathLike) -> bool:
    """Whether `load` takes a name for a set of images with boxes: "shapes", a folder in Pascal VOC's or COCO's form."""
    return name == "shapes" or (_is_own(name) and is_detection_folder(name))


def has_classes(name: str | os.PathLike) -> bool:
    """Whether `load` takes a name for files of one's own, in a folder for each class or named by a CSV."""
    return _is_own(name) and not has_boxes(name)


def load_detection(
    name: str | os.PathLike,
    *,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int = 3,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> dict[str, DetectionDataset | None]:
    """{"train": set, "val": set or None, "test": set} of "shapes" or of a folder, see load_detection_folder.

    img_size: of shapes, (height, width) of an image, default 64×64; of a folder by default 800 pixels, as DETR has it.
    """
    if name == "shapes":
        return _shapes(img_size, in_chans, cache_mb)
    options = {"classes": classes, "skip_bad": skip_bad, "cache_mb": cache_mb}
    return load_detection_folder(name, img_size or _DETR_SIDE, in_chans, **options)


def load_test_detection(
    name: str | os.PathLike,
    *,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int = 3,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_mb: int = CACHE_MB,
) -> DetectionDataset:
    """The set to evaluate on, of those that load_detection knows; see load_test_detection_folder."""
    if name == "shapes":
        return _shapes(img_size, in_chans, cache_mb)["test"]
    options = {"classes": classes, "skip_bad": skip_bad, "cache_mb": cache_mb}
    return load_test_detection_folder(name, img_size or _DETR_SIDE, in_chans, **options)


def _shapes(img_size, in_chans, cache_mb):
    if in_chans != 3:
        raise ConfigError(f"shapes are drawn in color; make the model with in_chans=3 instead of {in_chans}")
    img_size = img_size or 64
    return load_shapes((img_size, img_size) if isinstance(img_size, int) else img_size, cache_mb=cache_mb)


def _is_own(name):
    """Whether `load` takes a name for a path: it is that of a folder or a CSV, and no set is called so."""
    return name not in ("digits", "shapes", *SOURCES) and (is_folder(name) or is_csv(name))


def _load_named(name, data_dir, allow_download):
    if name == "digits" or name in SOURCES:
        parts = load_digits() if name == "digits" else SOURCES[name].load(_folders(name, data_dir), allow_download)
        return tuple(replace(part, name=name) for part in parts)
    names = ["digits", "shapes", *SOURCES]
    near = difflib.get_close_matches(str(name), names, n=1)
    raise DataError(
        f"unknown data {str(name)!r}: neither a folder, a .csv nor one of {', '.join(names)}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def prepared_for(
    dataset: LabeledImages | DetectionDataset, preprocessing: Preprocessing
) -> LabeledImages | DetectionDataset:
    """The same set, its images prepared in another way: files read and normalized so, arrays normalized."""
    if isinstance(dataset, FolderDataset):
        return dataset.prepared(preprocessing)
    if isinstance(dataset, DetectionDataset):
        return dataset.normalized_by(preprocessing.mean, preprocessing.std)
    return replace(dataset, mean=preprocessing.mean, std=preprocessing.std)


def _folders(name, data_dir):
    """Where to look, in order; the last is where a download goes."""
    root = data_dir or os.environ.get("NUMPYVIT_DATA")
    if root is None:
        return [pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "numpyvit" / name]
    root = pathlib.Path(root).expanduser()
    if data_dir and not is_folder(root):
        raise DataError(f"{root}: there is no such folder; --data-dir names the folder that holds the files of {name}")
    inner = [SOURCES[name].torchvision, name]
    return [root / part for part in inner if is_folder(root / part)] + [root]


def load_digits() -> tuple[Dataset, Dataset]:
    """Optical recognition of handwritten digits: 1,797 images of 8×8, 80% for training, by a fixed shuffle.

    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, license CC BY 4.0;
    the copy that scikit-learn ships.
    """
    with importlib.resources.files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    images = (images.astype(np.uint16) * 255 // 16).astype(np.uint8)  # 0..16 -> 0..255
    order = np.random.default_rng(0).permutation(len(labels))
    test = len(labels) // 5 + 1
    whole = Dataset(images, labels, tuple("0123456789"), (0.3041,), (0.3758,))
    return whole.take(order[test:]), whole.take(order[:test])
