"""Labeled image files of one's own: CSVs, the cache of decoded images, parts."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.data.cache import CACHE_MB, ImageCache
from numpyvit.errors import ConfigError, DataError
from numpyvit.training.parts import load_parts


def write_images(folder, *names):
    """Small images, each of its own gray."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (i, 0, 0)).save(folder / name)


def write_csv(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def listed(tmp_path):
    """Ten images of two classes, in one folder, and a CSV beside them."""
    names = [f"all/{i}.png" for i in range(10)]
    write_images(tmp_path, *names)
    return write_csv(tmp_path / "set.csv", "path,label", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)))


# ---- a CSV ----------------------------------------------------------------------------------------------------------


def test_a_csv_names_images_and_classes(listed):
    train, test = data.load(listed, img_size=(4, 4))
    assert (len(train), len(test), train.classes) == (8, 2, ("a", "b"))
    whole = data.load_test(str(listed), img_size=(4, 4))
    assert [path.name for path in whole.paths] == [f"{i}.png" for i in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)]
    assert whole.labels.tolist() == [0] * 5 + [1] * 5 and whole.batch([1])[0, 0, 0, 0] == 2


def test_a_split_says_which_part_an_image_belongs_to(listed):
    names = [f"all/{i}.png" for i in range(10)]
    splits = ["train"] * 6 + ["VAL", "valid", "test", "Test"]
    rows = [f"{split},{'ab'[i % 2]},{i},{name}" for i, (name, split) in enumerate(zip(names, splits))]
    write_csv(listed, "\ufeffSplit, Label ,number,PATH", *rows)
    train, val, test = load_parts(listed, img_size=(4, 4))
    assert [sorted(path.stem for path in part.paths) for part in (train, val, test)] == [
        list("012345"),
        ["6", "7"],
        ["8", "9"],
    ]
    assert load_parts(write_csv(listed, "split,label,number,path", *rows[:8]), img_size=(4, 4))[1] is None
    assert len(data.load_test(listed)) == 2


def test_numbers_are_classes_in_their_order(listed):
    write_csv(listed, "path,label", *(f"all/{i}.png,{i + 5}" for i in range(10)))
    assert data.load_test(listed).classes == tuple(map(str, range(5, 15)))


def test_what_is_wrong_with_lines_is_named_together(listed):
    rows = ["all/0.png,a,train", "all/none.png,a,train", "all/1.png,b,train", "./all/0.png,b,train", "all/2.png,,train"]
    rows += [
        "all/3.png,b,somewhere",
        "all/nothing.png,b,train",
        "all/1.png,b,train",
        ",b,train",
        "all/4.png",
        "a\0b,a,train",
    ]
    write_csv(listed, "path,label,split", *rows)
    with pytest.raises(DataError) as caught:
        data.load(listed)
    message = str(caught.value)
    assert message.startswith("9 of 11 images cannot be used: ") and "\n" not in message
    for part in (
        "line 5: names 0.png otherwise, after line 2",
        "line 6: has no label",
        "line 7: has the split 'somewhere', expected train, val or test",
        "line 9: names 1.png again, after line 4",
        "line 10: has no path",
        "line 11: has no label",
        "line 12: has a path that no file can have",
        "none.png: there is no such file",
        "nothing.png: there is no such file",
    ):
        assert message.count(part) == 1, part
    write_csv(listed, "path,label", "all/0.png,a", "all/none.png,a", "all/0.png,b", "all/1.png,b")
    with pytest.warns(UserWarning, match="left out: 2 of 4 images cannot be used"):
        whole = data.load_test(listed, img_size=(4, 4), skip_bad=True)
    assert [path.name for path in whole.paths] == ["0.png", "1.png"] and whole.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"all/0.png,a\n", r"the first line is 'all/0.png,a', expected the names of columns: path,label"),
        (b"path;label\nall/0.png;a\n", "the first line is 'path;label'"),
        (b"", "the first line is ''"),
        (b"path,label\n", "names no images"),
        (b"path,label\n,\n,a\n", "names no images: .*line 3: has no path"),
        (b"path,label\n\xff\xfe,a\n", "not a CSV in UTF-8"),
        (b'path,label\n"all/0.png,a\n', "not a CSV in UTF-8"),
        (b"path,label\n" + b"a" * 200_000 + b",b\n", "not a CSV in UTF-8 that can be read .field larger"),
    ],
)
def test_a_csv_of_another_form_is_refused(listed, content, message):
    listed.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.load(listed)
    assert str(listed) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_csv_and_classes_that_are_never_trained_are_named(listed):
    with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
        data.load(listed.with_name("none.csv"))
    write_csv(listed, "path,label,split", "all/0.png,a,train", "all/1.png,b,test")
    with pytest.raises(DataError, match=r"different classes: b"):
        data.load(listed)
    write_csv(listed, "path,label,split", "all/1.png,b,test")
    with pytest.raises(DataError, match="holds no part to train on, only test; add train"):
        data.load(listed)


def test_a_csv_trains_and_is_evaluated(listed, capsys, monkeypatch):
    monkeypatch.chdir(listed.parent)
    args = ["--data", "set.csv", "--model", "vit_micro_patch4_32", "--img-size", "8", "--steps", "2"]
    assert cli.main(["train", *args, "--warmup-steps", "0", "--cache-mb", "0"]) == 0
    run = listed.parent / "runs" / "set-vit_micro_patch4_32"
    assert cli.main(["evaluate", "--checkpoint", str(run)]) == 0
    assert cli.main(["evaluate", "--checkpoint", str(run), "--data", "set.csv"]) == 0
    out = capsys.readouterr().out
    assert "on 2 images" in out and "on 10 images" in out


def damage_within(path):
    """The header and the end are whole."""
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes(8) + content[58:])


@pytest.mark.parametrize("form", ["csv", "boxes"])
def test_a_file_that_only_decoding_shows_to_be_broken_is_left_out_before_it_stops_a_run(listed, form):
    damage_within(listed.parent / "all" / "3.png")
    if form == "boxes":
        images = [{"id": i, "file_name": f"all/{i}.png"} for i in range(10)]
        boxes = [{"image_id": i, "category_id": 1, "bbox": [1, 1, 3, 3]} for i in range(10)]
        described = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
        (listed.parent / "annotations.json").write_text(json.dumps(described))
        listed = listed.parent
    with pytest.raises(DataError, match=r"3\.png: is not an image that can be read"):
        list(data.Loader(data.load_test(listed, img_size=(4, 4)), 4).epoch())
    with pytest.warns(UserWarning, match=r"left out.*3\.png"):
        sound = data.load_test(listed, img_size=(4, 4), skip_bad=True)
    assert len(sound) == 9 and len(list(data.Loader(sound, 4).epoch())) == 3


# ---- the cache ------------------------------------------------------------------------------------------------------


def test_images_are_kept_while_they_fit_and_all_parts_share_the_budget(listed, monkeypatch):
    read = []
    monkeypatch.setattr(
        "numpyvit.data.preprocessing.read_image",
        lambda path, *_: read.append(path) or np.zeros((3, 512, 512), np.uint8),
    )
    train, test = data.load(listed, img_size=(512, 512), cache_mb=6)  # of ten images of ¾ MiB
    for _ in range(2):
        train.batch(np.arange(8))
        train.take(np.arange(4)).batch(np.arange(4))
        test.batch(np.arange(2))
    assert len(read) == 8 + 2 + 2 and len(set(read)) == 10
    other = train.prepared(data.Preprocessing(crop_pct=0.5))
    other.batch([0])
    assert len(read) == 13  # the same file in another form is another image


def test_the_default_budget_is_the_one_that_is_stated(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert f"(default: {CACHE_MB})" in capsys.readouterr().out
    assert CACHE_MB == 512 and cli.build_parser().parse_args(["train"]).cache_mb == CACHE_MB
    with pytest.raises(ConfigError, match="cache_mb must be an int that is not negative, got -1"):
        ImageCache(-1)


def test_shapes_are_drawn_once_where_they_fit_and_are_the_same_where_not():
    kept, drawn = (nv.data.load_detection("shapes", img_size=16, cache_mb=mb)["val"] for mb in (1, 0))
    for rows in ([3, 4, 3], [4, 5]):
        for one, other in zip(kept.batch(np.array(rows)), drawn.batch(np.array(rows))):
            assert np.array_equal(one, other)
        assert [t["boxes"].tolist() for t in kept.targets(rows)] == [t["boxes"].tolist() for t in drawn.targets(rows)]


def test_files_are_decoded_on_several_threads_and_in_order(monkeypatch):
    monkeypatch.setattr("numpyvit.data.cache.available_threads", lambda: 3)
    together = threading.Barrier(3, timeout=20)

    def make(key):
        together.wait()  # which ends only where three are made at once
        return np.full(2, key)

    assert [array[0] for array in ImageCache(0).get([5, 3, 4, 3], make)] == [5, 3, 4, 3]


def test_an_error_of_a_thread_is_raised_and_nothing_wrong_is_kept():
    cache, bad = ImageCache(1), {2}

    def make(key):
        if key in bad:
            raise DataError(f"{key}.png: is broken")
        return np.full(1, key)

    with pytest.raises(DataError, match=r"2\.png: is broken"):
        cache.get([1, 2, 3], make)
    bad.clear()
    assert [array[0] for array in cache.get([1, 2, 3], make)] == [1, 2, 3]
