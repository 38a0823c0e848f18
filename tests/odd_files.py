"""Files as they lie in folders of images that grew over years: {name: (what it is, its content or who makes it)}."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8))
DEEP = np.linspace(0, 65535, 480).astype(np.uint16).reshape(20, 24)


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def converted(mode, form, **options):
    return saved(RGB.convert(mode), form, **options)


def frames(form, **options):
    others = [Image.fromarray(RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(2)]
    return saved(RGB, form, save_all=True, append_images=others, **options)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(RGB, "JPEG", exif=exif)


def transparent():
    image = RGB.convert("RGBA")
    image.putalpha(0)
    return saved(image, "PNG")


def bomb():
    """A PNG of 60,000 × 60,000 pixels, by its header."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def with_long_text():
    """A comment that unpacks to 2 MiB, more than any has."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * (2 << 20), zip=True)
    return saved(RGB, "PNG", pnginfo=text)


def damaged_within(form):
    content = bytearray(saved(RGB, form))
    middle = len(content) // 2
    content[middle : middle + 12] = bytes(12)
    return bytes(content)


GOOD = {
    "gray.png": converted("L", "PNG"),
    "one bit.png": converted("1", "PNG"),
    "palette with transparency.png": saved(RGB.convert("P"), "PNG", transparency=bytes(range(256))),
    "alpha.png": converted("RGBA", "PNG"),
    "nothing to see.png": transparent(),
    "gray and alpha.png": converted("LA", "PNG"),
    "16 bit.png": saved(Image.fromarray(DEEP), "PNG"),
    "16 bit, other order.tif": saved(Image.frombytes("I;16B", (24, 20), DEEP.astype(">u2").tobytes()), "TIFF"),
    "cmyk.jpg": converted("CMYK", "JPEG"),
    "progressive.jpeg": saved(RGB, "JPEG", progressive=True),
    "animated.gif": frames("GIF"),
    "animated.webp": frames("WEBP"),
    "animated.png": frames("PNG"),
    "pages.tiff": frames("TIFF"),
    "two views.jpg": frames("MPO"),
    "windows.bmp": saved(RGB, "BMP"),
    "1x1.png": saved(Image.new("RGB", (1, 1)), "PNG"),
    "1x5000.png": saved(Image.new("RGB", (1, 5000)), "PNG"),
    "5000x1.png": saved(Image.new("RGB", (5000, 1)), "PNG"),
    **{f"turned {i}.jpg": turned(i) for i in range(1, 9)},
    "damaged exif.webp": saved(RGB, "WEBP", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "SHOUTING.PNG": saved(RGB, "PNG"),
    "in fact a png.jpg": saved(RGB, "PNG"),
    "a name with spaces .png": saved(RGB, "PNG"),
    "new\nline.png": saved(RGB, "PNG"),
    "ünï – 图像 🙂.png": saved(RGB, "PNG"),
    "-leading dash.png": saved(RGB, "PNG"),
    "%s {0} \\n.png": saved(RGB, "PNG"),
    "deep/er/and deeper/nested.png": saved(RGB, "PNG"),
    "bytes after its end.jpg": saved(RGB, "JPEG") + b"more" * 100,
    "bytes after its end.png": saved(RGB, "PNG") + b"more" * 100,
}  # fmt: skip
BAD = {
    "cut.jpg": saved(RGB, "JPEG")[:-200],
    "cut\nin two.png": saved(RGB, "PNG")[:300],
    "damaged within.png": damaged_within("PNG"),
    "empty.png": b"",
    "text.png": b"see attachment",
    "floats.tif": saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    "beyond 16 bit.tif": saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"),
    "bomb.png": bomb(),
    "long comment.png": with_long_text(),
    "icon.png": saved(RGB, "ICO"),
    "page.jpg": b"%PDF-1.4",
}  # fmt: skip
PASSED_OVER = {
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[.ShellClassInfo]",
    "favicon.ico": saved(RGB, "ICO"),
    ".DS_Store": b"\0\0\0\1Bud1",
    "._0.png": b"what macOS leaves behind",
    ".hidden/0.png": b"",
    "0.png.part": b"",
    "labels.txt": b"cat",
}
LINKED = ("link to nothing.png", "link to itself.png", "pipe.png", "folder.png.d/more.png")


def make_folder(folder):
    """folder/<class>/… -> (names of images that can be read, names of those that cannot)."""
    bad = dict(BAD)
    for kind, files in (("good", GOOD), ("odd", BAD), ("odd", PASSED_OVER)):
        for name, content in files.items():
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for i in range(5):
        (folder / "odd" / f"plain {i}.png").write_bytes(saved(RGB, "PNG"))
    odd = folder / "odd"
    (odd / "link to nothing.png").symlink_to("nowhere")
    (odd / "link to itself.png").symlink_to("link to itself.png")
    (odd / "link to an image.png").symlink_to("plain 0.png")
    (odd / "around").symlink_to("..")  # a loop
    (folder / "around").symlink_to(".")  # a loop that would be a class
    (folder / "itself").symlink_to("itself")
    (folder / "empty class").mkdir()
    os.mkfifo(odd / "pipe.png")
    bad |= dict.fromkeys(["link to nothing.png", "link to itself.png", "pipe.png"])
    good = [*GOOD, *(f"plain {i}.png" for i in range(5)), "link to an image.png"]
    if os.geteuid() != 0:  # root may read everything
        (odd / "locked.png").write_bytes(saved(RGB, "PNG"))
        (odd / "locked.png").chmod(0)
        bad["locked.png"] = None
    return good, list(bad)
