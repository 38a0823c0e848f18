"""Folders in Pascal VOC's and COCO's form, sound, unsound and hostile."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from numpyvit import data
from numpyvit.data.detection_folder import fitted_size
from numpyvit.errors import ConfigError, DataError, NumpyvitError

BCCD = pathlib.Path(__file__).parents[2] / "shared" / "data" / "bccd"
SIZE = (30, 40)  # height, width
SQUARES = [("cat", (4, 6, 24, 16)), ("dog", (20, 10, 40, 30))]  # bright on black


def save_image(path, size=SIZE, squares=SQUARES, **options):
    pixels = np.zeros((*size, 3), np.uint8)
    for _, (left, top, right, bottom) in squares:
        pixels[top:bottom, left:right] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def xml(boxes=SQUARES, size=SIZE, more=""):
    objects = "".join(
        f"<object><name>{name}</name><difficult>1</difficult><part><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
        + "</bndbox></object>"
        for name, box in boxes
    )
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    return f"<annotation>{stated}{objects}{more}</annotation>"


def make_voc(folder, annotations, lists=None):
    """annotations: {name: xml text}."""
    for name, text in annotations.items():
        save_image(folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    for part, names in (lists or {}).items():
        path = folder / "ImageSets" / "Main" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return folder


def coco(names=("a", "b"), **change):
    boxes = [
        (category, (box[0], box[1], box[2] - box[0], box[3] - box[1])) for category, (_, box) in enumerate(SQUARES)
    ]
    content = {
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": len(names) * c + i, "image_id": i, "category_id": 7 - c, "bbox": box, "area": 99, "iscrowd": c}
            for i in range(len(names))
            for c, box in boxes
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 6, "name": "dog"}],
    }
    return content | change


def make_coco(folder, content, file="annotations.json", images=None):
    for row in content["images"] if images is None else []:
        save_image(folder / row["file_name"])
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


FIVE = {name: xml() for name in "abcde"}


def boxes_of(dataset, i=0):
    """[(class, (left, top, right, bottom)), …] in pixels of the original image."""
    (target,) = dataset.targets([i])
    height, width = target["size"]
    x, y, w, h = target["boxes"].T
    corners = np.stack([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], axis=1)
    return [(dataset.classes[label], tuple(box)) for label, box in zip(target["labels"], corners.round(3).tolist())]


# ---- sound folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_both_forms_give_the_same_boxes_on_the_same_image(tmp_path, form):
    if form == "voc":
        make_voc(tmp_path, FIVE, {"train": "abc", "val": "d", "test": "e"})
    else:
        for part, names in (("train", "abc"), ("val", "d"), ("test", "e")):
            make_coco(tmp_path / part, coco(names))
    parts = data.load_detection(tmp_path, img_size=SIZE)
    assert [len(parts[part]) for part in ("train", "val", "test")] == [3, 1, 1]
    train = parts["train"]
    assert train.classes == ("cat", "dog") and train.kind == "detection" and train.image_shape == (3, *SIZE)
    for i in range(3):
        assert boxes_of(train, i) == SQUARES
    batch, mask = train.batch([0, 2])
    assert not mask.any() and (batch[:, :, 6:16, 4:20] == 255).all() and batch[:, :, :6].max() == 0
    assert data.has_boxes(tmp_path) and len(data.load(tmp_path, img_size=SIZE)[1]) == 1


def test_what_a_file_says_of_a_box_is_kept(tmp_path):
    (voc,) = data.load_test(make_voc(tmp_path / "voc", FIVE)).targets([0])
    assert voc["difficult"].tolist() == [True, True] and voc["image_id"] == "a" and voc["size"] == SIZE
    (target,) = data.load_test(make_coco(tmp_path / "coco", coco())).targets([0])
    assert target["iscrowd"].tolist() == [False, True] and target["area"].tolist() == [99, 99]


def test_the_parts_follow_the_lists(tmp_path):
    def sizes(lists):
        shutil.rmtree(tmp_path / "ImageSets", ignore_errors=True)
        parts = data.load_detection(make_voc(tmp_path, FIVE, lists), img_size=SIZE)
        return [len(parts[part] or ()) for part in ("train", "val", "test")]

    assert sizes({"train": "abc", "val": "de"}) == [3, 0, 2]  # what is for validation is for the test then
    assert sizes({"train": "ab", "val": "c", "trainval": "abc", "test": "de"}) == [2, 1, 2]
    assert sizes({"trainval": "abc", "test": "de"}) == [3, 0, 2]
    assert sizes({"train": "abcde"}) == [4, 0, 1]  # every fifth
    assert sizes({}) == [4, 0, 1]
    assert len(data.load_test(tmp_path)) == 5  # the whole folder is to be looked at
    with pytest.raises(DataError, match="fewer than five images"):
        sizes({"train": "abc"})
    with pytest.raises(DataError, match="no part to train on, but test; add train"):
        sizes({"test": "abc"})
    assert len(data.load_test(tmp_path)) == 3


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images"])
def test_coco_s_own_layout_is_read(tmp_path, images):
    for name in "abcde":
        save_image(tmp_path / images / f"{name}.png")
    make_coco(tmp_path, coco("abcde"), "annotations/instances_train2017.json", images="there")
    parts = data.load_detection(tmp_path, img_size=SIZE)
    assert len(parts["train"]) == 4 and boxes_of(parts["test"]) == SQUARES


def test_roboflow_s_files_are_read(tmp_path):
    for part in ("train", "valid"):
        make_coco(tmp_path / part, coco(), "_annotations.coco.json")
    parts = data.load_detection(tmp_path, img_size=SIZE)
    assert len(parts["train"]) == len(parts["test"]) == 2 and parts["val"] is None


def test_given_classes_are_the_labels(tmp_path):
    make_coco(tmp_path, coco("abcde"))
    parts = data.load_detection(tmp_path, classes=["bird", "dog", "cat"])
    assert parts["train"].classes == ("bird", "dog", "cat") and parts["train"].targets([0])[0]["labels"].tolist() == [
        2,
        1,
    ]
    with pytest.warns(UserWarning, match="left out 5 of 10 boxes: .*box 2 is of the unknown class 'dog'"):
        parts = data.load_detection(tmp_path, classes=["cat"])
    assert boxes_of(parts["test"]) == SQUARES[:1]
    with pytest.raises(ConfigError, match="different names"):
        data.load_detection(tmp_path, classes=["cat", "cat"])


def test_images_keep_their_shape_or_are_brought_to_one(tmp_path):
    make_voc(tmp_path, FIVE)
    save_image(tmp_path / "JPEGImages" / "b.png", (40, 20), [("cat", (0, 0, 10, 20))])
    (tmp_path / "Annotations" / "b.xml").write_text(xml([("cat", (0, 0, 10, 20))], (40, 20)))
    train = data.load_detection(tmp_path, img_size=15)["train"]
    images, mask = train.batch([0, 1])
    assert images.shape == (2, 3, 24, 20) and train.image_shape == (3, 24, 20)
    assert mask[0, 15:].all() and not mask[0, :15].any() and mask[1, :, 12:].all() and not mask[1, :, :12].any()
    assert boxes_of(train, 1) == [("cat", (0, 0, 10, 20))]
    images, mask = data.load_detection(tmp_path, img_size=(20, 20))["train"].batch([0, 1])
    assert images.shape == (2, 3, 20, 20) and not mask.any()
    assert (images[1, :, 1:9, 1:9] == 255).all() and images[1, :, 11:].max() == 0
    assert data.load_detection(tmp_path, img_size=15, in_chans=1)["train"].batch([0])[0].shape == (1, 1, 15, 20)


def test_images_are_decoded_once_also_for_parts_of_a_set(tmp_path):
    images = data.load_test(make_voc(tmp_path, FIVE), img_size=SIZE)
    first = images.batch([1])[0]
    (tmp_path / "JPEGImages" / "b.png").unlink()
    assert (images.take([1, 2]).batch([0])[0] == first).all() and (images.batch([1])[0] == first).all()


def test_sizes_are_those_of_detr():
    assert fitted_size((480, 640), 800) == (800, 1066)  # shorter side 800, at most 1333
    assert fitted_size((640, 480), 800) == (1066, 800)
    assert fitted_size((400, 1000), 800) == (533, 1332)
    assert fitted_size((500, 500), 800) == (800, 800)
    assert fitted_size((1, 10_000), 100) == (1, 166)
    assert fitted_size((480, 640), (64, 32)) == (64, 32)
    for wrong in (0, (8, 8, 8), (8, -1), 0.5, "large"):
        with pytest.raises(ConfigError, match="must be the shorter side or"):
            fitted_size((480, 640), wrong)


def test_boxes_refer_to_stored_pixels_or_to_the_upright_image_that_the_size_tells(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    stored, upright = (30, 40), (40, 30)
    square = ("cat", (0, 0, 10, 20))
    make_voc(tmp_path, {"a": xml([square], stored), "b": xml([square], upright)})
    save_image(tmp_path / "JPEGImages" / "a.png", stored, [square], exif=exif)
    save_image(tmp_path / "JPEGImages" / "b.png", stored, [("cat", (0, 20, 20, 30))], exif=exif)  # upright: the square
    images = data.load_test(tmp_path, img_size=30)
    for i, size in enumerate((stored, upright)):
        batch = images.batch([i])[0]
        assert batch.shape == (1, 3, *size) and images.targets([i])[0]["size"] == size
        assert (batch[0, :, :20, :10] == 255).all() and batch[0, :, 20:].max() == batch[0, :, :, 10:].max() == 0


# ---- boxes that are left out, images that are refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    "box, reason",
    [
        ((5, 5, 5, 9), r"has no area \(5, 5, 5, 9\)"),
        ((9, 9, 5, 5), "has no area"),
        ((50, 5, 60, 9), r"lies outside the image \(50, 5, 60, 9\)"),
        ((-9, -9, 0, 0), "lies outside the image"),
        (("a", 5, 6, 9), r"has no four finite numbers as its box \(nan, 5, 6, 9\)"),
        ((5, 5, "inf", 9), "has no four finite numbers"),
    ],
)
def test_boxes_that_cannot_be_are_left_out_and_named(tmp_path, box, reason):
    make_voc(tmp_path, {**FIVE, "b": xml([SQUARES[0], ("cat", box)])})
    with pytest.warns(UserWarning, match=rf"left out 1 of 10 boxes: .*b\.xml: box 2 {reason}"):
        images = data.load_test(tmp_path)
    assert boxes_of(images, 1) == SQUARES[:1] and len(images) == 5


def test_boxes_are_clipped_to_the_image(tmp_path):
    make_voc(tmp_path, {"a": xml([("cat", (-7, 5, 400, 29.5))])})
    assert boxes_of(data.load_test(tmp_path)) == [("cat", (0, 5, 40, 29.5))]


def test_images_without_boxes_are_kept(tmp_path):
    make_voc(tmp_path, {**FIVE, "c": xml([]), "d": xml([], None)})
    images = data.load_test(tmp_path)
    assert len(images) == 5 and boxes_of(images, 2) == boxes_of(images, 3) == []
    assert images.targets([2])[0]["boxes"].shape == (0, 4)
    with pytest.raises(DataError, match="holds no boxes to learn from"):
        data.load_test(make_voc(tmp_path / "none", {"a": xml([])}))


def bomb(kind="<!ENTITY a 'xxxxxxxxxx'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>", encoding="utf-8"):
    text = f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE annotation [{kind}]><annotation>&b;</annotation>"
    return text.encode(encoding)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not XML that can be read"),
        (b"<annotation><object>", "is not XML that can be read"),
        (b"\x89PNG\x00\x00", "is not XML that can be read"),
        (b"<a/>", "begins with <a>, expected <annotation>"),
        (b"<?xml version='1.0' encoding='nonsense'?><annotation/>", "is not XML that can be read"),
        (bomb(), "declares a document type"),
        (bomb(encoding="utf-16"), "declares a document type"),
        (bomb("<!ENTITY b SYSTEM 'file:///etc/passwd'>"), "declares a document type"),
        (b"<annotation>" + b" " * (1 << 21) + b"</annotation>", "is larger than 2 MiB"),
        (xml(size=(31, 40)).encode(), "states 40×31 pixels for b.png, which has 40×30"),
        (xml(size=(40, 30)).encode(), "states 30×40 pixels for b.png, which has 40×30"),
        (None, "there is no such file"),
    ],
    ids=range(12),
)
def test_annotations_that_cannot_be_used_are_named_or_left_out(tmp_path, content, message):
    make_voc(tmp_path, FIVE, {"train": "abc", "test": "de"})
    path = tmp_path / "Annotations" / "b.xml"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=rf"1 images or annotations cannot be used: .*b\.xml: .*{message}") as caught:
        data.load(tmp_path)
    assert "\n" not in str(caught.value) and "skip_bad" in str(caught.value)
    with pytest.warns(UserWarning, match="left out 1 images or annotations: .*b.xml"):
        assert len(data.load(tmp_path, skip_bad=True)[0]) == 2


@pytest.mark.parametrize("fault", ["missing", "not an image", "cut short", "outside"])
def test_images_that_cannot_be_read_are_named_together(tmp_path, fault):
    make_voc(tmp_path, FIVE, {"train": "abc", "test": ["d", "../e" if fault == "outside" else "e"]})
    image = tmp_path / "JPEGImages" / "e.png"
    if fault == "missing":
        image.unlink()
    elif fault == "not an image":
        image.write_bytes(b"x")
    elif fault == "cut short":
        image.write_bytes(image.read_bytes()[:60])
    (tmp_path / "JPEGImages" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 images or annotations cannot be used: .*a\.png.*/e"):
        data.load(tmp_path)
    with pytest.warns(UserWarning, match="left out 2 images"):
        assert [len(part) for part in data.load(tmp_path, skip_bad=True)] == [2, 1]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is not JSON that can be read"),
        ("[" * 100_000, "is not JSON that can be read"),
        ("[]", "holds a list, expected an object"),
        (coco(images=None), "has no list of objects under 'images'"),
        (coco(annotations=[1]), "has no list of objects under 'annotations'"),
        (coco(categories={}), "has no list of objects under 'categories'"),
        (coco(images=[{"file_name": "a.png"}]), "has None as 'id'"),
        (coco(images=[{"id": [1], "file_name": "a.png"}]), r"has \[1\] as 'id'"),
        (coco(annotations=[{"category_id": 7, "bbox": [1, 1, 2, 2]}]), "has None as 'image_id'"),
        (coco(annotations=[{"image_id": 0, "category_id": {}, "bbox": [1, 1, 2, 2]}]), "has {} as 'category_id'"),
        (coco(annotations=[{"image_id": 99, "category_id": 7}]), "1 boxes of image 99, which is not listed"),
        (coco(images=[{"id": 0, "file_name": "../a.png"}]), "has the file name '../a.png', expected one inside"),
        (coco(images=[{"id": 0, "file_name": "/etc/passwd"}]), "has the file name '/etc/passwd'"),
        (coco(images=[{"id": 0, "file_name": "C:\\a.png"}]), "has the file name 'C:"),
        (coco(images=[{"id": 0, "file_name": 3}]), "has the file name 3"),
        (coco(images=[{"id": 0, "file_name": "a\ud800.png"}]), "has the file name 'a.ud800.png'"),
        (coco(images=[{"id": 0, "file_name": "a\n.png"}]), "has the file name 'a.n.png'"),
        (coco(images=[{"id": 0, "file_name": "a\0.png"}]), "has the file name 'a.x00.png'"),
        (coco(images=[{"id": 0, "file_name": "gone.png"}]), "there is no such file"),
        (coco(images=[{"id": 0, "file_name": "a.png", "height": 1, "width": 2}]), "states 2×1 pixels for a.png"),
    ],
    ids=range(20),
)
def test_json_that_is_not_coco_s_is_named(tmp_path, content, message):
    for name in "ab":
        save_image(tmp_path / f"{name}.png")
    make_coco(tmp_path, content, images="there")
    with pytest.raises(DataError, match=message) as caught:
        data.load_test(tmp_path)
    assert isinstance(caught.value, NumpyvitError) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"bbox": [1, 1, 0, 5]}, r"has no area \(1, 1, 1, 6\)"),
        ({"bbox": [1, 1, 5]}, "has no four finite numbers"),
        ({"bbox": None}, "has no four finite numbers"),
        ({"bbox": [1, 1, float("inf"), 5]}, "has no four finite numbers"),
        ({"bbox": [1, 1, 10**400, 5]}, "has no four finite numbers"),
        ({"bbox": [float("inf"), 1, 3, 5]}, "has no four finite numbers"),
        ({"bbox": [[], 1, 3, 5]}, "has no four finite numbers"),
        ({"category_id": 70}, "is of the unknown class ''"),
    ],
)
def test_boxes_in_json_that_cannot_be_are_left_out_and_named(tmp_path, change, reason):
    content = coco("a")
    content["annotations"][1].update(change)
    with pytest.warns(UserWarning, match=rf"annotations\.json, image 0: box 2 {reason}"):
        assert boxes_of(data.load_test(make_coco(tmp_path, content))) == SQUARES[:1]


def test_an_area_that_is_not_stated_is_that_of_the_box_within_the_image(tmp_path):
    content = coco("a")
    content["annotations"][0].update(area=float("nan"), bbox=[1e308, 5, -1e308, 5])
    content["annotations"][1].update(bbox=[-10, 10, 1e308, 1e308])
    del content["annotations"][1]["area"]
    with pytest.warns(UserWarning, match="left out 1 of 2 boxes"):
        (target,) = data.load_test(make_coco(tmp_path, content)).targets([0])
    assert target["area"].tolist() == [20 * 40]


@pytest.mark.parametrize("seed", range(4))
def test_changed_annotations_load_or_are_refused(tmp_path, seed):
    """Bytes changed, cut or doubled at random: never an error of another kind."""
    rng = np.random.default_rng(seed)
    make_voc(tmp_path / "voc", FIVE)
    make_coco(tmp_path / "coco", coco("ab"))
    for path in (tmp_path / "voc" / "Annotations" / "b.xml", tmp_path / "coco" / "annotations.json"):
        original = path.read_bytes()
        for _ in range(60):
            content = bytearray(original)
            for place in rng.integers(0, len(content), rng.integers(1, 6)):
                content[place] = rng.choice(list(b'<>"[]{},:0-1e9 &x\xff'))
            path.write_bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)
                try:
                    data.load_test(tmp_path / path.relative_to(tmp_path).parts[0]).targets([0])
                except DataError as error:
                    assert "\n" not in str(error)


# ---- real labels ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not BCCD.is_dir(), reason="needs the blood cells")
def test_the_blood_cells_load_but_for_two_boxes_without_area():
    with pytest.warns(UserWarning, match="left out 2 of 4,888 boxes: .*00343.*00338"):
        parts = data.load_detection(BCCD, img_size=160)
    assert [len(parts[part]) for part in ("train", "val", "test")] == [205, 87, 72]
    assert parts["train"].classes == ("Platelets", "RBC", "WBC")
    targets = [target for part in parts.values() for target in part.targets(np.arange(len(part)))]
    counts = np.bincount(np.concatenate([target["labels"] for target in targets]))
    assert counts.sum() == 4886 and counts[2] == 372 and counts[0] == 361
    boxes = np.concatenate([target["boxes"] for target in targets])
    assert (boxes[:, 2:] > 0).all() and (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-6).all()
    assert parts["test"].batch([0, 1])[0].shape == (2, 3, 160, 213)
