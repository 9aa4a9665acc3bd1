import warnings

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    coverage_error,
    label_ranking_average_precision_score,
    label_ranking_loss,
    ndcg_score,
)

from tests.pair_matrices import matrix_of
from trainer.metrics import ranking

RANKS = (1, 3, 5)
properties = settings(max_examples=25)
_MATRIX, _VECTOR = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.float32)
_full_ranking_counts = tf.function(
    ranking.full_ranking_counts, input_signature=[_MATRIX, _MATRIX, _VECTOR]
)


def numpy(tensors):
    return {key: value.numpy() for key, value in tensors.items()}


def summarize(y, scores, mask, *, propensities=None, at_k=RANKS):
    weights = np.ones(y.shape[1]) if propensities is None else propensities
    counts = numpy(
        ranking.ranking_counts(y, scores, mask, at_k=at_k, label_propensities=weights)
    ) | numpy(_full_ranking_counts(y, scores, mask))
    return ranking.summarize_ranking(counts, documents=int(mask.sum()), at_k=at_k)


@st.composite
def batches(draw):
    """labels, scores with ties, mask, some documents with no label or all of them; float32."""
    documents, labels = draw(st.integers(1, 12)), draw(st.integers(2, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = random.random((documents, labels)) < draw(st.sampled_from([0.1, 0.4, 0.9]))
    y[random.random(documents) < 0.2] = random.random() < 0.5
    scores = random.random((documents, labels))
    if draw(st.booleans()):
        scores = np.round(scores * 5) / 5
    mask = random.random(documents) < draw(st.sampled_from([0.7, 1.0]))
    mask[0] = True
    return y.astype(np.float32), scores.astype(np.float32), mask.astype(np.float32)


@properties
@given(batches())
def test_precision_and_recall_at_k_equal_a_direct_sort_with_ties_by_label_id(batch):
    y, scores, mask = batch
    summary = summarize(*batch)
    order = [
        sorted(range(y.shape[1]), key=lambda label, row=row: (-row[label], label)) for row in scores
    ]
    for k in RANKS:
        hits = [y[i, order[i][:k]].sum() for i in range(len(y)) if mask[i]]
        positives = [max(y[i].sum(), 1) for i in range(len(y)) if mask[i]]
        assert summary["precision_at"][k] == pytest.approx(np.mean(hits) / k, rel=1e-6)
        assert summary["recall_at"][k] == pytest.approx(
            np.mean(np.divide(hits, positives)), rel=1e-6
        )


@properties
@given(batches())
def test_coverage_ranking_loss_and_average_precision_equal_scikit_learn_with_ties(batch):
    y, scores, mask = batch
    summary, kept = summarize(*batch), mask > 0
    truth, scores = y[kept].astype(int), scores[kept]
    assert summary["coverage_error"] == pytest.approx(coverage_error(truth, scores), rel=1e-6)
    assert summary["ranking_loss"] == pytest.approx(label_ranking_loss(truth, scores), rel=1e-6)
    assert summary["label_ranking_average_precision"] == pytest.approx(
        label_ranking_average_precision_score(truth, scores), rel=1e-6
    )


@properties
@given(batches())
def test_ndcg_equals_scikit_learn_where_no_scores_are_equal(batch):
    y, scores, mask = batch
    random = np.random.default_rng(0)
    scores = random.permuted(
        np.tile(np.linspace(0, 1, y.shape[1], dtype=np.float32), (len(y), 1)), axis=1
    )
    summary, kept = summarize(y, scores, mask), mask > 0
    for k in RANKS:
        assert summary["ndcg_at"][k] == pytest.approx(
            ndcg_score(y[kept], scores[kept], k=k), rel=1e-6
        )


@properties
@given(batches(), st.integers(0, 2**32 - 1))
def test_propensity_scored_precision_equals_a_reference(batch, seed):
    y, scores, mask = batch
    propensities = ranking.propensities(
        np.random.default_rng(seed).integers(0, 1000, y.shape[1]), 5000
    )
    received = summarize(*batch, propensities=propensities)["propensity_scored_precision_at"]
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in RANKS:
        gained = sum(
            (y[i, order[i, :k]] / propensities[order[i, :k]]).sum()
            for i in range(len(y))
            if mask[i]
        )
        best = sum(np.sort(y[i] / propensities)[::-1][:k].sum() for i in range(len(y)) if mask[i])
        assert received[k] == pytest.approx(gained / best if best else 0, rel=1e-5)


def test_propensities_are_those_of_the_paper():
    # A = 0.55, B = 1.5, N = 10,000: C = (log 10000 - 1) * 2.5 ** 0.55 = 13.5911...
    c = (np.log(10_000) - 1) * 2.5**0.55
    np.testing.assert_allclose(
        ranking.propensities(np.array([0, 1, 1000]), 10_000),
        [1 / (1 + c * (n + 1.5) ** -0.55) for n in (0, 1, 1000)],
    )
    assert (ranking.propensities(np.array([0, 1]), 1) <= 1).all()


@properties
@given(batches(), st.data())
def test_counts_of_two_batches_add_up_to_those_of_one(batch, data):
    cut = data.draw(st.integers(0, len(batch[2])))

    def counts(rows):
        part = [array[rows] for array in batch]
        own = ranking.ranking_counts(
            *part, at_k=RANKS, label_propensities=np.linspace(0.1, 1, batch[0].shape[1])
        )
        return numpy(own) | numpy(_full_ranking_counts(*part))

    whole, left, right = counts(slice(None)), counts(slice(0, cut)), counts(slice(cut, None))
    for key in whole:
        np.testing.assert_allclose(left[key] + right[key], whole[key], rtol=1e-6, err_msg=key)
        assert whole[key].dtype == (np.int64 if key in ("hits", "coverage") else np.float64)


def test_precision_divides_by_k_where_k_exceeds_the_labels():
    summary = summarize(
        np.ones((1, 2), np.float32),
        np.array([[0.1, 0.9]], np.float32),
        np.ones(1, np.float32),
        at_k=(5, 1),
    )
    assert summary["precision_at"] == {5: 2 / 5, 1: 1.0}
    assert summary["recall_at"] == {5: 1.0, 1: 0.5}


def test_no_documents_give_zeros_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarize(
            np.zeros((0, 3), np.float32),
            np.zeros((0, 3), np.float32),
            np.zeros(0, np.float32),
            at_k=(1,),
        )
    assert summary["precision_at"] == {1: 0.0} and summary["coverage_error"] == 0


@pytest.mark.parametrize("num_best", [1, 3])
def test_ranks_beyond_the_best_scores_are_counted_too(num_best, monkeypatch):
    random = np.random.default_rng(0)
    y = (random.random((30, 12)) < 0.3).astype(np.float32)
    scores = np.round(random.random((30, 12)) * 8).astype(np.float32) / 8  # with ties
    mask = np.ones(30, np.float32)
    whole = numpy(ranking.full_ranking_counts(y, scores, mask))
    monkeypatch.setattr(ranking, "NUM_BEST", num_best)
    assert numpy(ranking.full_ranking_counts(y, scores, mask)) == whole


@properties
@given(batches(), st.integers(1, 10))
def test_top_k_decides_for_the_k_best_labels_with_ties_by_label_id(batch, k):
    _, scores, _ = batch
    decided = matrix_of(ranking.top_k_pairs(scores, k))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert (decided.sum(axis=1) == min(k, scores.shape[1])).all()
    assert np.take_along_axis(decided, order, axis=1).all()


@pytest.mark.parametrize("num_best", [64, 5, 3])
def test_labels_that_are_not_eligible_are_not_among_the_best(num_best, monkeypatch):
    monkeypatch.setattr(ranking, "NUM_BEST", num_best)
    random = np.random.default_rng(0)
    scores = np.round(random.random((30, 12)) * 8).astype(np.float32) / 8  # with ties
    is_eligible = random.random(12) < 0.6
    values, indices, bound = (x.numpy() for x in ranking.best_eligible(scores, 3, is_eligible))
    decided = matrix_of(ranking.top_k_pairs(scores, 3, is_eligible))
    for row, own in zip(scores, decided, strict=True):
        order = np.argsort(-np.where(is_eligible, row, -1), kind="stable")
        assert np.flatnonzero(own).tolist() == sorted(order[:3].tolist())
    others = np.where(is_eligible, scores, -1)
    np.put_along_axis(others, indices, -1, axis=1)
    assert (others.max(axis=1) <= bound[:, 0]).all()
    is_one = values >= 0
    np.testing.assert_array_equal(is_one, is_eligible[indices])
    np.testing.assert_array_equal(
        values[is_one], np.take_along_axis(scores, indices, axis=1)[is_one]
    )
