"""Images with their boxes: each where it belongs, in its class's color, with a tag that is on the image."""

import numpy as np
import pytest
from PIL import Image

from numpyvit.errors import ShapeError
from numpyvit.viz import draw_boxes, with_boxes

GRAY = np.full((3, 40, 80), 120, np.uint8)
CLASSES = ("cat", "dog", "a class with a very long name")
TRUE = {"labels": np.array([0]), "boxes": np.array([[0.5, 0.5, 0.5, 0.5]])}


def found(*boxes, labels=(1,), scores=(0.9,)):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return {"scores": np.array(scores)[: len(boxes)], "labels": np.array(labels)[: len(boxes)], "boxes": boxes}


def changed(image, **options):
    """Where a drawn image differs from one without boxes, (H, W) bool."""
    plain, drawn = (
        np.asarray(one).astype(int) for one in (with_boxes(image, CLASSES), with_boxes(image, CLASSES, **options))
    )
    assert plain.shape == drawn.shape
    return (plain != drawn).any(-1)


def extent(drawn):
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("least, expected", [(0.5, True), (0.95, False)])
def test_a_found_box_is_drawn_where_it_is_if_it_scores_enough(least, expected):
    drawn = changed(GRAY, found=found((20, 10, 60, 30)), least=least)  # six times as large on the tile
    assert drawn.any() == expected
    if expected:
        left, _, right, bottom = extent(drawn)
        assert abs(left - 120) <= 3 and abs(right - 360) <= 3 and abs(bottom - 180) <= 3
        assert not drawn[70:170, 130:350].any()  # nothing within


def test_boxes_in_pixels_of_the_original_are_brought_to_the_image():
    same = changed(GRAY, found=found((20, 10, 60, 30)))
    assert (changed(GRAY, found=found((200, 100, 600, 300)), size=(400, 800)) == same).all()


def test_true_boxes_are_dashed_at_the_same_place():
    true, solid = changed(GRAY, true=TRUE), changed(GRAY, found=found((20, 10, 60, 30)))
    assert extent(true[60:]) == extent(solid[60:])  # but for the tags
    assert 0.4 * solid[80:160].sum() < true[80:160].sum() < 0.9 * solid[80:160].sum()


def test_found_and_true_boxes_and_classes_differ_in_color():
    boxes = found((2, 10, 30, 38), (42, 10, 70, 38), labels=(0, 1), scores=(0.9, 0.9))
    tile = np.asarray(with_boxes(GRAY, CLASSES, boxes))
    first, second = tile[60:220, :186].reshape(-1, 3), tile[60:220, 246:426].reshape(-1, 3)
    colors = [{tuple(color) for color in part.tolist()} - {(120,) * 3, (0,) * 3} for part in (first, second)]
    assert colors[0] and colors[1] and not colors[0] & colors[1]
    with_both = np.asarray(with_boxes(GRAY, CLASSES, found(), TRUE))
    assert (with_both == 255).all(-1).any() and not (np.asarray(with_boxes(GRAY, CLASSES)) == 255).any()


@pytest.mark.parametrize("image", [GRAY * 0, GRAY * 0 + 255, GRAY[:1], GRAY[:, :5, :5], np.tile(GRAY, (1, 20, 10))])
@pytest.mark.parametrize(
    "share", [(0, 0, 1, 1), (0.9, 0, 1, 0.1), (0.95, 0.95, 1, 1), (0.5, 0.5, 0.5, 0.5), (-1, -1, 2, 2)]
)
def test_boxes_at_borders_and_of_any_size_are_drawn_on_any_image(image, share):
    height, width = image.shape[1:]
    box = np.array(share) * (width, height, width, height)
    drawn = changed(image, found=found(box, labels=[2]))
    assert drawn.any()
    if share[0] >= 0:
        left, top, right, bottom = extent(drawn)  # the tag's text is on the image
        assert right - left > 40 and bottom - top > 10


def test_a_sheet_holds_images_of_several_sizes(tmp_path):
    images = [GRAY, GRAY[:, :, :20], GRAY[:1]]
    three = [found((1, 1, 9, 9)), found(), found((1, 1, 9, 9), labels=[2])]
    draw_boxes(images, tmp_path / "sheet.png", CLASSES, found=three, true=[TRUE] * 3, title="after 3 epochs")
    draw_boxes(images[:1], tmp_path / "one.png", CLASSES, true=[TRUE])
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "one.png") as one:
        assert sheet.width > 3 * 480 and sheet.height > one.height and one.width == 480 + 24


def test_lists_of_different_length_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="1 images and 2 found"):
        draw_boxes([GRAY], tmp_path / "x.png", CLASSES, found=[found()] * 2)
    with pytest.raises(ShapeError, match="0 images"):
        draw_boxes([], tmp_path / "x.png", CLASSES, found=[])
    assert not (tmp_path / "x.png").exists()
