"""Images inside the page."""

import base64
import io
from typing import Any

import numpy as np

from ..data.loader import ImageSet

_SIDE = 160  # pixels of the longer side; larger images are made smaller
SHARP = 64  # pixels; smaller images keep each of them
_QUALITY = 82


def thumbnail(pixels: np.ndarray) -> str:
    """An image (C, H, W) uint8, gray or RGB, as a data URI."""
    from PIL import Image

    values = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(values))
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE))
    return data_uri(image)


def data_uri(image: Any) -> str:
    """An image of Pillow: a small one as PNG, a larger one as JPEG."""
    buffer = io.BytesIO()
    if max(image.size) <= SHARP:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    kind = "png" if max(image.size) <= SHARP else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_name(dataset: ImageSet, row: int) -> str:
    """The file's name where the set has files, else the image's number."""
    paths = getattr(dataset, "paths", None)
    return f"image {row}" if paths is None else str(paths[row].name)
