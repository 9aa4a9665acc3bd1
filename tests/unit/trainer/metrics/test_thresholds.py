import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import mannwhitneyu
from sklearn.metrics import f1_score

from beam_jobs.contract.errors import UserError
from tests.pair_matrices import matrix_of
from trainer.metrics import classification, ranking, thresholds
from trainer.metrics.thresholds import (
    ALL_AT_CHANCE,
    AT_CHANCE,
    LOW_F1,
    NEVER_TRAINED,
    NO_DOCUMENTS,
    NO_POSITIVES,
    OWN,
    TOO_FEW,
    TUNED,
    WITHHELD,
    Thresholds,
    tune,
)

BINS = classification.NUM_BINS + 1


def histogram_of(labels, scores):
    return classification.score_histogram(
        labels.astype(np.float32), scores.astype(np.float32), np.ones(len(labels), np.float32)
    ).numpy()


def nearest_best(f1_at, anchor):
    """Brute force over all thresholds, by the documented rule."""
    best = max(f1_at)
    return min((k for k in range(BINS) if f1_at[k] == best), key=lambda k: (abs(k - anchor), k))


def is_above_chance(labels, scores, level=0.05):
    """By scipy's test of Mann and Whitney, on the scores that thresholds tell apart."""
    if labels.all() or not labels.any():
        return False
    bins = np.floor(scores * classification.NUM_BINS)
    return (
        mannwhitneyu(
            bins[labels],
            bins[~labels],
            alternative="greater",
            method="asymptotic",
            use_continuity=False,
        ).pvalue
        < level
    )


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
    assert tuned.global_source == TUNED
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
        above_chance = is_above_chance(labels[:, label], scores[:, label])
        own_bin = nearest_best(own, tuned.global_bin)
        assigns_nearly_all = decided[own_bin][:, label].mean() > 0.95
        is_own = (
            positives >= min_positives
            and max(own) >= thresholds.MIN_F1
            and above_chance
            and not (
                assigns_nearly_all
                and not is_above_chance(labels[:, label], scores[:, label], level=1e-4)
            )
        )
        level = 1e-4 if 2 * positives < len(labels) else 0.05
        would_assign_all = decided[tuned.global_bin][:, label].all() and not is_above_chance(
            labels[:, label], scores[:, label], level=level
        )
        if would_assign_all and not labels[:, label].all():
            assert tuned.sources[label] == WITHHELD
            assert not decided[tuned.per_label_bins[label]][:, label].any()
            assert decided[tuned.per_label_bins[label] - 1][:, label].any()
            continue
        assert tuned.per_label_bins[label] == (own_bin if is_own else tuned.global_bin)
        assert (tuned.sources[label] == OWN) == is_own


def test_label_with_one_positive_too_few_takes_the_global_threshold():
    histogram = np.zeros((2, 2, BINS), np.int64)
    histogram[1, 0, 800], histogram[0, 0, 799] = 100, 1000
    histogram[1, 1, 300], histogram[0, 1, 200] = 9, 50
    assert tune(histogram, min_positives=10).per_label_bins == (800, 800)
    histogram[1, 1, 300] = 10
    # 201 to 300 are equally good for the second label; 300 is the nearest to the global one.
    assert tune(histogram, min_positives=10) == Thresholds(
        global_bin=800, per_label_bins=(800, 300), sources=(OWN, OWN)
    )


def test_a_label_that_is_not_learned_takes_the_global_threshold():
    histogram = np.zeros((2, 2, BINS), np.int64)
    histogram[1, 0, 800], histogram[0, 0, 100] = 100, 2000
    histogram[:, 1, 0] = 2000, 100  # F1 0.095 at threshold 0, which every document reaches
    tuned = tune(histogram)
    assert tuned.per_label_bins == (tuned.global_bin,) * 2
    assert tuned.sources == (OWN, AT_CHANCE)
    histogram[0, 1, 0] = 1000  # F1 0.18
    assert tune(histogram).sources == (OWN, AT_CHANCE)
    histogram[:, 1, :2] = [[1900, 100], [80, 20]]  # above chance, F1 0.17 at best
    assert tune(histogram).sources == (OWN, OWN)
    histogram[:, 1, :2] = [[10_000, 1000], [80, 20]]  # F1 0.035
    assert tune(histogram).sources == (OWN, LOW_F1)


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
    decided = matrix_of(thresholds.expected_f1_pairs(scores))
    for row, own in zip(scores.astype(np.float64), decided, strict=True):
        best = np.sort(row)[::-1]
        values = 2 * np.cumsum(best) / (np.arange(1, labels + 1) + row.sum())
        assert 2 * row[own].sum() / (own.sum() + row.sum()) == pytest.approx(values.max(), rel=1e-5)
        assert not own.all() or (row[own].min() >= values.max() / 2 - 1e-6)


@pytest.mark.parametrize("sharpness", [0.1, 8])
def test_expected_f1_is_the_same_with_few_labels_looked_at(sharpness, monkeypatch):
    scores = (np.random.default_rng(1).random((40, 30)) ** sharpness).astype(np.float32)
    is_assignable = np.arange(30) % 5 > 0
    decided, of_some = (
        matrix_of(thresholds.expected_f1_pairs(scores, chosen)) for chosen in (None, is_assignable)
    )
    monkeypatch.setattr(ranking, "NUM_BEST", 12)
    np.testing.assert_array_equal(matrix_of(thresholds.expected_f1_pairs(scores)), decided)
    np.testing.assert_array_equal(
        matrix_of(thresholds.expected_f1_pairs(scores, is_assignable)), of_some
    )
    np.testing.assert_array_equal(
        matrix_of(thresholds.expected_f1_pairs(scores[:, is_assignable])), of_some[:, is_assignable]
    )
    assert not of_some[:, ~is_assignable].any()
    assert (decided.sum(axis=1).max() > 12) == (sharpness < 1)


def test_expected_f1_of_nothing_is_no_label():
    assert not matrix_of(thresholds.expected_f1_pairs(np.zeros((2, 3), np.float32))).any()


def test_micro_f1_and_label_errors_are_those_of_direct_decisions():
    random = np.random.default_rng(5)
    labels = random.random((200, 4)) < 0.3
    scores = np.clip(random.random((200, 4)) * 0.7 + 0.3 * labels, 0, 1).astype(np.float32)
    for bins in (64, 1024):
        histogram = classification.score_histogram(
            labels.astype(np.float32), scores, np.ones(200, np.float32), num_bins=bins
        ).numpy()
        tuned = tune(histogram)
        assert thresholds.common_f1(histogram, tuned)["micro_f1"] == pytest.approx(
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
    histogram[0, 0, 100] = 20  # so that scores rank above chance
    assert tune(histogram, min_positives=1) == Thresholds(
        global_bin=412, per_label_bins=(412,), sources=(OWN,)
    )


def test_empty_validation_split_gives_half_everywhere():
    tuned = tune(np.zeros((2, 3, BINS), np.int64), min_positives=0)
    assert (tuned.global_threshold, tuned.per_label_thresholds) == (0.5, (0.5, 0.5, 0.5))
    assert tuned.global_source == NO_DOCUMENTS
    assert Thresholds.untuned(np.array([True, False])).per_label_bins == (
        512,
        classification.NEVER,
    )


def test_validation_without_positives_gives_half_and_withholds_what_all_documents_would_reach():
    histogram = np.zeros((2, 2, BINS), np.int64)
    histogram[0, 0, 700], histogram[0, 1, [100, 700]] = 50, 25
    tuned = tune(histogram)
    assert (tuned.global_bin, tuned.global_source) == (512, NO_POSITIVES)
    assert tuned.per_label_bins == (701, 512) == tuned.common_bins
    assert tuned.sources == (WITHHELD, TOO_FEW)
    assert thresholds.common_f1(histogram, tuned)["micro_f1"] == 0


@pytest.mark.parametrize("score", [0.0, 0.3, 0.75, 1.0])
def test_scores_that_are_all_the_same_give_half_and_no_label_to_every_document(score):
    labels = np.random.default_rng(1).random((200, 4)) < [0.02, 0.1, 0.4, 0.9]
    scores = np.full((200, 4), score, np.float32)
    tuned = tune(histogram_of(labels, scores))
    assert (tuned.global_threshold, tuned.global_source) == (0.5, ALL_AT_CHANCE)
    assert not classification.decide(scores, tuned.per_label_bins).numpy().any()
    assert set(tuned.sources) == ({WITHHELD} if score >= 0.5 else {TOO_FEW, AT_CHANCE})


def test_inverted_scores_give_no_threshold_that_assigns_to_every_document():
    labels = np.random.default_rng(2).random((300, 3)) < [0.5, 0.2, 0.3]
    scores = np.where(labels, 0.4, 0.6).astype(np.float32)
    scores[:, 2] = np.where(labels[:, 2], 0.9, 0.1)  # only this one ranks
    tuned = tune(histogram_of(labels, scores))
    assert tuned.sources[:2] != (OWN, OWN) and tuned.sources[2] == OWN
    decided = classification.decide(scores, tuned.per_label_bins).numpy()
    assert not decided.all(axis=0)[:2].any()
    assert (decided[:, 2] == labels[:, 2]).all()


def test_of_many_labels_with_random_scores_none_is_assigned_to_nearly_every_document():
    random = np.random.default_rng(6)
    labels = random.random((500, 400)) < np.linspace(0.05, 0.6, 400)
    scores = (0.3 * random.random((500, 400))).astype(np.float32)
    labels[:, :20] = random.random((500, 20)) < 0.2
    scores[:, :20] += 0.6 * labels[:, :20]
    tuned = tune(histogram_of(labels, scores))
    assert tuned.sources[:20] == (OWN,) * 20 and tuned.sources.count(AT_CHANCE) > 350
    assert tuned.global_source == ALL_AT_CHANCE  # the best one assigns nearly all labels to all
    share = classification.decide(scores, tuned.per_label_bins).numpy().mean(axis=0)
    assert share[20:].max() < 0.95


def test_random_scores_with_few_positives_take_the_common_threshold():
    random = np.random.default_rng(4)
    labels = np.zeros((400, 2), bool)
    labels[:9, 0], labels[:200, 1] = True, True
    scores = random.random((400, 2)).astype(np.float32)
    scores[:, 1] = 0.5 * scores[:, 1] + 0.5 * labels[:, 1]
    tuned = tune(histogram_of(labels, scores))
    assert tuned.sources == (TOO_FEW, OWN) and tuned.per_label_bins[0] == tuned.global_bin


def test_a_label_without_train_positives_is_never_assigned_and_moves_no_threshold():
    histogram = np.zeros((2, 3, BINS), np.int64)
    histogram[1, :2, 800], histogram[0, :2, 100] = 100, 1000
    informative = tune(histogram[:, :2])
    # A third label with many positives, which score high.
    histogram[1, 2, BINS - 1], histogram[0, 2, 300] = 500, 600
    tuned = tune(histogram, is_trained=np.array([True, True, False]))
    assert tuned.sources == (OWN, OWN, NEVER_TRAINED)
    assert tuned.per_label_bins == (*informative.per_label_bins, classification.NEVER)
    assert tuned.common_bins == (informative.global_bin,) * 2 + (classification.NEVER,)
    assert tuned.is_assignable.tolist() == [True, True, False]
    highest = np.ones((1, 3), np.float32)
    for bins in (tuned.per_label_bins, tuned.common_bins):
        assert classification.decide(highest, bins).numpy().tolist() == [[True, True, False]]
    # Its positives count as missed: 2 * 200 / (200 + 700).
    assert thresholds.common_f1(histogram, tuned)["micro_f1"] == pytest.approx(4 / 9)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_for_macro_f1_the_common_threshold_is_the_one_with_the_best_mean_f1_of_labels(seed):
    random = np.random.default_rng(seed)
    labels = random.random((60, 4)) < [0.6, 0.2, 0.1, 0]
    labels[:2, :3] = True
    scores = np.clip(random.random((60, 4)) * 0.7 + 0.3 * labels, 0, 1).astype(np.float32)
    histogram, is_trained = histogram_of(labels, scores), np.array([True, True, False, True])
    tuned = tune(histogram, is_trained=is_trained, objective="macro_f1")
    decided = classification.decide(scores, np.arange(BINS)[:, None, None]).numpy()
    decided, truth = decided[..., :2], labels[:, :2]  # of the labels that are trained and occur
    f1 = 2 * (decided & truth).sum(axis=1) / (decided.sum(axis=1) + truth.sum(axis=0))
    means = f1.mean(axis=1)
    assert means[tuned.global_bin] == pytest.approx(means.max(), abs=1e-12)
    by_label = classification.decide(scores, tuned.common_bins).numpy()
    assert thresholds.common_f1(histogram, tuned)["macro_f1"] == pytest.approx(
        f1_score(labels[:, :3], by_label[:, :3], average="macro")
    )


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(11, 80),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
    st.sampled_from([64, 1024]),
)
def test_no_label_whose_scores_are_constant_is_assigned_to_every_document(
    seed, documents, constants, num_bins
):
    random = np.random.default_rng(seed)
    prevalences, values = np.array([*constants, (0.3, 0)]).T
    labels = random.random((documents, len(values))) < prevalences
    labels[0] = False  # a document without labels: nothing should go to all
    scores = np.tile(values.astype(np.float32), (documents, 1))
    scores[:, -1] = 0.3 + 0.4 * labels[:, -1]  # an informative label beside them
    histogram = classification.score_histogram(
        labels.astype(np.float32), scores, np.ones(documents, np.float32), num_bins=num_bins
    ).numpy()
    tuned = tune(histogram, min_positives=1)
    for bins in (tuned.per_label_bins, tuned.common_bins):
        decided = classification.decide(scores, bins).numpy()
        assert not decided.all(axis=0)[:-1].any()


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_informative_labels_have_the_thresholds_of_their_best_f1(seed):
    random = np.random.default_rng(seed)
    labels = random.random((400, 5)) < 0.25
    labels[:12] = True
    scores = np.clip(0.3 * random.random((400, 5)) + 0.6 * labels, 0, 1).astype(np.float32)
    histogram = histogram_of(labels, scores)
    tuned = tune(histogram)
    assert tuned.sources == (OWN,) * 5
    f1 = classification.sweep(histogram)["f1"]
    for label in range(5):
        assert tuned.per_label_bins[label] == nearest_best(f1[label], tuned.global_bin)


def test_thresholds_of_another_run_follow_what_this_model_was_trained_on():
    never = classification.NEVER
    other = Thresholds(
        global_bin=300,
        per_label_bins=(100, never, never, 300),
        sources=(OWN, NEVER_TRAINED, NEVER_TRAINED, TOO_FEW),
    )
    ours = other.of_other_model(np.array([True, True, False, False]))
    assert ours.per_label_bins == (100, 300, never, never)
    assert ours.sources == (OWN, TOO_FEW, NEVER_TRAINED, NEVER_TRAINED)
    assert ours.global_bin == 300


def test_labels_are_tuned_alike_in_chunks_of_any_size(monkeypatch):
    random = np.random.default_rng(3)
    histogram = random.integers(0, 3, (2, 7, BINS))
    histogram[1, 1:, 600:] += random.integers(0, 5, (6, BINS - 600))
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
    tuned = Thresholds(
        global_bin=384,
        per_label_bins=(0, 1, classification.NEVER),
        sources=(OWN, OWN, NEVER_TRAINED),
    )
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
            {"per_label_bins": [1], "sources": [OWN]},
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
    raw = Thresholds(global_bin=1, per_label_bins=(1, 2), sources=(OWN, OWN)).to_json() | change
    with pytest.raises(UserError, match=message):
        Thresholds.from_json(raw, num_labels=2, what="run/thresholds.json")


def test_thresholds_of_an_earlier_version_must_be_tuned_again():
    with pytest.raises(UserError, match="another version .* run the evaluation again"):
        Thresholds.from_json({"global_bin": 1, "per_label_bins": [1]}, num_labels=1)


@pytest.mark.parametrize("raw", [None, [], "0.5", {}])
def test_something_else_is_a_user_error(raw):
    with pytest.raises(UserError, match="expected"):
        Thresholds.from_json(raw, num_labels=2)
