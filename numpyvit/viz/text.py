"""Letters on sheets and images."""

import functools
import importlib.util
import pathlib
import unicodedata
from typing import Any

_DRAWN = "…"  # beside ASCII, by Pillow's own font


def readable(text: str, size: int) -> tuple[str, Any]:
    """-> the text as it can be drawn on one line, and Pillow's font for it.

    Pillow's own font has hardly more than ASCII. Other letters are drawn with DejaVu Sans, which comes with matplotlib;
    without it they lose their accents, and those of other alphabets become "?", as does what is not a character.
    """
    from PIL import ImageFont

    text = text.replace("\n", " ").encode("utf-8", "replace").decode()
    if not text.replace(_DRAWN, "").isascii():
        if (file := _dejavu()) is not None:
            return text, ImageFont.truetype(file, size)
        text = "".join(letter if letter in _DRAWN else _plain(letter) for letter in text)
    return text, ImageFont.load_default(size)


@functools.cache
def _dejavu():
    """The file of DejaVu Sans in matplotlib, None where it is not installed."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return None
    file = pathlib.Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return str(file) if file.exists() else None


def _plain(letter):
    decomposed = unicodedata.normalize("NFKD", letter)
    return "".join(part for part in decomposed if not unicodedata.combining(part)).encode("ascii", "replace").decode()
