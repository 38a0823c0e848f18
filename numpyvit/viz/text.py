"""Letters on sheets and images."""

import pathlib
from typing import Any

_DRAWN = "…"  # beside ASCII, by Pillow's own font


def readable(text: str, size: int) -> tuple[str, Any]:
    """-> the text on one line, with "?" for what is not a character, as in names of broken encoding; the font for it.

    Pillow's own font has hardly more than ASCII; other letters are those of DejaVu Sans, which comes with matplotlib.
    """
    from PIL import ImageFont

    text = text.replace("\n", " ").encode("utf-8", "replace").decode()
    if text.replace(_DRAWN, "").isascii():
        return text, ImageFont.load_default(size)
    import matplotlib

    font = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return text, ImageFont.truetype(str(font), size)  # a str, because older Pillow takes no path
