import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import f1_score

from beam_jobs.contract.errors import UserError
from trainer.metrics import classification, thresholds
from trainer.metrics.thresholds import Thresholds, tune

BINS = classification.NUM_BINS + 1


def histogram_of(labels, scores):
    return classification.score_histogram(
        labels.astype(np.float32), scores.astype(np.float32), np.ones(len(labels), np.float32)
    ).numpy()


def nearest_best(f1_at, anchor):
    """Brute force over all thresholds, by the documented rule."""
    best = max(f1_at)
    return min((k for k in range(BINS) if f1_at[k] == best), key=lambda k: (abs(k - anchor), k))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.sampled_from([1, 3]))
def test_tuned_thresholds_equal_brute_force_over_all_thresholds(seed, min_positives, decimals):
    random = np.random.default_rng(seed)
    labels = random.random((25, 4)) < [0.5, 0.2, 0.05, 0]
    scores = np.round(np.clip(random.random((25, 4)) * 0.7 + 0.3 * labels, 0, 1), decimals).astype(
        np.float32
    )
    tuned = tune(histogram_of(labels, scores), min_positives=min_positives)

    decided = classification.decide(scores, np.arange(BINS)[:, None, None]).numpy()
    micro = [2 * (d & labels).sum() / max(d.sum() + labels.sum(), 1) for d in decided]
    assert tuned.global_bin == nearest_best(micro, classification.NUM_BINS // 2)
    assert micro[tuned.global_bin] == pytest.approx(
        f1_score(
            labels,
            classification.decide(scores, tuned.global_bin),
            average="micro",
            zero_division=0,
        )
    )
    for label in range(4):
        positives = labels[:, label].sum()
        own = [
            2 * (d & labels)[:, label].sum() / max(d[:, label].sum() + positives, 1)
            for d in decided
        ]
        is_own = positives >= min_positives and max(own) >= thresholds.MIN_F1
        expected = nearest_best(own, tuned.global_bin) if is_own else tuned.global_bin
        assert tuned.per_label_bins[label] == expected


def test_label_with_one_positive_too_few_takes_the_global_threshold():
    histogram = np.zeros((2, 2, BINS), np.int64)
    histogram[1, 0, 800], histogram[0, 0, 799] = 100, 1000
    histogram[1, 1, 300], histogram[0, 1, 200] = 9, 50
    assert tune(histogram, min_positives=10).per_label_bins == (800, 800)
    histogram[1, 1, 300] = 10
    # 201 to 300 are equally good for the second label; 300 is the nearest to the global one.
    assert tune(histogram, min_positives=10) == Thresholds(
        global_bin=800, per_label_bins=(800, 300)
    )


def test_a_label_that_is_not_learned_takes_the_global_threshold():
    histogram = np.zeros((2, 2, BINS), np.int64)
    histogram[1, 0, 800], histogram[0, 0, 100] = 100, 2000
    histogram[:, 1, 0] = 2000, 100  # F1 0.095 at threshold 0, which every document reaches
    assert tune(histogram).per_label_bins == (tune(histogram).global_bin,) * 2
    histogram[0, 1, 0] = 1000
    assert tune(histogram).per_label_bins[1] == 0


def test_top_k_is_the_number_of_labels_with_the_best_micro_f1():
    histogram = np.zeros((2, 5, BINS), np.int64)
    histogram[:, :, 0] = [[4] * 5, [6] * 5]  # 10 documents with 3 labels each
    # micro-F1 2 hits / (10 k + 30): 0.4, 0.6, 0.9, 0.83
    assert tune(histogram, hits=np.array([8, 15, 27, 29])).top_k == 3
    assert tune(histogram, hits=np.array([20, 20, 20, 20])).top_k == 1


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.5, 1, 4]))
def test_expected_f1_decisions_are_the_best_of_all_numbers_of_labels(seed, labels, sharpness):
    scores = (np.random.default_rng(seed).random((6, labels)) ** (1 / sharpness)).astype(np.float32)
    decided = thresholds.expected_f1_decisions(scores).numpy()
    for row, own in zip(scores.astype(np.float64), decided, strict=True):
        best = np.sort(row)[::-1]
        values = 2 * np.cumsum(best) / (np.arange(1, labels + 1) + row.sum())
        assert 2 * row[own].sum() / (own.sum() + row.sum()) == pytest.approx(values.max(), rel=1e-5)
        assert not own.all() or (row[own].min() >= values.max() / 2 - 1e-6)


def test_expected_f1_of_nothing_is_no_label():
    assert not thresholds.expected_f1_decisions(np.zeros((2, 3), np.float32)).numpy().any()


def test_micro_f1_and_label_errors_are_those_of_direct_decisions():
    random = np.random.default_rng(5)
    labels = random.random((200, 4)) < 0.3
    scores = np.clip(random.random((200, 4)) * 0.7 + 0.3 * labels, 0, 1).astype(np.float32)
    for bins in (64, 1024):
        histogram = classification.score_histogram(
            labels.astype(np.float32), scores, np.ones(200, np.float32), num_bins=bins
        ).numpy()
        tuned = tune(histogram)
        assert thresholds.micro_f1(histogram, tuned) == pytest.approx(
            f1_score(labels, classification.decide(scores, tuned.global_bin), average="micro")
        )
        wrong = classification.decide(scores, tuned.per_label_bins).numpy() != labels
        assert thresholds.label_errors(histogram, tuned).tolist() == wrong.sum(axis=0).tolist()


def test_half_stays_the_global_threshold_where_it_is_as_good_as_any():
    histogram = np.zeros((2, 1, BINS), np.int64)
    histogram[1, 0, 900], histogram[0, 0, 100] = 20, 20
    assert tune(histogram).global_threshold == 0.5


def test_of_two_equally_near_optima_the_lower_is_taken():
    histogram = np.zeros((2, 1, BINS), np.int64)
    histogram[1, 0, [412, 800]] = 1
    histogram[0, 0, 611] = 2
    f1 = classification.sweep(histogram.sum(axis=1))["f1"]
    assert f1[412] == f1[612] == 4 / 6 == f1.max() > f1[413:612].max()
    assert tune(histogram, min_positives=1) == Thresholds(global_bin=412, per_label_bins=(412,))


def test_empty_validation_split_gives_half_everywhere():
    tuned = tune(np.zeros((2, 3, BINS), np.int64), min_positives=0)
    assert (tuned.global_threshold, tuned.per_label_thresholds) == (0.5, (0.5, 0.5, 0.5))


def test_labels_are_tuned_alike_in_chunks_of_any_size(monkeypatch):
    random = np.random.default_rng(3)
    histogram = random.integers(0, 3, (2, 7, BINS))
    whole = tune(histogram)
    monkeypatch.setattr(thresholds, "_LABELS_AT_A_TIME", 3)
    assert tune(histogram) == whole
    assert len(set(whole.per_label_bins)) > 1


def test_thresholds_from_fewer_bins_are_counted_in_the_same_unit():
    histogram = np.zeros((2, 1, 65), np.int64)
    histogram[1, 0, 48], histogram[0, 0, 47] = 20, 30
    tuned = tune(histogram)
    assert tuned.global_threshold == tuned.per_label_thresholds[0] == 48 / 64
    assert classification.decide(
        np.array([[48 / 64], [48 / 64 - 1e-6]], np.float32), tuned.per_label_bins
    ).numpy().tolist() == [[True], [False]]


def test_json_round_trip():
    tuned = Thresholds(global_bin=384, per_label_bins=(0, 1, classification.NEVER))
    assert tuned.global_threshold == 0.375
    assert tuned.per_label_thresholds == (0.0, 1 / 1024, 1025 / 1024)
    assert Thresholds.from_json(json.loads(json.dumps(tuned.to_json())), num_labels=3) == tuned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"global_bin": 0.5},
            r"run/thresholds.json: global_bin: received 0.5 \(float\); expected a valid integer",
        ),
        ({"global_bin": -1}, r"global_bin: received -1 .*greater than or equal to 0"),
        (
            {"per_label_bins": [1, 1026]},
            r"per_label_bins.1: received 1026 .*less than or equal to 1025",
        ),
        (
            {"per_label_bins": [1]},
            r"received thresholds of 1 labels, expected 2: they belong to another dataset; run "
            r"the evaluation again",
        ),
        (
            {"num_bins": 100},
            r"num_bins: received 100 \(int\); expected 1024; tune the thresholds again",
        ),
        ({"gobal_bin": 1}, r"gobal_bin: unknown key; did you mean 'global_bin'\?"),
    ],
)
def test_nonsense_is_a_user_error_that_names_the_key(change, message):
    raw = Thresholds(global_bin=1, per_label_bins=(1, 2)).to_json() | change
    with pytest.raises(UserError, match=message):
        Thresholds.from_json(raw, num_labels=2, what="run/thresholds.json")


@pytest.mark.parametrize("raw", [None, [], "0.5", {}])
def test_something_else_is_a_user_error(raw):
    with pytest.raises(UserError, match="expected"):
        Thresholds.from_json(raw, num_labels=2)
