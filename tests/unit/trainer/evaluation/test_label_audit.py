"""Which labels look wrong or missing, by scores that are given."""

import numpy as np

from trainer.evaluation.label_audit import (
    CANDIDATES,
    Document,
    Scored,
    _pairs,
    suspects,
    usual_scores,
)

LABELS = [[0], [0, 1], [], [1]]
SCORES = np.array([[0.9, 0.3, 0.1], [0.05, 0.5, 0.2], [0.8, 0.1, 0.0], [0.4, 0.5, 0.6]], np.float32)


def scored(labels=LABELS, scores=SCORES) -> Scored:
    documents = [Document(f"d{i}", (f"text {i}",), ids) for i, ids in enumerate(labels)]
    return _pairs(documents, scores)


def test_every_pair_of_few_labels_is_looked_at_once():
    pairs = scored()
    assert len(set(zip(pairs.rows, pairs.label_ids, strict=True))) == len(pairs.rows) == 12
    for row, label, score, given in zip(*pairs[1:], strict=True):
        assert score == SCORES[row, label] and given == (label in LABELS[row])


def test_of_many_labels_those_with_the_best_scores_are_candidates():
    scores = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    pairs = scored([[int(scores[0].argmax())], []], scores)
    for row in (0, 1):
        found = pairs.label_ids[(pairs.rows == row) & ~pairs.given]
        best = np.argsort(-scores[row])[row == 0 :][:CANDIDATES]
        assert sorted(found) == sorted(best)


def test_folds_are_one_and_pairs_keep_their_documents():
    part = scored()
    both = Scored.of_parts([part, part])
    assert len(both.documents) == 8 and both.rows.tolist() == [*part.rows, *(part.rows + 4)]


def test_a_usual_score_is_the_mean_over_the_documents_with_the_label():
    np.testing.assert_allclose(usual_scores(scored(), 3), [(0.9 + 0.05) / 2, 0.5, 0], rtol=1e-6)


def test_the_label_that_is_denied_most_and_the_one_that_is_asked_for_most_come_first():
    found = suspects(scored(), 3, top=2)
    assert [suspect.kind for suspect in found] == ["wrong"] * 2 + ["missing"] * 2
    wrong, missing = found[0], found[2]
    assert (wrong.document.id, wrong.label_id) == ("d1", 0)
    assert (missing.document.id, missing.label_id) == ("d2", 0)
    assert round(wrong.score, 3) == 0.05 and round(wrong.usual_score, 3) == 0.475
