"""Figures of classifiers: which classes are mixed up, and whether a model is right as often as it says."""

import numpy as np
import pytest

from numpyvit.metrics import confusion_matrix, precision_recall_f1, reliability

LABELS, PREDICTED = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 1])


def test_rows_of_the_confusion_matrix_are_true_classes_and_columns_predicted_ones():
    assert confusion_matrix(LABELS, PREDICTED, 4).tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0] * 4]


def test_precision_recall_and_f1_by_hand():
    """Class 2 is never predicted and class 3 does not occur."""
    precision, recall, f1 = precision_recall_f1(confusion_matrix(LABELS, PREDICTED, 4))
    np.testing.assert_allclose(precision, [1 / 2, 1 / 4, np.nan, np.nan])
    np.testing.assert_allclose(recall, [1 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(f1, [2 / 5, 1 / 3, 0, np.nan])
    harmonic = 2 * precision[0] * recall[0] / (precision[0] + recall[0])
    assert f1[0] == pytest.approx(harmonic)


def test_the_calibration_error_by_hand():
    """Two bins of ten: .9 with one of two right, .55 with one of one; an edge belongs to the bin below it."""
    diagram = reliability(np.array([0.9, 0.85, 0.55]), np.array([True, False, True]), bins=10)
    assert diagram.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 0]
    assert diagram.accuracy[8] == 0.5 and diagram.confidence[8] == pytest.approx(0.875) and diagram.accuracy[5] == 1
    assert np.isnan(diagram.accuracy[0])
    assert diagram.error == pytest.approx(2 / 3 * 0.375 + 1 / 3 * 0.45)


def test_a_model_that_is_right_as_often_as_it_says_has_no_calibration_error(rng):
    probability = rng.uniform(0.2, 1, 200_000)
    honest = reliability(probability, rng.random(200_000) < probability)
    boastful = reliability(probability, rng.random(200_000) < probability - 0.2)
    assert honest.error < 0.01 and boastful.error == pytest.approx(0.2, abs=0.01)


def test_every_probability_has_a_bin_and_no_images_no_error():
    assert reliability(np.array([0.0, 1.0]), np.array([True, True])).counts.sum() == 2
    assert np.isnan(reliability(np.empty(0), np.empty(0, bool)).error)
