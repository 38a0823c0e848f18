"""A folder with more than thirty kinds of odd files trains; each bad file is named once. odd_files.py lists them."""

import json
import warnings

import numpy as np
import pytest
from odd_files import BAD, GOOD, PASSED_OVER, make_folder
from PIL import Image

from numpyvit import cli, data
from numpyvit.data.paths import shown
from numpyvit.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")  # by Pillow before 11


@pytest.fixture
def odd(tmp_path):
    """-> the folder, the names of its good images and of its bad ones."""
    return tmp_path / "images", *make_folder(tmp_path / "images")


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


def times_named(text, names):
    return {name: text.count(f"/{shown(name)}: ") for name in names}


def test_there_are_more_than_thirty_kinds():
    assert len(GOOD) + len(BAD) + len(PASSED_OVER) > 50 and len(BAD) >= 10


def test_the_folder_trains_and_each_bad_file_is_named_once(odd, tmp_path, capfd):
    folder, good, bad = odd
    train = ["train", "--data", folder, "--model", "vit_micro_patch4_32", "--img-size", 16, "--epochs", 2]
    train += ["--batch-size", 8, "--warmup-steps", 2, "--out", tmp_path / "run"]
    assert numpyvit(*train) == 1
    out, err = capfd.readouterr()
    known = [name for name in bad if name not in ("damaged within.png", "cut.jpg")]  # the header and the end are whole
    assert err.count("\n") == 1 and out == "" and set(times_named(err, known).values()) == {1}
    assert numpyvit(*train, "--skip-bad") == 0
    out, err = capfd.readouterr()
    assert times_named(err, bad) == dict.fromkeys(bad, 1) and err.count("\n") == 1
    assert not any(count for count in times_named(err, good).values())
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_every_good_file_is_an_image_and_the_rest_is_passed_over(odd):
    folder, good, _ = odd
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = data.load_test(folder, img_size=(8, 8), skip_bad=True)
    assert images.classes == ("good", "odd")
    assert sorted(path.relative_to(folder / path.relative_to(folder).parts[0]).as_posix() for path in images.paths) == (
        sorted(good)
    )
    assert images.batch(np.arange(len(images))).shape == (len(good), 3, 8, 8)


def test_data_names_each_bad_file_once_and_finds_all_of_them(odd, capfd):
    folder, good, bad = odd
    assert numpyvit("data", folder, "--json", "--sheet", folder.parent / "sheet.png") == 1
    found = json.loads(capfd.readouterr().out)
    assert times_named("\n".join(found["broken"]), bad) == dict.fromkeys(bad, 1)
    assert found["images"] == len(good) and len(found["broken"]) == len(bad)


def test_predict_names_each_bad_file_once_and_predicts_the_others(odd, tmp_path, capfd):
    folder, good, bad = odd
    assert numpyvit("train", "--steps", 1, "--warmup-steps", 0, "--quiet", "--out", tmp_path / "run") == 0
    assert numpyvit("predict", folder, "--json", "--top", 1, "--checkpoint", tmp_path / "run") == 1
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == len(good) and times_named(err, bad) == dict.fromkeys(bad, 1)
    assert f"{len(bad)} of {len(good) + len(bad)} images could not be read" in err
    assert err.count("\n") == len(bad) + 1 and "Traceback" not in err


def test_a_link_around_is_no_class_and_a_link_elsewhere_is(tmp_path):
    make_folder(tmp_path / "images")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "elsewhere").symlink_to(tmp_path / "images" / "good")
    assert data.load_test(tmp_path / "set").classes == ("elsewhere",)
    with pytest.raises(DataError, match="holds no images"):
        data.load_test(tmp_path / "images" / "empty class")


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_of_several_frames_the_first_is_read(tmp_path, ending):
    first, *others = (Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue"))
    first.save(tmp_path / f"frames.{ending}", save_all=True, append_images=others)
    pixels = data.read_image(tmp_path / f"frames.{ending}", (8, 8), 3).astype(int)
    assert (np.abs(pixels - np.array([255, 0, 0])[:, None, None]) <= 3).all()
