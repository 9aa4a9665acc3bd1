import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from trainer.metrics import score_histograms

properties = settings(max_examples=25)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@st.composite
def scored(draw):
    """labels bool [B, L] and log-odds float32 [B, L], some alike, some beyond the bins."""
    documents, labels = draw(st.integers(1, 60)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = random.random((documents, labels)) < draw(st.sampled_from([0.05, 0.3, 1.0]))
    log_odds = random.normal(-3, draw(st.sampled_from([0.1, 2, 20])), y.shape) + 2 * y
    return y, log_odds.astype(np.float32)


def histogram_of(y, log_odds, num_bins=512):
    return score_histograms.log_odds_histogram(
        y, log_odds, np.ones(len(y), np.float32), num_bins=num_bins
    ).numpy()


def test_the_pooled_histogram_is_the_sum_over_labels():
    random = np.random.default_rng(0)
    y = (random.random((7, 5)) < 0.3).astype(np.float32)
    log_odds = random.normal(0, 20, (7, 5)).astype(np.float32)
    log_odds[0, :3] = np.nan, np.inf, -np.inf
    mask = np.array([1, 1, 0, 1, 1, 0, 1], np.float32)
    pooled = score_histograms.pooled_log_odds_histogram(y, log_odds, mask, num_bins=64).numpy()
    by_label = score_histograms.log_odds_histogram(y, log_odds, mask, num_bins=64).numpy()
    np.testing.assert_array_equal(pooled, by_label.sum(axis=1))
    assert pooled.sum() == 5 * 5


def ece(y, scores):
    """The definition, over all pairs."""
    y, scores = y.ravel(), scores.ravel()
    cells = np.minimum(
        (scores * score_histograms.ECE_BINS).astype(int),
        score_histograms.ECE_BINS - 1,
    )
    return sum(
        abs((y[cells == c] - scores[cells == c]).sum()) for c in range(score_histograms.ECE_BINS)
    ) / len(y)


@properties
@given(scored(), st.sampled_from([32, 512]))
def test_auc_and_average_precision_equal_scikit_learn_within_the_stated_error(batch, num_bins):
    y, log_odds = batch
    histogram = histogram_of(y, log_odds, num_bins)
    for function, reference, defined in (
        (score_histograms.roc_auc, roc_auc_score, y.any(axis=0) & ~y.all(axis=0)),
        (score_histograms.average_precision, average_precision_score, y.any(axis=0)),
    ):
        values, errors = function(histogram)
        assert (np.isnan(values) == ~defined).all()
        for label in np.flatnonzero(defined):
            assert (
                abs(values[label] - reference(y[:, label], log_odds[:, label]))
                <= errors[label] + 1e-9
            )


@properties
@given(scored())
def test_auc_and_average_precision_equal_scikit_learn_exactly_on_scores_put_in_bins(batch):
    y, log_odds = batch
    binned = np.clip(np.floor((log_odds + 16) * 16), 0, 511)
    auc, precision = (
        score_histograms.roc_auc(histogram_of(y, log_odds))[0],
        score_histograms.average_precision(histogram_of(y, log_odds))[0],
    )
    for label in np.flatnonzero(y.any(axis=0)):
        assert precision[label] == pytest.approx(
            average_precision_score(y[:, label], binned[:, label])
        )
        if not y[:, label].all():
            assert auc[label] == pytest.approx(roc_auc_score(y[:, label], binned[:, label]))


def test_the_bin_error_is_small_where_scores_are_spread():
    random = np.random.default_rng(0)
    y = random.random((20_000, 2)) < 0.05
    histogram = histogram_of(y, (random.normal(-4, 2, y.shape) + 2 * y).astype(np.float32))
    assert score_histograms.roc_auc(histogram)[1].max() < 0.006
    assert score_histograms.average_precision(histogram)[1].max() < 0.02


@properties
@given(scored())
def test_calibration_error_equals_its_definition_within_the_stated_error(batch):
    y, log_odds = batch
    histogram = histogram_of(y, log_odds)
    pooled = score_histograms.expected_calibration_error(histogram.sum(axis=1))
    assert abs(pooled["ece"] - ece(y, sigmoid(log_odds))) <= pooled["ece_error"] + 1e-9
    assert sum(row["count"] for row in pooled["bins"]) == y.size
    middles = sigmoid(
        score_histograms.bin_centers(512)[
            np.clip(np.floor((log_odds + 16) * 16), 0, 511).astype(int)
        ]
    )
    assert pooled["ece"] == pytest.approx(ece(y, middles))
    each = score_histograms.per_label_calibration_error(histogram)
    np.testing.assert_allclose(
        each,
        [
            score_histograms.expected_calibration_error(histogram[:, label])["ece"]
            for label in range(y.shape[1])
        ],
    )


def test_scores_that_are_the_frequencies_have_a_small_calibration_error_and_others_a_large_one():
    random = np.random.default_rng(1)
    log_odds = random.normal(-1, 2, (50_000, 1)).astype(np.float32)
    y = random.random(log_odds.shape) < sigmoid(log_odds)
    assert (
        score_histograms.expected_calibration_error(histogram_of(y, log_odds)[:, 0])["ece"] < 0.01
    )
    assert (
        score_histograms.expected_calibration_error(histogram_of(y, log_odds * 3)[:, 0])["ece"]
        > 0.05
    )


def test_no_number_falls_in_the_first_bin_and_far_log_odds_in_the_outer_ones():
    histogram = histogram_of(
        np.zeros((1, 5), bool), np.array([[np.nan, -1e30, np.inf, 16.0, 15.99]], np.float32)
    )
    assert histogram[0].argmax(axis=-1).tolist() == [0, 0, 511, 511, 511]
    assert histogram.sum() == 5


def test_labels_in_parts_give_what_all_at_once_give(monkeypatch):
    histogram = np.random.default_rng(3).integers(0, 5, (2, 7, 64))
    whole = [score_histograms.roc_auc(histogram), score_histograms.average_precision(histogram)]
    monkeypatch.setattr(score_histograms, "_LABELS_AT_A_TIME", 3)
    np.testing.assert_array_equal(
        whole, [score_histograms.roc_auc(histogram), score_histograms.average_precision(histogram)]
    )
