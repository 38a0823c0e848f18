"""Image files: reading, resizing and cropping one, and finding those that cannot be read."""

import contextlib
import functools
import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from .paths import open_file, shown
from .progress import counted

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # no others: for EPS, Pillow would start Ghostscript
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # of a file that is whole
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "squash")
_MODES = {1: "L", 3: "RGB"}
_UPRIGHT = {  # EXIF's orientation: what sets the image upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_BAND = 1 << 20  # pixels that are converted at a time
_LONGEST = 8  # times as long as the frame's shape
_LONGEST_SIDE = (1 << 16) - 1  # as JPEG's; Pillow keeps a pointer for each row
ADVICE = "; remove or replace it"
_CHECKERS = 8  # threads; they mostly wait for a disk or a network


def read_image(
    path: str | os.PathLike,
    img_size: tuple[int, int],
    in_chans: int,
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
    upright: bool = True,
) -> np.ndarray:
    """An image file as (C, H, W) uint8: upright, in gray or RGB, its shorter side resized, the center cropped.

    path: or an open file, which messages name by its str().
    crop_pct: the share of the resized image's shorter side that the crop keeps. Sizes and rounding are those of
    torchvision's Resize and CenterCrop, by which timm prepares images. interpolation "squash" resizes both sides to
    img_size with bilinear weights, as Hugging Face does for ViT. An image that EXIF says was taken with the camera
    turned is set upright, which torchvision does not do, unless upright=False; 16-bit gray values are scaled to 8 bits.
    Errors: DataError for a file that is not an image, is damaged, holds floating-point pixels, or is absurdly large.
    """
    _mode(in_chans), _resampling(interpolation)  # wrong options are no fault of the file
    with _opened(path) as image:
        image.load()
        return fit_image(image, img_size, in_chans, crop_pct, interpolation, _orientation(image) if upright else 1)


def fit_image(
    image: Any,
    img_size: tuple[int, int],
    in_chans: int,
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
    orientation: int = 1,
) -> np.ndarray:
    """An image of Pillow as (C, H, W) uint8, resized and cropped as read_image does. orientation: EXIF's number.

    Errors: DataError where it cannot have that number of channels.
    """
    from PIL import Image

    mode, weights, (height, width) = _mode(in_chans), _resampling(interpolation), img_size
    across, down = (height, width) if orientation >= 5 else (width, height)  # before it is set upright
    if interpolation == "squash":
        image = _resized(image, mode, (across, down), weights)
    else:
        frame = math.floor(across / crop_pct), math.floor(down / crop_pct)
        image = _without_ends(image, *frame)
        image = _resized(image, mode, _covering_size(image.size, *frame), weights)
    if orientation in _UPRIGHT:
        image = image.transpose(Image.Transpose[_UPRIGHT[orientation]])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    return pixels.reshape(height, width, in_chans).transpose(2, 0, 1)


def find_broken(paths: Sequence[str | os.PathLike], decode: bool = False) -> dict[int, str]:
    """{index: what is wrong} of the image files that cannot be read; see look_at."""
    return {index: look for index, look in enumerate(look_at(paths, decode)) if isinstance(look, str)}


def look_at(paths: Sequence[str | os.PathLike], decode: bool = False) -> list[tuple[int, int] | str]:
    """[(height, width) of the stored pixels, or what is wrong with the file, …].

    Unless decode, PNG and JPEG files are trusted whose header can be read and that end as a whole file does.
    """
    with ThreadPoolExecutor(_CHECKERS) as pool:
        looks = pool.map(functools.partial(_look, decode=decode), paths)
        return list(counted(looks, len(paths), "checking images"))


class Examined(NamedTuple):
    """A decoded image file: format and mode as Pillow calls them, (height, width) upright, a digest of the pixels."""

    format: str
    mode: str
    size: tuple[int, int]
    digest: bytes


def examine(path: str | os.PathLike) -> Examined:
    """Files of equal upright pixels have equal digests, whatever their format. Errors: DataError, as read_image's."""
    from PIL import Image

    with _opened(path) as image:
        kind = image.format, image.mode
        image.load()  # before EXIF is asked for, which loads too, and where what fails is passed over
        orientation = _orientation(image)
        if orientation in _UPRIGHT:
            image = image.transpose(Image.Transpose[_UPRIGHT[orientation]])
        return Examined(*kind, (image.height, image.width), _digest(image))


def stored_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of the stored pixels, by the header alone. Errors: DataError."""
    with _opened(path) as image:
        return image.height, image.width


def is_turned(path: str | os.PathLike) -> bool:
    """Whether EXIF says that height and width change places when the image is set upright."""
    with _opened(path) as image:
        return _orientation(image) >= 5


def _look(path, decode):
    try:
        with _opened(path) as image:
            if decode or not _is_whole(image):
                fit_image(image, (8, 8), 3)
            return image.height, image.width
    except DataError as error:
        return str(error).removesuffix(ADVICE)


def _is_whole(image):
    last = _LAST_BYTES.get(image.format)
    if last is None:
        return False
    place = image.fp.tell()
    image.fp.seek(-len(last), 2)
    whole = image.fp.read() == last
    image.fp.seek(place)  # where Pillow goes on to read
    return whole


def _digest(image):
    """Of the pixels in RGB, of 16-bit gray ones as they are."""
    pixels = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    for band in _bands(image):
        converted = _converted(band, "RGB")
        pixels.update(np.asarray(band, np.int32) if image.mode.startswith("I") else np.asarray(converted))
    return pixels.digest()


# ---- decoding -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path):
    """Pillow's image of a file, also an open one. What it trips over in the block becomes a DataError that names it."""
    from PIL import Image, UnidentifiedImageError

    with contextlib.nullcontext(path) if hasattr(path, "read") else open_file(path) as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                _check_header(image)
                yield image
        except UnidentifiedImageError:
            raise DataError(f"{shown(path)}: is not an image of the kinds {', '.join(_FORMATS)}{ADVICE}") from None
        except MemoryError:
            raise DataError(
                f"{shown(path)}: is not an image that can be read (it needs too much memory){ADVICE}"
            ) from None
        except Exception as error:  # on damaged files Pillow raises nearly everything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{shown(path)}: is not an image that can be read ({reason}){ADVICE}") from None


def _check_header(image):
    if max(image.size) > _LONGEST_SIDE:
        raise ValueError(f"{image.width}×{image.height} pixels, expected sides of at most {_LONGEST_SIDE}")
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range, convert them to 8 or 16 bits")


def _orientation(image):
    """1 to 8, see _UPRIGHT; 1 where EXIF says nothing, or nothing that can be understood."""
    from PIL import ExifTags

    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data makes Pillow raise nearly everything; the pixels can still be read
        return 1
    return found if found in _UPRIGHT else 1


# ---- pixels ---------------------------------------------------------------------------------------------------------


def _mode(in_chans):
    if in_chans not in _MODES:
        raise DataError(f"images can be read with 1 or 3 channels, the model wants {in_chans}")
    return _MODES[in_chans]


def _resampling(name):
    from PIL import Image

    if name not in INTERPOLATIONS:
        *others, last = INTERPOLATIONS
        raise ConfigError(f"unknown interpolation {name!r}; there are {', '.join(others)} and {last}")
    return Image.Resampling["BILINEAR" if name == "squash" else name.upper()]


def _without_ends(image, width, height):
    """The middle of an image that is far longer than a frame of this shape; the crop would drop the rest anyway."""
    across = _middle(image.width, math.ceil(_LONGEST * image.height * width / height))
    down = _middle(image.height, math.ceil(_LONGEST * image.width * height / width))
    if across == (0, image.width) and down == (0, image.height):
        return image
    return image.crop((across[0], down[0], across[1], down[1]))


def _middle(size, kept):
    """Where the middle `kept` of `size` pixels begin and end; one more where that keeps the center in its place."""
    cut = max(0, (size - kept) // 2)
    return cut, size - cut


def _covering_size(size, width, height):
    """(width, height) of an image scaled to just cover a frame, the longer side rounded down."""
    if size[0] * height <= size[1] * width:  # the width decides
        return width, max(height, int(size[1] * width / size[0]))
    return max(width, int(size[0] * height / size[1])), height


def _resized(image, mode, size, weights):
    """`image.convert(mode).resize(size, weights)`, bit for bit, but in bands of rows: the converted image may be
    larger than the one that was read. Pillow too resizes rows first, then columns."""
    from PIL import Image

    narrow, top = Image.new(mode, (size[0], image.height)), 0
    for band in _bands(image):
        narrow.paste(_converted(band, mode).resize((size[0], band.height), weights), (0, top))
        top += band.height
    return narrow.resize(size, weights)


def _bands(image):
    """The image in parts of whole rows, from the top."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _converted(image, mode):
    """Pillow cuts 16-bit gray values off at 255 when it converts them; here they are scaled."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"gray values from {values.min()} to {values.max()}, expected 0 to 65535")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow would look for a color that stands for it, and warn
    return image if image.mode == mode else image.convert(mode)
