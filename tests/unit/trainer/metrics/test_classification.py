import json
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from sklearn.metrics import accuracy_score, hamming_loss, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from tests.pair_matrices import matrix_of
from trainer.data.labels import multi_hot
from trainer.metrics import classification
from trainer.metrics.pairs import Pairs

properties = settings(max_examples=25)


def _traced(function):
    """One trace for all sizes, as in the evaluation loop."""
    matrix, vector = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.float32)
    return tf.function(function, input_signature=[matrix, matrix, vector])


_decision_counts = _traced(lambda y, d, m: classification.decision_counts(y, d, m))
_score_histogram = _traced(classification.score_histogram)
_multi_hot_of_7 = tf.function(
    lambda ids: multi_hot(ids, 7), input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)]
)


def numpy(tensors):
    return {key: value.numpy() for key, value in tensors.items()}


@st.composite
def batches(draw, min_documents=1):
    """Float32: labels [B, L] with empty rows and columns, scores [B, L] with ties, mask [B]."""
    documents, labels = draw(st.integers(min_documents, 12)), draw(st.integers(2, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = random.random((documents, labels)) < draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    y[random.random(documents) < 0.2] = False
    y[:, random.random(labels) < 0.2] = False
    scores = random.random((documents, labels))
    grid = draw(st.sampled_from([1, 10, classification.NUM_BINS]))
    scores = np.where(random.random(scores.shape) < 0.5, np.round(scores * grid) / grid, scores)
    scores = np.where(
        random.random((documents, 1)) < 0.3, 0.25 + y / 2, scores
    )  # documents that are all right at 0.5
    mask = random.random(documents) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    return y.astype(np.float32), scores.astype(np.float32), mask.astype(np.float32)


# --- decisions -------------------------------------------------------------------------


@properties
@given(batches())
def test_summary_equals_scikit_learn_on_the_unmasked_documents(batch):
    y, scores, mask = batch
    decisions = scores >= 0.5
    summary = classification.summarize(
        numpy(_decision_counts(y, decisions.astype(np.float32), mask))
    )
    kept = mask > 0
    assert summary["documents"] == kept.sum()
    if not kept.any():
        assert all(summary[key] == 0 for key in summary.keys() - {"labels"})
        return
    truth, predicted = y[kept].astype(int), decisions[kept].astype(int)
    for average, ours in (
        ("micro", "micro"),
        ("macro", "macro"),
        ("weighted", "weighted"),
        ("samples", "sample"),
    ):
        expected = precision_recall_fscore_support(
            truth, predicted, average=average, zero_division=0
        )[:3]
        np.testing.assert_allclose(
            [summary[f"{ours}_{name}"] for name in ("precision", "recall", "f1")],
            expected,
            rtol=1e-12,
            err_msg=average,
        )
    assert summary["hamming_loss"] == pytest.approx(hamming_loss(truth, predicted), rel=1e-12)
    assert summary["subset_accuracy"] == pytest.approx(accuracy_score(truth, predicted), rel=1e-12)


@properties
@given(batches())
def test_per_label_columns_equal_scikit_learn(batch):
    y, scores, mask = batch
    mask[0] = 1
    decisions = scores >= 0.5
    columns = classification.per_label(
        numpy(_decision_counts(y, decisions.astype(np.float32), mask))
    )
    kept = mask > 0
    expected = precision_recall_fscore_support(
        y[kept].astype(int), decisions[kept].astype(int), average=None, zero_division=0
    )
    for index, name in enumerate(("precision", "recall", "f1", "positives")):
        np.testing.assert_allclose(columns[name], expected[index], rtol=1e-12, err_msg=name)
    assert columns["predicted"].tolist() == decisions[kept].sum(axis=0).tolist()


def test_macro_present_leaves_out_labels_without_positives_even_if_predicted():
    labels, decisions = (
        np.array([[1, 0, 0], [1, 1, 0]], np.float32),
        np.array([[1, 1, 1], [0, 1, 0]], np.float32),
    )
    summary = classification.summarize(
        numpy(_decision_counts(labels, decisions, np.ones(2, np.float32)))
    )
    assert (summary["labels"], summary["labels_present"]) == (3, 2)
    assert summary["macro_precision_present"] == pytest.approx((1 + 1 / 2) / 2)
    assert summary["macro_precision"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert summary["macro_recall_present"] == pytest.approx((1 / 2 + 1) / 2)
    assert summary["macro_f1_present"] == pytest.approx(2 / 3)
    assert summary["macro_f1"] == pytest.approx(4 / 9)


def test_document_without_labels_and_decisions_is_subset_accurate_with_sample_f1_0():
    nothing = np.zeros((1, 3), np.float32)
    summary = classification.summarize(
        numpy(_decision_counts(nothing, nothing, np.ones(1, np.float32)))
    )
    assert (summary["subset_accuracy"], summary["hamming_loss"], summary["sample_f1"]) == (1, 0, 0)


def test_bool_and_float_arguments_give_the_same_counts():
    random = np.random.default_rng(0)
    labels, decisions, mask = (
        random.random((6, 4)) < 0.5,
        random.random((6, 4)) < 0.5,
        random.random(6) < 0.7,
    )
    left = numpy(
        classification.decision_counts(
            tf.constant(labels), tf.constant(decisions), tf.constant(mask)
        )
    )
    right = numpy(
        _decision_counts(
            labels.astype(np.float32), decisions.astype(np.float32), mask.astype(np.float32)
        )
    )
    assert {key: value.tolist() for key, value in left.items()} == {
        key: value.tolist() for key, value in right.items()
    }


# --- sums ------------------------------------------------------------------------------


@properties
@given(batches(min_documents=2), st.data())
def test_counts_of_two_batches_add_up_to_those_of_one(batch, data):
    y, scores, mask = batch
    cut = data.draw(st.integers(0, len(mask)))

    def count(rows):
        decisions = (scores[rows] >= 0.5).astype(np.float32)
        counts = numpy(_decision_counts(y[rows], decisions, mask[rows]))
        return counts | {"histogram": _score_histogram(y[rows], scores[rows], mask[rows]).numpy()}

    whole, parts = (
        count(slice(None)),
        classification.add(count(slice(0, cut)), count(slice(cut, None))),
    )
    for key in whole:
        assert (
            parts[key].dtype
            == whole[key].dtype
            == (np.float64 if key.startswith("sample_") else np.int64)
        )
        np.testing.assert_allclose(
            parts[key], whole[key], rtol=1e-12 if key.startswith("sample_") else 0, err_msg=key
        )


def test_add_refuses_different_counts():
    with pytest.raises(
        ValueError, match=r"received the counts \['a'\] and \['b'\], expected the same in both"
    ):
        classification.add({"a": np.ones(1)}, {"b": np.ones(1)})


def _counts(labels, scores, mask):
    counts = classification.decision_counts(labels, classification.decide(scores, 400), mask)
    return counts | {"histogram": classification.score_histogram(labels, scores, mask)}


def _counts_of_two_replicas(batch):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    halves = strategy.experimental_distribute_dataset(
        tf.data.Dataset.from_tensors(batch).unbatch().batch(len(batch[0]))
    )

    @tf.function
    def step(distributed):
        return {
            key: strategy.reduce("SUM", value, axis=None)
            for key, value in strategy.run(_counts, args=distributed).items()
        }

    return strategy.num_replicas_in_sync, numpy(step(next(iter(halves))))


def test_counts_summed_over_two_replicas_equal_those_of_one():
    random = np.random.default_rng(1)
    labels, scores = random.random((12, 5)) < 0.3, random.random((12, 5))
    batch = (
        labels.astype(np.float32),
        scores.astype(np.float32),
        np.r_[np.ones(11), 0].astype(np.float32),
    )
    replicas, summed = _counts_of_two_replicas(batch)
    assert replicas == 2
    expected = numpy(_counts(*batch))
    assert summed.keys() == expected.keys()
    for key in expected:
        np.testing.assert_allclose(
            summed[key], expected[key], rtol=1e-12 if key.startswith("sample_") else 0, err_msg=key
        )


# --- thresholds and histograms ---------------------------------------------------------


@properties
@given(batches())
def test_histogram_counts_at_every_threshold_equal_direct_decisions(batch):
    y, scores, mask = batch
    histogram = _score_histogram(y, scores, mask).numpy()
    assert histogram.shape == (2, y.shape[1], classification.NUM_BINS + 1)
    assert histogram.sum() == mask.sum() * y.shape[1]
    reached = np.cumsum(histogram[..., ::-1], axis=-1)[..., ::-1]
    sweep = classification.sweep(histogram.sum(axis=1))
    for k in (0, 1, 103, 511, 512, 513, 700, classification.NUM_BINS - 1, classification.NUM_BINS):
        decided = classification.decide(scores, k).numpy()
        assert (decided == (scores.astype(np.float64) >= k / classification.NUM_BINS)).all()
        for kind in (0, 1):
            assert (
                reached[kind, :, k].tolist()
                == (decided & (y == kind) & (mask > 0)[:, None]).sum(axis=0).tolist()
            )
        summary = classification.summarize(
            numpy(_decision_counts(y, decided.astype(np.float32), mask))
        )
        for name in ("precision", "recall", "f1"):
            assert sweep[name][k] == summary[f"micro_{name}"]


@properties
@given(batches(), st.sampled_from([16, 1024]))
def test_histogram_from_the_cells_or_the_counts_of_batches_is_the_histogram(batch, num_bins):
    y, scores, mask = batch
    expected = classification.score_histogram(y, scores, mask, num_bins=num_bins).numpy()
    of_cells, of_counts = np.zeros_like(expected), np.zeros_like(expected)
    for rows in (slice(None, 2), slice(2, None)):
        part = scores[rows], mask[rows]
        cells = classification.score_cells(*part, num_bins=num_bins).numpy()
        classification.add_cells(of_cells, cells, documents=int(mask[rows].sum()))
        of_counts[0] += classification.score_counts(*part, num_bins=num_bins).numpy()
        positive = Pairs.of(y[rows]).without_padding(mask[rows])
        bins = classification.score_bins(positive.values_of(scores[rows]), num_bins)
        moved = classification.cells_of_bins(positive, bins, num_bins=num_bins + 1).numpy()
        for histogram in (of_cells, of_counts):
            classification.move_positives(histogram, moved)
    np.testing.assert_array_equal(of_cells, expected)
    np.testing.assert_array_equal(of_counts, expected)


@properties
@given(batches(), st.integers(0, classification.NEVER))
def test_decided_pairs_are_the_decisions_at_each_of_several_thresholds(batch, common):
    _, scores, _ = batch
    of_label = np.random.default_rng(common).integers(0, classification.NEVER + 1, scores.shape[1])
    decided = classification.decided_pairs(scores, np.full(scores.shape[1], common), of_label)
    for pairs, bins in zip(decided, (common, of_label), strict=True):
        np.testing.assert_array_equal(matrix_of(pairs), classification.decide(scores, bins))


def test_decide_is_exact_at_every_threshold_and_next_to_it():
    bins = np.arange(classification.NUM_BINS + 1)
    at = (bins / classification.NUM_BINS).astype(np.float32)[None]
    assert classification.decide(at, bins).numpy().all()
    assert not classification.decide(np.nextafter(at, np.float32(-1)), bins).numpy()[0, 1:].any()


def test_decide_with_one_threshold_per_label_and_the_two_extremes():
    scores = tf.constant([[0.2, 0.2, 1.0, 0.0], [0.6, 0.6, 1.0, 0.0]])
    assert classification.decide(scores, [512, 700, classification.NEVER, 0]).numpy().tolist() == [
        [False, False, False, True],
        [True, False, False, True],
    ]


def test_nan_and_scores_out_of_range_stay_in_the_outer_bins():
    scores = tf.constant([[np.nan, -0.5, -0.0, 1.0, 1.5]])
    assert classification.score_bins(scores).numpy().tolist() == [
        [0, 0, 0, classification.NUM_BINS, classification.NUM_BINS]
    ]
    histogram = classification.score_histogram(tf.zeros([1, 5]), scores, tf.ones([1])).numpy()
    assert histogram[0, :, 0].tolist() == [1, 1, 1, 0, 0]
    assert histogram[0, :, classification.NUM_BINS].tolist() == [0, 0, 0, 1, 1]


def test_a_summary_is_plain_json():
    y = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    summary = classification.summarize(numpy(classification.decision_counts(y, y, tf.ones([2]))))
    assert json.loads(json.dumps(summary)) == summary


def test_no_warning_where_everything_is_zero():
    nothing = tf.zeros([0, 3])
    counts = numpy(classification.decision_counts(nothing, nothing, tf.zeros([0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = classification.summarize(counts)
    assert (
        summary["micro_f1"]
        == summary["sample_f1"]
        == summary["subset_accuracy"]
        == summary["hamming_loss"]
        == 0
    )


@pytest.mark.parametrize(
    ("labels", "bins"), [(1, 1024), (16_368, 1024), (16_369, 512), (200_000, 64), (10**9, 16)]
)
def test_histograms_of_many_labels_have_fewer_bins_and_stay_within_their_memory(labels, bins):
    assert classification.histogram_bins(labels) == bins
    assert bins == 16 or 16 * labels * (bins + 1) <= classification.HISTOGRAM_BYTES


@properties
@given(batches())
def test_a_coarser_histogram_is_the_finer_one_with_bins_put_together(batch):
    fine = _score_histogram(*batch).numpy()
    coarse = classification.score_histogram(*map(tf.constant, batch), num_bins=64).numpy()
    together = fine[..., :-1].reshape(*fine.shape[:2], 64, 16).sum(axis=-1)
    np.testing.assert_array_equal(coarse, np.concatenate([together, fine[..., -1:]], axis=-1))


# --- multi-hot -------------------------------------------------------------------------


@properties
@given(st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=6))
def test_multi_hot_equals_multi_label_binarizer_with_duplicates_and_empty_rows(ids):
    ragged = tf.ragged.constant(ids, dtype=tf.int64, ragged_rank=1)
    received = _multi_hot_of_7(ragged)
    assert received.dtype == tf.float32
    expected = MultiLabelBinarizer(classes=range(7)).fit_transform(ids) if ids else np.zeros((0, 7))
    np.testing.assert_array_equal(received, expected)


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="a GPU ignores ids out of range"
)
@pytest.mark.parametrize("label", [-1, 3])
def test_multi_hot_refuses_ids_out_of_range(label):
    with pytest.raises(tf.errors.InvalidArgumentError):
        multi_hot(tf.ragged.constant([[0, label]], dtype=tf.int64), 3)
