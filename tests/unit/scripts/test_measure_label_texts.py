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
    assert script.area_under_curve(SCORES[:, 0], TRUTH[:, 0]) == 1
    assert script.area_under_curve(worse[:, 1], TRUTH[:, 1]) == 0.5
