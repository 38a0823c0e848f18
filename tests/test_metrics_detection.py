"""COCO's figures: by hand in small cases, as pycocotools and faster-coco-eval count them in hundreds of random ones."""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys

import numpy as np
import pytest
from detection_cases import random_case

from numpyvit.errors import InputError, ShapeError
from numpyvit.metrics import (
    flatten_detections,
    precision_curves,
    score_by_class,
    score_detections,
    to_pixels,
    unflatten_detections,
)

NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
NAMES += ["AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"]
GOLDEN = pathlib.Path(__file__).parent / "golden" / "coco_figures.json"


@pytest.fixture
def plain(monkeypatch):
    """The extra is not installed."""
    find_spec = importlib.util.find_spec
    absent = lambda name, *rest: None if name == "faster_coco_eval" else find_spec(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)


def target(*boxes, labels=None, size=(100, 100), **more):
    """A target from boxes (left, top, right, bottom) in pixels."""
    boxes = np.array(boxes, float).reshape(-1, 4)
    places = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
    return {"labels": labels, "boxes": places / np.tile(size[::-1], 2), "size": size, **more}


def found(*boxes, scores, labels=None):
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
    return {"scores": np.array(scores, float), "labels": labels, "boxes": np.array(boxes, float).reshape(-1, 4)}


def same(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name] is None) == (b[name] is None), name
        assert a[name] is None or abs(a[name] - b[name]) <= tolerance, name


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_finding_everything_scores_one_and_nothing_zero(plain):
    truth = [target((10, 10, 50, 50), (40, 40, 90, 90), labels=[0, 3])]
    right = found((10, 10, 50, 50), (40, 40, 90, 90), scores=[0.5, 0.6], labels=[0, 3])
    assert {k for k, v in score_detections([right], truth).items() if v == 1} == {
        *("AP", "AP50", "AP75", "AP_medium", "AR_1", "AR_10", "AR_100", "AR_medium")
    }
    none = score_detections([found(scores=[])], truth)
    assert none["AP"] == none["AP50"] == none["AR_100"] == 0 and none["AP_large"] is None


def test_what_cannot_be_counted_is_none(plain):
    for predictions, truth in (([], []), ([found((1, 1, 9, 9), scores=[1])], [target()])):
        assert set(score_detections(predictions, truth).values()) == {None}


def test_a_box_of_iou_six_tenths_counts_at_three_of_ten_thresholds(plain):
    figures = score_detections([found((0, 0, 100, 60), scores=[1])], [target((0, 0, 100, 100.0001))])
    assert figures["AP50"] == 1 and figures["AP75"] == 0
    assert figures["AP"] == pytest.approx(0.2)  # .50 and .55: the intersection is a little below .60


def test_a_false_box_of_higher_score_halves_the_precision(plain):
    predictions = [found((60, 60, 90, 90), (0, 0, 40, 40), scores=[0.9, 0.8])]
    assert score_detections(predictions, [target((0, 0, 40, 40))])["AP"] == pytest.approx(0.5)
    predictions[0]["scores"] = np.array([0.7, 0.8])
    assert score_detections(predictions, [target((0, 0, 40, 40))])["AP"] == 1


def test_the_precision_curve_of_each_label(plain, rng):
    """By hand for label 0: right, wrong, right. Label 2 has nothing to be found."""
    boxes = [(0, 0, 40, 40), (60, 60, 90, 90), (50, 0, 90, 40)]
    predictions = [found(*boxes, scores=[0.9, 0.8, 0.7]), found((0, 0, 9, 9), scores=[1], labels=[2])]
    truth = [target(boxes[0], boxes[2]), target((0, 0, 40, 40), labels=[1])]
    curves = precision_curves(predictions, truth)
    assert set(curves) == {0, 1} and not curves[1].any()
    np.testing.assert_allclose(curves[0][0], [1] * 51 + [2 / 3] * 50)
    predictions, truth = random_case(rng)
    curves, figures = (
        np.array(list(precision_curves(predictions, truth).values())),
        score_detections(predictions, truth),
    )
    assert curves[:, 0].mean() == pytest.approx(figures["AP50"]) and curves.mean() == pytest.approx(figures["AP"])


def test_flat_arrays_hold_all_that_the_score_reads(plain, rng):
    """Images without boxes at the beginning, in the middle and at the end keep their places."""
    predictions, truth = random_case(rng)
    nothing = (found(scores=[]), target(size=(7, 9)))
    pair = enumerate((predictions, truth))
    predictions, truth = ([nothing[i], *images, nothing[i], *images[:2], nothing[i]] for i, images in pair)
    again = unflatten_detections(flatten_detections(predictions, truth))
    assert score_detections(*again) == score_detections(predictions, truth)
    assert [len(image["labels"]) for image in again[0]] == [len(image["labels"]) for image in predictions]
    assert again[1][0]["size"] == (7, 9)


def test_a_box_found_twice_is_wrong_the_second_time(plain):
    twice = found((0, 0, 40, 40), (0, 0, 40, 39), (60, 60, 90, 90), scores=[0.9, 0.8, 0.7])
    figures = score_detections([twice], [target((0, 0, 40, 40), (60, 60, 90, 90))])
    at_recalls = np.where(np.arange(101) <= 50, 1, 2 / 3)
    assert figures["AP"] == pytest.approx(at_recalls.mean())


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong(plain):
    truth = target((0, 0, 80, 80), (85, 85, 99, 99), iscrowd=np.array([True, False]))
    inside = found((5, 5, 20, 20), (30, 30, 60, 60), (85, 85, 99, 99), scores=[0.9, 0.8, 0.7])
    assert score_detections([inside], [truth])["AP"] == 1
    truth["iscrowd"][:] = False
    assert score_detections([inside], [truth])["AP"] < 0.2


def test_a_box_that_counts_goes_before_a_nearer_crowd(plain):
    truth = target((0, 0, 40, 40), (0, 0, 40, 50), iscrowd=np.array([False, True]))
    figures = score_detections([found((0, 0, 40, 48), scores=[1])], [truth])
    assert figures["AP50"] == figures["AP75"] == 1


def test_of_two_boxes_equally_near_the_later_is_taken_as_in_pycocotools(plain):
    truth = target((0, 0, 40, 40), (20, 0, 60, 40))
    between = found((10, 0, 50, 40), (20, 0, 60, 40), scores=[0.9, 0.8])
    assert score_detections([between], [truth])["AP50"] == pytest.approx(51 / 101)
    between = found((10, 0, 50, 40), (0, 0, 40, 40), scores=[0.9, 0.8])
    assert score_detections([between], [truth])["AP50"] == 1


def test_stated_areas_decide_what_is_small(plain):
    truth = target((0, 0, 50, 50), area=np.array([900.0]))
    figures = score_detections([found((0, 0, 50, 50), scores=[1])], [truth])
    assert figures["AP_small"] == 1 and figures["AP_medium"] is None


def test_figures_of_single_classes_have_the_figures_of_all_as_their_mean(plain):
    predictions, targets = random_case(np.random.default_rng(3), images=20)
    single, together = score_by_class(predictions, targets), score_detections(predictions, targets)
    assert list(single) == [0, 1, 2, 3]
    for name in ("AP", "AP50", "AR_100"):
        assert np.mean([figures[name] for figures in single.values()]) == pytest.approx(together[name], abs=1e-12)
    crowd = sum(target["iscrowd"].sum() for target in targets)
    boxes = sum(len(target["labels"]) for target in targets)
    assert sum(figures["boxes"] for figures in single.values()) == boxes - crowd > 0


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"scores": np.ones((1, 1))}, ShapeError, r"prediction 0 has scores \(1, 1\)"),
        ({"boxes": np.ones(4)}, ShapeError, r"boxes \(4,\), expected"),
        ({"scores": np.array([np.nan])}, InputError, "prediction 0 .*not finite"),
        ({"boxes": np.full((1, 4), np.inf)}, InputError, "not finite"),
    ],
)
def test_predictions_of_another_form_are_named(change, error, message):
    with pytest.raises(error, match=message):
        score_detections([{**found((0, 0, 1, 1), scores=[1]), **change}], [target()])
    with pytest.raises(ShapeError, match="0 predictions for 1 targets"):
        score_detections([], [target()])


def test_boxes_in_pixels_are_corners():
    assert to_pixels([[0.5, 0.5, 0.5, 1]], (10, 40)).tolist() == [[10, 0, 30, 10]]


# ---- as others count ------------------------------------------------------------------------------------------------


def test_the_figures_are_those_that_pycocotools_gave(plain):
    for case in json.loads(GOLDEN.read_text()):
        same(score_detections(*random_case(np.random.default_rng(case["seed"]))), case["figures"], 1e-9)


def pycocotools_figures(predictions, targets):
    """COCOeval's own summary of the same boxes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotations(image, labels, boxes, **more):
        rows = zip(labels.tolist(), boxes, *more.values())
        for label, (left, top, right, bottom), *values in rows:
            box = [left, top, right - left, bottom - top]
            yield {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0} | {
                key: value for key, value in zip(more, values)
            }

    true, boxes = [], []
    for image, (prediction, truth) in enumerate(zip(predictions, targets)):
        more = {key: truth[key].tolist() for key in ("iscrowd", "area") if key in truth}
        true += annotations(image, truth["labels"], to_pixels(truth["boxes"], truth["size"]), **more)
        boxes += annotations(image, prediction["labels"], prediction["boxes"], score=prediction["scores"].tolist())
    with contextlib.redirect_stdout(io.StringIO()):
        sets = [COCO(), COCO()]
        for coco, rows in zip(sets, (true, boxes)):
            coco.dataset = {
                "images": [{"id": i} for i in range(len(targets))],
                "categories": [{"id": label} for label in range(4)],
                "annotations": [{"id": i + 1, **row} for i, row in enumerate(rows)],
            }
            coco.createIndex()
        evaluation = COCOeval(*sets, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(NAMES, evaluation.stats)}


@pytest.mark.parity
@pytest.mark.parametrize("seeds", [range(0, 60), range(60, 120), range(120, 180), range(180, 240)])
def test_the_figures_equal_pycocotools(plain, seeds):
    pytest.importorskip("pycocotools")
    for seed in seeds:
        case = random_case(np.random.default_rng(seed))
        same(score_detections(*case), pycocotools_figures(*case), 1e-6)


@pytest.mark.parity
def test_the_extra_gives_the_same_figures(request):
    pytest.importorskip("faster_coco_eval")
    cases = [random_case(np.random.default_rng(seed)) for seed in range(300, 400)]
    cases += [([], []), ([found(scores=[])], [target()])]
    with_extra = [score_detections(*case) for case in cases]
    assert "numpyvit.metrics.faster" in sys.modules
    request.getfixturevalue("plain")
    for case, figures in zip(cases, with_extra):
        same(score_detections(*case), figures, 1e-6)
