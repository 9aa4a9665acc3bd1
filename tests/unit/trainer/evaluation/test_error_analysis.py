import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import confusion_matrix

from trainer.evaluation import error_analysis


def numpy(tensors):
    return {name: value.numpy() for name, value in tensors.items()}


def batch_of(seed, documents=40, labels=6):
    random = np.random.default_rng(seed)
    y = (random.random((documents, labels)) < 0.3).astype(np.float32)
    scores = random.random((documents, labels)).astype(np.float32)
    return y, scores, scores > 0.6, (random.random(documents) < 0.8).astype(np.float32)


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4, 5], [1, 4, 5]])
def test_pairs_count_documents_that_miss_one_label_and_get_another(chosen):
    y, scores, decided, mask = batch_of(0)
    counts = numpy(
        error_analysis.confusion_counts(y, scores, decided, mask, label_ids=np.array(chosen))
    )
    for i, a in enumerate(chosen):
        for j, b in enumerate(chosen):
            expected = sum(
                bool(m and t[a] and not d[a] and d[b] and not t[b])
                for t, d, m in zip(y, decided, mask, strict=True)
            )
            assert counts["pairs"][i, j] == expected
    names = [f"label {i}" for i in range(6)]
    described = error_analysis.describe_confusions(
        counts, label_ids=np.array(chosen), label_names=names, documents=int(mask.sum())
    )
    most = described.pairs[0]
    assert most.documents == counts["pairs"].max()
    assert (
        counts["pairs"][
            chosen.index(names.index(most.present)), chosen.index(names.index(most.predicted))
        ]
        == most.documents
    )
    assert [pair.documents for pair in described.pairs] == sorted(
        counts["pairs"][counts["pairs"] > 0].tolist(), reverse=True
    )
    assert described.matrix is None


def test_documents_with_one_label_each_give_the_confusion_matrix_of_scikit_learn():
    random = np.random.default_rng(1)
    truth = random.integers(0, 4, 50)
    scores = random.random((50, 4)).astype(np.float32)
    y, mask = np.eye(4, dtype=np.float32)[truth], np.ones(50, np.float32)
    counts = numpy(
        error_analysis.confusion_counts(y, scores, scores > 0.5, mask, label_ids=np.arange(4))
    )
    described = error_analysis.describe_confusions(
        counts, label_ids=np.arange(4), label_names=list("abcd"), documents=50
    )
    assert described.matrix.labels == tuple("abcd")
    assert (
        np.array(described.matrix.rows)
        == confusion_matrix(truth, scores.argmax(axis=1), labels=range(4))
    ).all()
    y[0] = 0
    counts = numpy(
        error_analysis.confusion_counts(y, scores, scores > 0.5, mask, label_ids=np.arange(4))
    )
    described = error_analysis.describe_confusions(
        counts, label_ids=np.arange(4), label_names=list("abcd"), documents=50
    )
    assert described.matrix is None


def test_accuracy_is_told_where_nearly_all_documents_have_one_label():
    random = np.random.default_rng(2)
    truth, scores = random.integers(0, 4, 200), random.random((200, 4)).astype(np.float32)
    y, mask = np.eye(4, dtype=np.float32)[truth], np.ones(200, np.float32)

    def accuracy(mask):
        counts = numpy(
            error_analysis.confusion_counts(y, scores, scores > 0.5, mask, label_ids=np.arange(2))
        )
        return error_analysis.accuracy(counts, documents=int(mask.sum()))

    right = scores.argmax(axis=1) == truth
    assert accuracy(mask) == pytest.approx(right.mean())
    half = (np.arange(200) < 100).astype(np.float32)
    assert accuracy(half) == pytest.approx(right[:100].mean())
    assert accuracy(np.zeros(200, np.float32)) is None
    y[0, (truth[0] + 1) % 4] = 1  # one of 200 documents has two labels
    assert accuracy(mask) is not None
    y[1:3] = 0
    assert accuracy(mask) is None


def test_the_labels_with_the_most_errors_are_looked_at_and_then_the_most_frequent(monkeypatch):
    monkeypatch.setattr(error_analysis, "MAX_CONFUSION_LABELS", 3)
    assert error_analysis.confusion_labels(
        np.array([1, 9, 2, 2, 7]), np.array([5, 5, 1, 8, 5])
    ).tolist() == [1, 3, 4]
    assert error_analysis.confusion_labels(
        np.zeros(5, int), np.array([5, 6, 1, 8, 5])
    ).tolist() == [0, 1, 3]


def test_top_errors_of_batches_are_those_of_all_documents_together():
    y, scores, decided, mask = batch_of(2, documents=90)
    keys = np.random.default_rng(3).permutation(90).astype(np.int64)

    def errors(rows):
        return numpy(
            error_analysis.confident_errors(
                y[rows], scores[rows], decided[rows], mask[rows], tf.constant(keys[rows])
            )
        )

    parts = [errors(slice(start, start + 30)) for start in (60, 0, 30)]
    together, whole = (
        error_analysis.top_errors(parts),
        error_analysis.top_errors([errors(slice(0, 90))]),
    )
    for name in whole:
        np.testing.assert_array_equal(together[name], whole[name])
    for side, wrong in enumerate((decided & (y == 0), ~decided & (y == 1))):
        confidence = np.where(wrong & (mask > 0)[:, None], scores if side == 0 else 1 - scores, -1)
        best = sorted(confidence.max(axis=1), reverse=True)[:20]
        np.testing.assert_allclose(whole["confidence"][side], best)
        for value, label, key in zip(
            *(whole[name][side] for name in ("confidence", "label", "key")), strict=True
        ):
            assert value < 0 or confidence[keys.tolist().index(key), label] == pytest.approx(value)


def test_fewer_errors_than_are_shown_are_padded_with_none():
    y = np.array([[1, 0], [0, 1]], np.float32)
    found = numpy(
        error_analysis.confident_errors(
            y, y, y > 0, np.ones(2, np.float32), tf.constant([7, 8], tf.int64)
        )
    )
    assert (error_analysis.top_errors([found])["confidence"] == -1).all()
    assert error_analysis.top_errors([found])["key"].shape == (2, 20)
