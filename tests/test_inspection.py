"""`numpyvit data`: what a set holds."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from numpyvit import cli


def pixels(number, height=12, width=16):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """train/ and val/ of two classes: nine images, two of them the same as others, and three broken files."""
    root = tmp_path / "images"
    for i in range(3):
        save(root / "train" / "cat" / f"{i}.png", pixels(i))
    save(root / "train" / "dog" / "3.jpg", pixels(3, 30, 20))
    save(root / "train" / "dog" / "4.png", Image.fromarray(pixels(4)).convert("P"))
    gray = Image.fromarray(pixels(5)).convert("L")
    save(root / "train" / "dog" / "5.png", gray)
    save(root / "val" / "dog" / "6.webp", gray.convert("RGB"), lossless=True)  # 5.png once more
    turned = Image.Exif()
    turned[0x0112] = 3
    save(root / "val" / "cat" / "7.png", Image.fromarray(pixels(0)[::-1, ::-1]), exif=turned)  # 0.png, upside down
    save(root / "val" / "cat" / "8.bmp", pixels(8))
    whole = (root / "train" / "cat" / "1.png").read_bytes()
    (root / "train" / "cat" / "cut.png").write_bytes(whole[:-200])
    damaged = whole[:60] + bytes(8) + whole[68:]  # it begins and ends as a whole file does
    (root / "train" / "dog" / "within.png").write_bytes(damaged)
    (root / "val" / "cat" / "empty.jpg").write_bytes(b"")
    return root


def run(*args):
    return cli.main(["data", *map(str, args)])


def as_json(capsys, *args):
    code = run(*args, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_classes_sizes_formats_and_modes_are_counted(folder, capsys):
    code, found = as_json(capsys, folder)
    assert code == 1 and found["images"] == 9 and found["parts"] == {"train": 6, "val": 3}
    assert found["classes"] == {"cat": {"train": 3, "val": 2}, "dog": {"train": 3, "val": 1}}
    assert found["counted"] == "images"
    assert found["height"] == {"min": 12, "median": 12, "max": 30}
    assert found["width"] == {"min": 16, "median": 16, "max": 20}
    assert found["formats"] == {"PNG": 6, "JPEG": 1, "WEBP": 1, "BMP": 1}
    assert found["modes"] == {"RGB": 7, "P": 1, "L": 1}


def test_equal_pixels_are_named_whatever_the_format_and_where_they_leak(folder, capsys):
    found = as_json(capsys, folder)[1]["duplicates"]
    names = [[str(folder / name) for name in pair] for pair in (
        ("train/cat/0.png", "val/cat/7.png"), ("train/dog/5.png", "val/dog/6.webp"),
    )]  # fmt: skip
    assert [group["images"] for group in found] == names
    assert all(group["parts"] == ["train", "val"] for group in found)
    run(folder)
    out = capsys.readouterr().out
    assert "duplicates: 2 groups of equal pixels, 2 across parts" in out
    assert f"{names[0][0]} = {names[0][1]}  (in train and val)" in out


def test_the_same_image_in_two_classes_comes_before_harmless_copies(tmp_path, capsys):
    for name in ("cat/0.png", "cat/1.png", "dog/2.png", "owl/4.png"):
        save(tmp_path / name, pixels(1 if name < "dog" else 2))
    found = as_json(capsys, tmp_path)[1]["duplicates"]
    assert [group["classes"] for group in found] == [["dog", "owl"], ["cat"]]
    assert as_json(capsys, tmp_path)[0] == 0


def test_deep_gray_values_that_differ_are_no_duplicates(tmp_path, capsys):
    for i in (0, 1):  # which in 8 bits would be the same
        save(tmp_path / "a" / f"{i}.png", np.full((4, 4), 1000 + i, np.uint16))
    assert as_json(capsys, tmp_path)[1]["duplicates"] == []


def test_each_broken_file_is_named_and_the_exit_code_is_1(folder, capsys):
    broken = ["train/cat/cut.png", "train/dog/within.png", "val/cat/empty.jpg"]
    assert run(folder) == 1
    out = capsys.readouterr().out
    assert "broken: 3\n" in out and all(out.count(name) == 1 for name in broken)
    for name in broken:
        (folder / name).unlink()
    assert run(folder) == 0 and "broken:" not in capsys.readouterr().out


def test_files_that_are_not_taken_for_images_are_counted(folder, capsys):
    for name in ("train/cat/0.heic", "train/dog/1.HEIC", "notes.txt", "val/cat/readme", ".hidden"):
        (folder / name).write_bytes(b"")
    (folder / "around").symlink_to(".")
    assert as_json(capsys, folder)[1]["other_files"] == {".heic": 2, ".txt": 1, "no ending": 1}
    run(folder)
    assert "not read    .heic 2, " in capsys.readouterr().out


def test_a_csv_is_looked_at_with_its_lines(folder, capsys):
    listed = folder / "set.csv"
    lines = ["train/cat/0.png,cat,train", "val/cat/7.png,cat,test", "none.png,dog,train", "train/cat/0.png,dog,train"]
    listed.write_text("\n".join(["path,label,split", *lines]))
    code, found = as_json(capsys, listed)
    assert code == 1 and found["classes"] == {"cat": {"train": 1, "test": 1}, "dog": {}}
    assert len(found["duplicates"]) == 1 and len(found["broken"]) == 2
    assert "line 5: names 0.png otherwise" in found["broken"][0] and "none.png: there is no such" in found["broken"][1]


def test_boxes_are_counted_and_those_left_out_are_named(tmp_path, capsys):
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels(min(i, 1)))
    boxes = [(0, 1, [2, 2, 5, 5]), (0, 2, [3, 3, 5, 5]), (1, 1, [2, 2, 0, 5])]
    described = {
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "egg"}],
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
        "annotations": [{"image_id": image, "category_id": kind, "bbox": box} for image, kind, box in boxes],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(described))
    code, found = as_json(capsys, tmp_path)
    assert code == 1 and found["counted"] == "boxes" and found["images"] == 3
    assert found["classes"] == {"cell": {"all": 1}, "egg": {"all": 1}}
    assert len(found["left_out"]) == 1 and "has no area" in found["left_out"][0]
    assert len(found["broken"]) == 1 and "3.png" in found["broken"][0]
    assert [group["images"] for group in found["duplicates"]] == [[str(tmp_path / "1.png"), str(tmp_path / "2.png")]]


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_sets_by_name_are_looked_at_too(name, capsys):
    code, found = as_json(capsys, name)
    assert code == 0 and found["broken"] == []
    if name == "digits":
        assert found["parts"] == {"train": 1437, "test": 360} and found["modes"] == {"L": 1797}
        assert sum(found["classes"]["7"].values()) == 179 and found["width"]["max"] == 8
    else:
        assert found["parts"] == {"train": 2000, "val": 500, "test": 500} and found["counted"] == "boxes"


# ---- the contact sheet ----------------------------------------------------------------------------------------------


def test_the_sheet_shows_images_of_each_class(tmp_path, capsys):
    colors = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
    for name, color in colors.items():
        for i in range(40):
            save(tmp_path / "set" / name / f"{i}.png", Image.new("RGB", (9, 5 + i), color))
    sheet = tmp_path / "sheet.png"
    assert run(tmp_path / "set", "--sheet", sheet) == 0
    assert f"sheet       {sheet}" in capsys.readouterr().out
    with Image.open(io.BytesIO(sheet.read_bytes())) as image:
        drawn = np.asarray(image.convert("RGB"))
    for color in colors.values():
        assert (drawn == color).all(2).sum() > 10_000


def test_the_sheet_has_boxes_where_there_are_boxes(tmp_path, capsys):
    assert run("shapes", "--sheet", tmp_path / "sheet.png", "--json") == 0
    json.loads(capsys.readouterr().out)  # nothing else is said
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 3 * 320 and image.height > 3 * 320


def test_a_sheet_that_cannot_be_written_is_a_failure(folder, tmp_path, capsys):
    assert run(folder, "--sheet", tmp_path / "none" / "sheet.png") == 1
    assert "cannot write" in capsys.readouterr().err


def test_long_tables_are_cut_and_json_has_all(tmp_path, capsys):
    for i in range(50):
        save(tmp_path / f"class{i:02}" / "0.png", pixels(i // 2, 2, 2))
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "… and 10 more; the smallest has 1, the largest 1" in out and "… and 5 more groups" in out
    found = as_json(capsys, tmp_path)[1]
    assert len(found["classes"]) == 50 and len(found["duplicates"]) == 25


@pytest.mark.parametrize("args, code, message", [
    (["nowhere"], 1, "unknown data 'nowhere'"), (["none.csv"], 1, "none.csv: there is no such"),
    (["."], 1, "holds no images"), (["voc"], 1, "voc: holds no annotations of boxes"),
    (["digits", "--sheet", "sheet.gif"], 2, "let its name end with .png"),
    (["csv.csv"], 1, "the first line is 'a,b', expected the names of columns"),
])  # fmt: skip
def test_what_is_no_set_is_said_in_one_line(args, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    (tmp_path / "csv.csv").write_text("a,b\n1,2\n")
    assert run(*args) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
