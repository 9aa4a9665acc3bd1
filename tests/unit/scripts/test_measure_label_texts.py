"""The figures of labels' texts, on a few scores."""

import numpy as np
import pytest

from tests.scripts import load_script

SCORES = np.array([[3.0, -1.0], [2.0, 1.0], [-2.0, 0.5]])
TRUTH = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])


def test_f1_is_that_of_the_best_threshold_and_area_that_of_pairs_in_order():
    script = load_script("measure_label_texts")
    assert script.best_f1(SCORES, TRUTH) == pytest.approx((1.0, 1.0))
    worse = SCORES.copy()
    worse[2, 1] = 1.5  # above the label's one positive
    micro, macro = script.best_f1(worse, TRUTH)
    assert micro == pytest.approx(6 / 7) and macro == pytest.approx((1 + 2 / 3) / 2)
    assert script.area(SCORES, TRUTH) == 1
    assert script.area(worse, TRUTH) == 0.75  # of 1 and 0.5
    truth = TRUTH * [1, 0]  # the mean is over labels that occur
    assert script.area(worse, truth) == 1


def test_a_layer_without_documents_scores_by_the_directions_of_the_labels_texts():
    script = load_script("measure_label_texts")
    labels = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    sample = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)  # its mean is 2 in the first
    logits = script.without_documents(labels, sample, np.array([[2.0, 0.0], [4.0, 9.0]]))
    np.testing.assert_allclose(logits[0], [0, 0], atol=1e-6)
    assert logits[1, 0] == -logits[1, 1] > 0
