"""Damaged image files of 22 formats, all under the name of one that is read."""

import collections
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Pillow's, of formats that it will drop

EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # the camera was turned
WRITTEN = {  # format: the modes and options it is written with
    "AVIF": [("RGB", {})],
    "BLP": [("P", {})],
    "BMP": [("RGB", {}), ("P", {}), ("1", {})],
    "DDS": [("RGBA", {})],
    "DIB": [("RGB", {})],
    "EPS": [("RGB", {})],
    "GIF": [("P", {}), ("P", {"save_all": True, "append_images": [Image.new("P", (24, 20), 3)]})],
    "ICNS": [("RGBA", {})],
    "ICO": [("RGBA", {})],
    "IM": [("RGB", {})],
    "JPEG": [
        ("RGB", {}),
        ("L", {"progressive": True}),
        ("CMYK", {}),
        ("RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
    ],
    "JPEG2000": [("RGB", {})],
    "MPO": [("RGB", {"save_all": True, "append_images": [Image.new("RGB", (24, 20))]})],
    "MSP": [("1", {})],
    "PCX": [("RGB", {})],
    "PNG": [("RGB", {"exif": EXIF}), ("P", {}), ("LA", {}), ("I;16", {}), ("1", {}), ("RGBA", {})],
    "PPM": [("RGB", {}), ("L", {}), ("1", {}), ("F", {})],
    "SGI": [("RGB", {})],
    "SPIDER": [("F", {})],
    "TGA": [("RGB", {"compression": "tga_rle"})],
    "TIFF": [
        ("RGB", {}),
        ("F", {}),
        ("P", {"compression": "tiff_lzw"}),
        ("RGB", {"compression": "jpeg"}),
        ("CMYK", {"compression": "tiff_adobe_deflate"}),
        ("I;16", {}),
        ("1", {"compression": "group4"}),
    ],
    "WEBP": [("RGB", {}), ("RGBA", {"lossless": True})],
}

READER = """
import faulthandler, sys, warnings
import numpy as np
from PIL import Image
from numpyvit import data, errors

def kibibytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

warnings.simplefilter("ignore")
folder, count, crop = sys.argv[1], int(sys.argv[2]), dict(img_size=(64, 64), in_chans=3)
watched = sys.platform == "linux"
for number in range(count):
    path = f"{folder}/{number}.png"
    if watched:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins here
        before = kibibytes("VmRSS")
    faulthandler.dump_traceback_later(10, exit=True)
    try:
        assert data.read_image(path, **crop).shape == (3, 64, 64)
        outcome = "read"
    except errors.NumpyvitError as error:
        outcome = "refused" if str(error).startswith(f"{path}: ") and chr(10) not in str(error) else repr(error)
    except Exception as error:
        outcome = repr(error)[:200]
    faulthandler.cancel_dump_traceback_later()
    more = (kibibytes("VmHWM") - before) // 1024 if watched else 0
    try:
        with Image.open(path, formats=("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")) as image:
            own = 4 * image.width * image.height >> 20
    except Exception:
        own = 0
    print(more - own, outcome, flush=True)
"""


def originals():
    """[(format, content)] of every kind that this Pillow can write."""
    Image.init()
    y, x = np.mgrid[:20, :24]
    pixels = np.stack([(x * x + y) % 251, (x + y * y) % 241, (x * y) % 239], axis=2).astype(np.uint8)
    found = []
    for name, kinds in WRITTEN.items():
        for mode, options in kinds:
            image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image
            buffer = io.BytesIO()
            try:
                image.save(buffer, name, **options)
            except (OSError, KeyError, ValueError):  # this Pillow does not write it
                continue
            found.append((name, buffer.getvalue()))
    return found


def mutate(content, rng):
    """One to three changes, mostly among the first bytes: noise, huge or empty numbers, something cut or repeated."""
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        reach = len(content) if rng.random() < 0.4 else min(len(content), 64)
        place, length = int(rng.integers(0, reach + 1)), int(rng.integers(1, 32))
        kind = rng.choice(["noise", "number", "cut", "repeat", "end"], p=[0.5, 0.2, 0.1, 0.1, 0.1])
        if kind == "noise":
            content[place : place + 1] = rng.bytes(1)
        elif kind == "number":
            content[place : place + 4] = rng.choice([2**32 - 1, 2**31 - 1, 60_000, 0]).astype(">u4").tobytes()
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length]
        else:
            del content[int(rng.integers(0, len(content) + 1)) :]
    return bytes(content)


def read_all(contents, folder):
    """Each file read in a process, which a crash or a wait ends. -> ({outcome: count}, most MiB beyond its size)."""
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    command = [sys.executable, "-c", READER, str(folder), str(len(contents))]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split(" ", 1) for line in process.stdout.splitlines()]
    assert process.returncode == 0, f"the reader ended at file {len(lines)}: {process.stderr[-2000:]}"
    return collections.Counter(outcome for _, outcome in lines), max(int(more) for more, _ in lines)


def fuzz(count, seed, folder):
    rng, kinds = np.random.default_rng(seed), originals()
    return read_all([mutate(kinds[i % len(kinds)][1], rng) for i in range(count)], folder)


def test_the_formats_are_written_and_those_of_the_package_read(tmp_path):
    kinds = originals()
    assert len(WRITTEN) == 22 and len({name for name, _ in kinds}) >= 18
    outcomes, _ = read_all([content for _, content in kinds], tmp_path)
    assert set(outcomes) == {"read", "refused"} and outcomes["read"] > 20


def test_mutated_images_are_read_or_refused(tmp_path):
    outcomes, worst = fuzz(400, 1, tmp_path)
    assert set(outcomes) == {"read", "refused"} and worst <= 64


def test_large_images_take_their_own_size_in_memory(tmp_path):
    contents = []
    for mode, size in (("L", (1, 60_000)), ("RGB", (60_000, 1)), ("P", (5000, 5000)), ("RGBA", (5000, 5000))):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "PNG", compress_level=1)
        contents.append(buffer.getvalue())
    Image.new("RGB", (5000, 5000)).save(buffer := io.BytesIO(), "JPEG", exif=EXIF)
    outcomes, worst = read_all([*contents, buffer.getvalue()], tmp_path)
    assert outcomes == {"read": 5} and worst <= 64


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15))
def test_many_mutated_images_are_read_or_refused(tmp_path, seed):
    outcomes, worst = fuzz(400, 100 + seed, tmp_path)
    print(outcomes, f"at most {worst} MiB beyond the image's own size")
    assert set(outcomes) == {"read", "refused"} and worst <= 64
