"""Which labels look wrong or missing: those that a model, which never saw the document, denies.

The scores are out of fold: each document is scored by the run whose validation fold it is in
(Northcutt et al. 2021, Confident Learning, https://doi.org/10.1613/jair.1.12125). For a label that
a document has, the lower its score the likelier it is wrong; for one that it lacks, the higher its
score the likelier it is missing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.input_pipeline import token_ids
from trainer.data.records import read_records
from trainer.experiment import Experiment

_MIN_SCORE = 1e-7
CANDIDATES = 5  # labels that a document lacks, those with its best scores


class Document(NamedTuple):
    """A document that was scored.

    Attributes:
      id: its id.
      texts: its analyzed texts.
      label_ids: those that it has.
    """

    id: str
    texts: tuple[str, ...]
    label_ids: list[int]


class Scored(NamedTuple):
    """Scores of one fold.

    Attributes:
      documents: those of the fold.
      rows: int64 [pairs], the index of a document.
      label_ids: int64 [pairs].
      scores: float32 [pairs], probabilities.
      given: bool [pairs], whether the document has the label; of those that it lacks, CANDIDATES
        are here.
    """

    documents: list[Document]
    rows: np.ndarray
    label_ids: np.ndarray
    scores: np.ndarray
    given: np.ndarray

    @classmethod
    def of_parts(cls, parts: Sequence["Scored"]) -> "Scored":
        """Several as one."""
        firsts = np.cumsum([0, *(len(part.documents) for part in parts)])
        rows = [part.rows + first for part, first in zip(parts, firsts[:-1], strict=True)]
        return cls(
            [document for part in parts for document in part.documents],
            np.concatenate(rows),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in cls._fields[2:]),
        )


def score_validation(experiment: Experiment) -> Scored:
    """Scores every document of the validation split, whose fold the model has not seen.

    Raises:
      UserError: a shard is corrupt.
    """
    score = tf.function(experiment.scores, reduce_retracing=True)
    names = experiment.dataset.record_spec.text_names
    parts = []
    for records in read_records(experiment.dataset, "validation", ["id", *names, "labels"]):
        texts = [records[name] for name in names]
        tokens = token_ids(experiment.vectorizer, [tf.constant(values) for values in texts])
        documents = [
            Document(key.decode(), tuple(text.decode() for text in of_document), label_ids)
            for key, of_document, label_ids in zip(
                records["id"], zip(*texts, strict=True), records["labels"].to_list(), strict=True
            )
        ]
        parts.append(_pairs(documents, score(tokens).numpy()))
    return Scored.of_parts(parts)


def _pairs(documents: list[Document], scores: np.ndarray) -> Scored:
    """The pairs of documents and labels that can be wrong or missing; scores [batch, labels]."""
    lengths = [len(document.label_ids) for document in documents]
    rows = np.repeat(np.arange(len(documents)), lengths)
    label_ids = np.array([i for document in documents for i in document.label_ids], np.int64)
    given_scores = scores[rows, label_ids]
    others = scores.copy()
    others[rows, label_ids] = -1
    count = min(CANDIDATES, scores.shape[1])
    best = np.argpartition(-others, count - 1, axis=1)[:, :count]
    other_scores = np.take_along_axis(others, best, axis=1)
    is_other = other_scores >= 0
    other_rows = np.broadcast_to(np.arange(len(documents))[:, None], best.shape)
    return Scored(
        documents,
        np.concatenate([rows, other_rows[is_other]]),
        np.concatenate([label_ids, best[is_other]]),
        np.concatenate([given_scores, other_scores[is_other]]).astype(np.float32),
        np.repeat([True, False], [len(rows), int(is_other.sum())]),
    )


class Suspect(NamedTuple):
    """A label of a document that looks wrong, or one that looks missing.

    Attributes:
      kind: `wrong`, which the document has, or `missing`, which it lacks.
      document: the document.
      label_id: the label.
      score: its probability, out of fold.
      usual_score: the mean of it over the documents that have the label.
    """

    kind: str
    document: Document
    label_id: int
    score: float
    usual_score: float


def suspects(scored: Scored, num_labels: int, *, top: int) -> list[Suspect]:
    """The labels that look wrong, then those that look missing, the likeliest first.

    Args:
      scored: of all folds.
      num_labels: number of labels.
      top: so many of each kind at most.
    """
    usual = usual_scores(scored, num_labels)[scored.label_ids]
    found = []
    for kind, is_kind, order in (
        ("wrong", scored.given, _wrong_order(scored)),
        ("missing", ~scored.given, -scored.scores),
    ):
        pairs = np.flatnonzero(is_kind)
        # The order of pairs that are equal is that of documents and labels.
        ranks = np.lexsort((scored.label_ids[pairs], scored.rows[pairs], order[pairs]))
        found += [
            Suspect(
                kind,
                scored.documents[scored.rows[i]],
                int(scored.label_ids[i]),
                float(scored.scores[i]),
                float(usual[i]),
            )
            for i in pairs[ranks[:top]]
        ]
    return found


def usual_scores(scored: Scored, num_labels: int) -> np.ndarray:
    """float64 [labels]: the mean score of each label over the documents that have it."""
    label_ids = scored.label_ids[scored.given]
    sums = np.bincount(label_ids, scored.scores[scored.given], minlength=num_labels)
    return sums / np.maximum(np.bincount(label_ids, minlength=num_labels), 1)


def _wrong_order(scored: Scored) -> np.ndarray:
    """float64 [pairs]: the lower, the likelier the document has the label wrongly.

    The score, beside the best score of a label that the document lacks: that may have been meant.
    """
    best = np.zeros(len(scored.documents))
    np.maximum.at(best, scored.rows[~scored.given], scored.scores[~scored.given])
    return _log(scored.scores) - _log(best[scored.rows])


def _log(scores: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(scores, _MIN_SCORE, dtype=np.float64))
