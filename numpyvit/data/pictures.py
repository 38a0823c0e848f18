"""Picture files: reading, resizing, and folders with one folder a class."""

import math
import pathlib

import numpy as np

from ..errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_MODES = {1: "L", 3: "RGB"}
_CACHE_BYTES = 1 << 29


def read_picture(path, img_size, in_chans, crop_pct=1.0, interpolation="bicubic"):
    """A picture file as (C, H, W) uint8: converted to grey or RGB, its shorter side resized, the centre cropped.

    crop_pct: the share of the resized picture's shorter side that the crop keeps. Sizes and rounding are those of
    torchvision's Resize and CenterCrop, by which timm prepares pictures. interpolation "squash" resizes both sides to
    img_size with bilinear weights, as Hugging Face does for ViT.
    Errors: DataError for a file that is no picture, is damaged, or is absurdly large.
    """
    from PIL import Image

    if in_chans not in _MODES:
        raise DataError(f"pictures can be read with 1 or 3 channels, the model wants {in_chans}")
    height, width = img_size
    try:
        with Image.open(path) as picture:
            picture = _eight_bit(picture).convert(_MODES[in_chans])
            if interpolation == "squash":
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            else:
                size = _covering_size(picture.size, math.floor(width / crop_pct), math.floor(height / crop_pct))
                picture = picture.resize(size, Image.Resampling[interpolation.upper()])
            left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
            pixels = np.asarray(picture.crop((left, top, left + width, top + height)))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: is no picture that can be read ({error}); remove or replace it") from None
    return pixels.reshape(height, width, in_chans).transpose(2, 0, 1)


def _eight_bit(picture):
    """Pillow cuts 16-bit grey values off at 255 when it converts them; here they are scaled."""
    if not picture.mode.startswith("I"):
        return picture
    from PIL import Image

    values = np.asarray(picture)
    return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))


def _covering_size(size, width, height):
    """(width, height) of a picture scaled to just cover a frame, the longer side rounded down."""
    if size[0] * height <= size[1] * width:  # the width decides
        return width, max(height, int(size[1] * width / size[0]))
    return max(width, int(size[0] * height / size[1])), height


def find_classes(root):
    """-> (class names, paths, labels) of `root/<class>/*`, sorted by class and path."""
    root = pathlib.Path(root)
    folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    found = {folder.name: sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS) for folder in folders}
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        raise DataError(
            f"{root}: holds no pictures; expected {root}/<class>/*.png (or {', '.join(ENDINGS[1:4])}, …), "
            "one folder for each class"
        )
    labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found.values()])
    return tuple(found), [path for paths in found.values() for path in paths], labels


class FolderDataset:
    """Pictures read from files when asked for, and kept while they fit into 512 MiB. Pixels are normed by ½ and ½."""

    def __init__(self, paths, labels, classes, img_size, in_chans):
        self.paths, self.labels, self.classes = paths, np.asarray(labels, np.int64), classes
        self.image_shape = (in_chans, *img_size)
        self.mean = self.std = (0.5,) * in_chans
        self.reading, self._cache = {}, {}  # reading: crop_pct and interpolation, see read_picture

    def __len__(self):
        return len(self.paths)

    def prepared(self, cfg):
        """The same set, its pictures read and normed as a model's pretrained_cfg says."""
        result = self.take(range(len(self)))
        result.mean, result.std = tuple(cfg["mean"]), tuple(cfg["std"])
        result.reading = {"crop_pct": cfg["crop_pct"], "interpolation": cfg["interpolation"]}
        return result

    def take(self, indices):
        """The same set with these pictures only."""
        paths = [self.paths[i] for i in indices]
        result = FolderDataset(paths, self.labels[indices], self.classes, self.image_shape[1:], self.image_shape[0])
        result.mean, result.std, result.reading = self.mean, self.std, self.reading
        return result

    def pictures(self, indices):
        """(B, C, H, W) uint8."""
        return np.stack([self._picture(int(i)) for i in indices])

    def _picture(self, i):
        if i in self._cache:
            return self._cache[i]
        picture = read_picture(self.paths[i], self.image_shape[1:], self.image_shape[0], **self.reading)
        if (len(self._cache) + 1) * picture.nbytes <= _CACHE_BYTES:
            self._cache[i] = picture
        return picture
