"""Reading image files and folders of them."""

import os
import stat

import numpy as np
import pytest
from PIL import Image, ImageOps

from numpyvit import data
from numpyvit.errors import ConfigError, DataError


def photo(width, height, mode="RGB"):
    """An image with detail at every scale."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([(x * x + 3 * y) % 251, (x + y * y) % 241, (x * y) % 239], axis=2)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def plainly(image, height, width, crop_pct=1.0):
    """torchvision's Resize of the shorter side and CenterCrop, for square frames and images of any shape."""
    side = int(height / crop_pct)
    short = min(image.size)
    size = tuple(side if length == short else int(side * length / short) for length in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height))).transpose(2, 0, 1)


# ---- pixels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "PA", "CMYK"])
@pytest.mark.parametrize("size", [(61, 40), (40, 61), (1500, 1100), (9, 13)])
def test_pixels_are_those_of_resize_and_crop(tmp_path, mode, size):
    path = tmp_path / "image.tiff"
    (photo(*size, "P").convert("PA") if mode == "PA" else photo(*size, mode)).save(path)
    for crop_pct in (1.0, 0.875):
        with Image.open(path) as saved:
            expected = plainly(saved.convert("RGB"), 28, 28, crop_pct)
        assert np.array_equal(data.read_image(path, (28, 28), 3, crop_pct), expected)


def test_sixteen_bit_images_are_scaled(tmp_path):
    values = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    expected = np.rint(np.linspace(0, 255, 16)).astype(int).tolist()
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(values).save(tmp_path / name)
    (tmp_path / "deep.pgm").write_bytes(b"P5 4 4 65535\n" + values.astype(">u2").tobytes())
    for name in ("deep.png", "deep.tiff", "deep.pgm"):
        assert data.read_image(tmp_path / name, (4, 4), 1).reshape(-1).tolist() == expected
    big_endian = Image.frombytes("I;16B", (4, 4), values.astype(">u2").tobytes())
    big_endian.save(tmp_path / "big.tiff")
    assert data.read_image(tmp_path / "big.tiff", (4, 4), 1).reshape(-1).tolist() == expected


@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), "floating-point pixels"),
        (np.full((4, 4), 70_000, np.int32), "gray values from 70000 to 70000, expected 0 to 65535"),
        (np.full((4, 4), -1, np.int32), "gray values from -1"),
    ],
)
def test_pixels_of_unknown_range_are_refused_instead_of_read_as_black(tmp_path, pixels, message):
    path = tmp_path / "image.tiff"
    Image.fromarray(pixels).save(path)
    with pytest.raises(DataError, match=f"image.tiff: is not an image that can be read .{message}"):
        data.read_image(path, (4, 4), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "webp"])
def test_images_are_turned_upright_as_exif_says(tmp_path, orientation, ending):
    image, path = photo(90, 64), tmp_path / f"image.{ending}"
    image = image.resize((180, 128))  # smooth
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    with Image.open(path) as saved:
        ImageOps.exif_transpose(saved).save(tmp_path / "upright.png")
    for size, options in (((40, 30), {"crop_pct": 0.9}), ((30, 40), {"interpolation": "squash"})):
        found = data.read_image(path, size, 3, **options)
        upright = data.read_image(tmp_path / "upright.png", size, 3, **options)
        assert np.abs(found.astype(int) - upright).max() <= 2  # rows are resized before columns


def test_damaged_exif_data_does_not_spoil_an_image(tmp_path):
    photo(20, 20).save(tmp_path / "image.webp", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", lossless=True)
    photo(20, 20).save(tmp_path / "plain.webp", lossless=True)
    found, plain = (data.read_image(tmp_path / f"{name}.webp", (16, 16), 3) for name in ("image", "plain"))
    assert np.array_equal(found, plain)


def test_transparent_palettes_are_read_without_a_warning(tmp_path):
    image = photo(16, 16).convert("P")
    image.save(tmp_path / "image.png", transparency=bytes(range(256)))
    assert np.array_equal(data.read_image(tmp_path / "image.png", (16, 16), 3).transpose(1, 2, 0), image.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 600), (2, 601), (700, 3), (1, 60_000), (60_000, 1)])
def test_long_thin_images_are_cut_before_they_are_resized(tmp_path, size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    image.save(tmp_path / "thin.png")
    found = data.read_image(tmp_path / "thin.png", (32, 32), 3).astype(int)
    middle = tuple((length - min(length, 101 + length % 2)) // 2 for length in size)  # as long as the test can bear
    kept = image.crop((*middle, size[0] - middle[0], size[1] - middle[1]))
    assert np.abs(found - plainly(kept, 32, 32)).max() <= 1


@pytest.mark.parametrize("interpolation", ["cubic", "", None])
def test_an_unknown_interpolation_is_a_setting_not_a_broken_file(tmp_path, interpolation):
    photo(8, 8).save(tmp_path / "image.png")
    with pytest.raises(ConfigError, match=r"bicubic.* and squash"):
        data.read_image(tmp_path / "image.png", (8, 8), 3, interpolation=interpolation)


# ---- files that are no images ---------------------------------------------------------------------------------------


def test_an_image_never_starts_another_program(tmp_path, monkeypatch):
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "image.png").write_bytes(program)
    with pytest.raises(DataError, match=r"image\.png: is not an image of the kinds PNG, JPEG, BMP"):
        data.read_image(tmp_path / "image.png", (8, 8), 3)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("ending", ["avif", "dds", "ico", "jp2", "tga", "icns", "pcx"])
def test_other_formats_are_refused_under_any_name(tmp_path, ending):
    try:
        photo(32, 32).save(tmp_path / f"image.{ending}")
    except (OSError, ValueError, KeyError):
        pytest.skip("this Pillow does not write it")
    (tmp_path / f"image.{ending}").rename(tmp_path / "image.png")
    with pytest.raises(DataError, match="is not an image of the kinds"):
        data.read_image(tmp_path / "image.png", (8, 8), 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "webp", "ppm", "pgm", "tif"])
def test_each_format_of_the_endings_is_read_under_any_name(tmp_path, ending):
    photo(32, 32).convert("L" if ending == "pgm" else "RGB").save(tmp_path / f"image.{ending}")
    (tmp_path / f"image.{ending}").rename(tmp_path / "image.png")
    assert data.read_image(tmp_path / "image.png", (8, 8), 3).shape == (3, 8, 8)


def test_files_that_are_no_images_are_named(tmp_path):
    photo(16, 16).save(tmp_path / "whole.png")
    bad = tmp_path / "3.png"
    for content in (b"no image", b"", (tmp_path / "whole.png").read_bytes()[:60]):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"3\.png: is not an image") as caught:
            data.read_image(bad, (8, 8), 3)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        data.read_image(tmp_path / "nothing.png", (8, 8), 3)


def test_an_image_of_absurd_length_is_refused_by_its_header(tmp_path):
    Image.new("L", (1, 70_000)).save(tmp_path / "long.png")
    with pytest.raises(DataError, match="1×70000 pixels, expected sides of at most 65535"):
        data.read_image(tmp_path / "long.png", (8, 8), 3)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_becomes_classes(image_folder):
    train, test = data.load(str(image_folder), img_size=(8, 6), in_chans=3)
    assert train.classes == ("bright", "dark") and (len(train), len(test)) == (16, 4)
    batch = train.batch(np.arange(len(train)))
    assert batch.shape == (16, 3, 8, 6) and batch.dtype == np.uint8
    assert batch[train.labels == 0].mean() > 150 > 100 > batch[train.labels == 1].mean()
    assert data.load(str(image_folder), img_size=(8, 8), in_chans=1)[0].batch([0]).shape == (1, 1, 8, 8)


def test_a_val_folder_is_used_and_must_hold_the_same_classes(image_folder):
    (image_folder / "val" / "dark").mkdir(parents=True)
    os.rename(image_folder / "train" / "dark" / "0.png", image_folder / "val" / "dark" / "0.png")
    with pytest.raises(DataError, match="different classes: bright"):
        data.load(str(image_folder))
    (image_folder / "val" / "bright").mkdir()
    os.rename(image_folder / "train" / "bright" / "0.png", image_folder / "val" / "bright" / "0.png")
    train, test = data.load(str(image_folder))
    assert (len(train), len(test)) == (18, 2)


def test_folders_without_images_say_what_is_expected(tmp_path):
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no images; expected .*<class>/\*\.png"):
        data.load(str(tmp_path / "empty"))


def test_hidden_files_and_folders_are_left_out(image_folder):
    for path in ("._0.png", ".cache/1.png", "inner/.thumbnails/2.png", "inner/._3.png"):
        hidden = image_folder / "train" / "dark" / path
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(b"no image")
    (image_folder / "train" / ".git").mkdir()
    os.rename(image_folder / "train" / "dark" / "0.png", image_folder / "train" / "dark" / "inner" / "0.PNG")
    train, test = data.load(str(image_folder))
    assert len(train) + len(test) == 20 and len(train.classes) == 2


def flat(folder, **counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            photo(8, 8).save(folder / name / f"{i}.png")
    return str(folder)


def test_a_folder_to_evaluate_on_is_taken_as_it_is(tmp_path):
    own = data.load_test(flat(tmp_path / "own", cat=7, dog=1))
    assert (len(own), own.classes) == (8, ("cat", "dog"))
    flat(tmp_path / "both" / "train", cat=1, dog=1, owl=1)
    for part in ("val", "test"):
        flat(tmp_path / part / part, dog=1)
        flat(tmp_path / "both" / part, dog=1 if part == "val" else 2)
        alone = data.load_test(str(tmp_path / part), img_size=(8, 8))
        assert (len(alone), alone.classes, alone.image_shape) == (1, ("dog",), (3, 8, 8))
    assert len(data.load_test(str(tmp_path / "both"))) == 1
    trained = flat(tmp_path / "trained" / "train", cat=10)
    held_out = data.load_test(str(tmp_path / "trained"))
    assert held_out.paths == data.load(str(tmp_path / "trained"))[1].paths and len(held_out) == 2
    assert len(data.load_test(trained)) == 10
    assert len(data.load_test("digits")) == 360
    with pytest.raises(DataError, match="unknown data"):
        data.load_test(str(tmp_path / "nowhere"))


# ---- broken files ---------------------------------------------------------------------------------------------------


def damage(image_folder):
    """-> five broken files, of which the headers of three can be read; the others are whole."""
    train, val = image_folder / "train" / "dark", image_folder / "val"
    for name in ("bright", "dark"):
        (val / name).mkdir(parents=True)
        for ending in ("png", "jpg", "bmp", "gif", "webp", "ppm", "tif"):
            photo(40, 30).save(val / name / f"image.{ending}")
    cut = [train / "3.png", val / "bright" / "image.bmp", val / "dark" / "image.jpg"]
    for path in cut:
        path.write_bytes(path.read_bytes()[:-30])
    (train / "4.png").write_bytes(b"")
    (train / "5.png").unlink()
    (train / "5.png").symlink_to("nowhere")
    return [cut[0], train / "4.png", train / "5.png", *cut[1:]]


def test_all_broken_images_are_named_before_the_first_is_read(image_folder):
    broken = damage(image_folder)
    for load in (data.load, data.load_test):
        named = broken if load is data.load else broken[3:]
        with pytest.raises(DataError) as caught:
            load(str(image_folder))
        message = str(caught.value)
        assert message.startswith(f"{len(named)} of {len(named) + (29 if load is data.load else 12)} images cannot be")
        assert all(f"{path}: " in message for path in named) and "\n" not in message
        assert message.count(str(image_folder)) == len(named) and "skip_bad=True" in message and len(message) < 2000


def test_broken_images_can_be_left_out(image_folder):
    broken = damage(image_folder)
    with pytest.warns(UserWarning, match="left out: 5 of 34 images") as caught:
        train, val = data.load(str(image_folder), img_size=(8, 8), skip_bad=True)
    assert all(f"{path}: " in str(caught[0].message) for path in broken) and len(caught) == 1
    assert (len(train), len(val)) == (17, 12) and not set(broken) & {*train.paths, *val.paths}
    assert len(list(data.Loader(val, 4).epoch())) == 3
    assert train.find_broken() == {}
    assert [path.parent.name for path in train.paths] == [train.classes[label] for label in train.labels]


def test_of_many_broken_images_twenty_are_named(tmp_path):
    folder = flat(tmp_path / "many", cat=100)
    for path in sorted((tmp_path / "many" / "cat").iterdir())[:50]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"50 of 100 images cannot be read.*; and 30 more\. Replace") as caught:
        data.load_test(folder)
    assert str(caught.value).count(str(tmp_path)) == 20


def test_a_folder_without_a_whole_image_is_refused(tmp_path):
    folder = flat(tmp_path / "one", cat=1)
    (tmp_path / "one" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 1 images cannot be read.*no others are there"):
        data.load_test(folder, skip_bad=True)


def test_whole_png_and_jpeg_files_are_not_decoded_to_be_checked(tmp_path, monkeypatch):
    from PIL import ImageFile

    folder = flat(tmp_path / "set", cat=3)
    photo(30, 30).save(tmp_path / "set" / "cat" / "image.jpg")

    def decode(image):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert data.load_test(folder).find_broken() == {}


def test_an_error_on_the_preparing_thread_reaches_the_caller(image_folder):
    train, _ = data.load(str(image_folder), img_size=(8, 8))
    train.paths[0].write_bytes(b"broken")
    with pytest.raises(DataError, match="not an image"):
        list(data.Loader(train, 4).epoch())
