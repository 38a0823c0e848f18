"""Boxes: their overlaps and the gradients of these, also where boxes have no area."""

import pathlib
import re

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.backend import to_host


def boxes(rng, *shape):
    """Corners of boxes in 0..1 with area."""
    low, size = rng.random((*shape, 2)) * 0.6, 0.05 + rng.random((*shape, 2)) * 0.3
    return np.concatenate([low, low + size], axis=-1)


class GIoU(nv.Layer):
    """generalized_iou of two arrays of boxes, as a layer for gradcheck."""

    def forward(self, a, b, tape=nv.FORGET):
        tape.push(self, a, b)
        return F.generalized_iou(a, b)

    def backward(self, dy, tape):
        a, b = tape.pop(self)
        return F.generalized_iou_backward(dy, a, b), F.generalized_iou_backward(dy, b, a)


class Corners(nv.Layer):
    def forward(self, x, tape=nv.FORGET):
        return F.box_cxcywh_to_xyxy(x)

    def backward(self, dy, tape):
        return F.box_cxcywh_to_xyxy_backward(dy)


def test_known_overlaps():
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 4, 4], [0, 0, 1, 1.0]])
    b = np.array([[1, 1, 3, 3], [0, 0, 1, 1], [1, 1, 3, 3], [2, 0, 3, 1.0]])
    np.testing.assert_allclose(F.iou(a, b), [1 / 7, 1, 1 / 4, 0])
    np.testing.assert_allclose(F.generalized_iou(a, b), [1 / 7 - 2 / 9, 1, 1 / 4, -1 / 3])


def test_center_and_size_are_the_corners_and_back(rng):
    corners = boxes(rng, 5, 3)
    np.testing.assert_allclose(F.box_cxcywh_to_xyxy(F.box_xyxy_to_cxcywh(corners)), corners, rtol=1e-12)
    np.testing.assert_array_equal(F.box_cxcywh_to_xyxy(np.array([3.0, 4, 2, 6])), [2, 1, 4, 7])
    nv.testing.gradcheck(Corners(), corners, rtol=1e-8)


def test_all_pairs_are_the_single_ones(rng):
    a, b = boxes(rng, 4), boxes(rng, 3)
    for overlap in (F.iou, F.generalized_iou):
        pairs = overlap(a[:, None], b)
        assert pairs.shape == (4, 3)
        np.testing.assert_array_equal(pairs[2, 1], overlap(a[2], b[1]))


def test_the_gradient_agrees_with_differences(rng):
    a, b = boxes(rng, 40), boxes(rng, 40)
    overlap = F.iou(a, b)
    assert (overlap > 0).any() and (overlap == 0).any(), "the boxes must show both cases"
    nv.testing.gradcheck(GIoU(), a, b, rtol=1e-7)


@pytest.mark.parametrize(
    "a, b",
    [
        ([0.2, 0.2, 0.6, 0.9], [0.3, 0.4, 0.5, 0.6]),  # one inside the other
        ([0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.7]),  # far apart
        ([0.1, 0.1, 0.4, 0.9], [0.2, 0.0, 0.9, 0.3]),  # across a corner
    ],
)
def test_the_gradient_of_each_corner_agrees_with_differences(a, b):
    a, b, eps = np.array(a), np.array(b), 1e-6
    gradient = F.generalized_iou_backward(np.array(1.0), a, b)
    for i in range(4):
        step = eps * np.eye(4)[i]
        difference = (F.generalized_iou(a + step, b) - F.generalized_iou(a - step, b)) / (2 * eps)
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-6, atol=1e-8)


_POINT, _LINE, _BOX, _TURNED = [0.5, 0.5, 0.5, 0.5], [0.1, 0.5, 0.9, 0.5], [0.2, 0.2, 0.4, 0.4], [0.6, 0.6, 0.3, 0.2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("a", [_POINT, _LINE, _BOX, _TURNED], ids=["point", "line", "box", "turned"])
@pytest.mark.parametrize("b", [_POINT, _LINE, _BOX, _TURNED], ids=["point", "line", "box", "turned"])
def test_boxes_without_area_have_finite_overlaps_and_gradients(a, b, dtype):
    a, b = np.array([a], dtype), np.array([b], dtype)
    overlap, generalized = F.iou(a, b), F.generalized_iou(a, b)
    gradient = F.generalized_iou_backward(np.ones(1, dtype), a, b)
    assert overlap.dtype == generalized.dtype == gradient.dtype == dtype
    assert 0 <= overlap <= 1 and -1 <= generalized <= 1 and np.isfinite(gradient).all()


def test_equal_boxes_have_the_gradient_between_larger_and_smaller():
    box = np.array([0.2, 0.2, 0.6, 0.6])
    gradient = F.generalized_iou_backward(np.array(1.0), box, box)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)  # growing and shrinking lose alike


def test_where_two_sides_are_equal_the_gradient_is_the_mean_of_both_slopes():
    a, b, eps = np.array([0.2, 0.2, 0.6, 0.6]), np.array([0.2, 0.3, 0.8, 0.6]), 1e-7
    gradient, here = F.generalized_iou_backward(np.array(1.0), a, b), F.generalized_iou(a, b)
    for i in range(4):
        step = eps * np.eye(4)[i]
        slopes = (F.generalized_iou(a + step, b) - here) / eps, (here - F.generalized_iou(a - step, b)) / eps
        np.testing.assert_allclose(gradient[i], np.mean(slopes), atol=1e-5)
        assert (abs(slopes[0] - slopes[1]) > 0.1) == (i in (0, 3))


def test_other_array_modules_agree(rng, xp):
    a, b, dy = boxes(rng, 7), boxes(rng, 7), rng.standard_normal(7)
    there = F.generalized_iou_backward(*map(xp.asarray, (dy, a, b)))
    np.testing.assert_allclose(to_host(there), F.generalized_iou_backward(dy, a, b), rtol=1e-12)
    np.testing.assert_allclose(to_host(F.generalized_iou(xp.asarray(a), xp.asarray(b))), F.generalized_iou(a, b))


def test_the_page_runs_as_printed():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "giou.md").read_text()
    blocks, names = re.findall(r"^```python\n(?!# numpyvit/)(.*?)^```$", page, re.M | re.S), {}
    for block in blocks:
        exec(compile(block, "giou.md", "exec"), names)
    assert np.round(names["gradient"], 2).tolist() == [0.47, -1.26, 1.4, -0.76]  # as the text says
