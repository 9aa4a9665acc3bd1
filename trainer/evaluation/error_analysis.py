"""What goes wrong: which labels are taken for which, and the most confident errors."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.records import read_records
from trainer.metrics.bootstrap import document_key
from trainer.metrics.columns import Columns
from trainer.metrics.pairs import Pairs
from trainer.metrics.ranking import best_scored
from trainer.runs.evaluation_record import (
    Confusion,
    ConfusionMatrix,
    Confusions,
    ErrorExample,
    Errors,
)

MAX_CONFUSION_LABELS = 512  # the counts of their pairs take 4 MB
_MAX_PAIRS = 50
_ONE_LABEL = 0.99  # of the documents, on single-label data
_MAX_ERRORS = 20  # of each kind
_MAX_TEXT_CHARACTERS = 600


# --- confusions ------------------------------------------------------------------------


def confusion_labels(errors: np.ndarray, train_positives: np.ndarray) -> np.ndarray:
    """The labels whose confusions are counted, as sorted ids.

    All of them, or the MAX_CONFUSION_LABELS with the most errors on the validation split.

    Args:
      errors: int [labels], false positives and false negatives, all 0 without a validation split.
      train_positives: int [labels], which decides where errors are equal.
    """
    order = np.lexsort((np.arange(len(errors)), -train_positives, -errors))
    return np.sort(order[:MAX_CONFUSION_LABELS])


def confusion_counts(
    labels: tf.Tensor,
    scores: tf.Tensor,
    decisions: tf.Tensor,
    mask: tf.Tensor,
    *,
    label_ids: np.ndarray,
    columns: Columns | None = None,
) -> dict[str, tf.Tensor]:
    """Pairs of labels, counted in the graph. One batch must hold fewer than 2^24 documents.

    Args:
      labels: bool [batch, labels], or the pairs of these.
      scores: float32 [batch, labels].
      decisions: bool [batch, labels], or the pairs of these, row by row.
      mask: float32 [batch].
      label_ids: int [n], `confusion_labels`; they have columns.
      columns: see `trainer.metrics.classification`.

    Returns:
      pairs: int64 [n, n], documents that have the row's label but do not get it, while they get
        the column's wrongly;
      matrix: int64 [n, n], documents with the row's label whose best-scored label is the column's;
      one_label: int64 [], documents with exactly one label;
      best_is_right: int64 [], documents that have their best-scored label.
    """
    positive = Pairs.of(labels).without_padding(mask)
    decided = Pairs.of(decisions).without_padding(mask)
    missed, wrong = positive.which_are_not_in(decided), decided.which_are_not_in(positive)
    places = tf.constant(label_ids, tf.int64)
    if columns is not None:
        places = columns.places(places)
    num_labels = len(label_ids)
    # By column its index among these labels; all others are behind the last.
    index_of = tf.tensor_scatter_nd_update(
        tf.fill([positive.num_columns], num_labels), places[:, tf.newaxis], tf.range(num_labels)
    )
    best = best_scored(scores, 1).indices[:, :1]
    pairs = tf.matmul(
        _matrix_of(missed, index_of, num_labels),
        _matrix_of(wrong, index_of, num_labels),
        transpose_a=True,
    )
    cells = tf.gather(index_of, positive.columns) * (num_labels + 1)
    cells += tf.gather(index_of, tf.gather(best[:, 0], positive.documents))
    matrix = tf.raw_ops.DenseBincount(
        input=cells, size=(num_labels + 1) ** 2, weights=tf.zeros([0], tf.int32)
    )
    matrix = tf.reshape(matrix, [num_labels + 1, num_labels + 1])[:-1, :-1]
    of_best = Pairs.of_rows(best, num_columns=positive.num_columns)
    return {
        "pairs": tf.cast(pairs, tf.int64),
        "matrix": tf.cast(matrix, tf.int64),
        "one_label": tf.math.count_nonzero(positive.count_by_document() == 1),
        "best_is_right": tf.math.count_nonzero(of_best.are_in(positive)),
    }


def _matrix_of(pairs: Pairs, index_of: tf.Tensor, num_labels: int) -> tf.Tensor:
    """float32 [batch, num_labels]: 1 for each of the pairs whose column has an index below."""
    index = tf.cast(tf.gather(index_of, pairs.columns), tf.int64)
    shape = tf.stack([pairs.num_documents, tf.constant(num_labels + 1, tf.int64)])
    cells = tf.stack([pairs.documents, index], axis=1)
    return tf.scatter_nd(cells, tf.ones_like(index, tf.float32), shape)[:, :-1]


def accuracy(counts: Mapping[str, np.ndarray], *, documents: int) -> float | None:
    """The part of documents that have their best-scored label, of `confusion_counts`.

    None unless 99 of 100 documents have exactly one label: documents that were merged, as messages
    to two newsgroups, have several on data that has one for each otherwise.
    """
    if not documents or counts["one_label"] < _ONE_LABEL * documents:
        return None
    return float(counts["best_is_right"] / documents)


def describe_confusions(
    counts: Mapping[str, np.ndarray],
    *,
    label_ids: np.ndarray,
    label_names: Sequence[str],
    documents: int,
) -> Confusions:
    """The most frequent pairs; and the matrix, where every document of the split has exactly one
    label and all labels were counted."""
    pairs = counts["pairs"]
    most_frequent = np.argsort(-pairs, axis=None, kind="stable")[:_MAX_PAIRS]
    rows = [
        Confusion(
            present=label_names[label_ids[row]],
            predicted=label_names[label_ids[column]],
            documents=int(pairs[row, column]),
        )
        for row, column in zip(*np.unravel_index(most_frequent, pairs.shape), strict=True)
        if pairs[row, column]
    ]
    matrix = None
    if counts["one_label"] == documents and len(label_ids) == len(label_names):
        matrix = ConfusionMatrix(
            labels=tuple(label_names), rows=tuple(map(tuple, counts["matrix"].tolist()))
        )
    return Confusions(labels=len(label_ids), pairs=tuple(rows), matrix=matrix)


# --- the most confident errors ---------------------------------------------------------


def confident_errors(
    labels: tf.Tensor,
    scores: tf.Tensor,
    decisions: tf.Tensor,
    mask: tf.Tensor,
    keys: tf.Tensor,
    columns: Columns | None = None,
) -> dict[str, tf.Tensor]:
    """The wrong labels of a batch with the highest scores, and the missed ones with the lowest.

    At most one of each kind per document; in the graph.

    Args:
      labels: bool [batch, labels], or the pairs of these.
      scores: float32 [batch, labels], in [0, 1].
      decisions: bool [batch, labels], or the pairs of these, row by row.
      mask: float32 [batch].
      keys: int64 [batch], `trainer.metrics.bootstrap.document_key`.
      columns: see `trainer.metrics.classification`.

    Returns:
      Two rows each, wrong and missed:
      confidence: float32 [2, n], the score of a wrong label, or one minus that of a missed one; -1
        where there is no error;
      label: int64 [2, n]; key: int64 [2, n].
    """
    positive = Pairs.of(labels).without_padding(mask)
    decided = Pairs.of(decisions).without_padding(mask)
    missed, wrong = positive.which_are_not_in(decided), decided.which_are_not_in(positive)
    errors = {"confidence": [], "label": [], "key": []}
    for pairs, confidence in (
        (wrong, wrong.values_of(scores)),
        (missed, 1 - missed.values_of(scores)),
    ):
        highest, places = _highest(pairs, confidence)
        best = tf.math.top_k(highest, tf.minimum(_MAX_ERRORS, tf.shape(scores)[0]))
        places = tf.gather(places, best.indices)
        errors["confidence"].append(best.values)
        errors["label"].append(places if columns is None else tf.gather(columns.label_ids, places))
        errors["key"].append(tf.gather(keys, best.indices))
    return {name: tf.stack(rows) for name, rows in errors.items()}


def _highest(pairs: Pairs, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Each document's highest value, or -1, and the first column that has it, or 0: [batch]."""
    documents, num_documents = pairs.documents, pairs.num_documents
    highest = tf.math.unsorted_segment_max(values, documents, num_documents)
    columns = tf.where(values == tf.gather(highest, documents), pairs.columns, pairs.num_columns)
    first = tf.math.unsorted_segment_min(columns, documents, num_documents)
    return tf.maximum(highest, -1.0), tf.where(first < pairs.num_columns, first, 0)


def top_errors(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of several `confident_errors` the most confident, padded with confidence -1; ties by key."""
    columns = {
        name: np.concatenate([part[name] for part in parts], axis=1)
        for name in ("confidence", "label", "key")
    }
    order = np.stack(
        [
            np.lexsort((key, -confidence))[:_MAX_ERRORS]
            for key, confidence in zip(columns["key"], columns["confidence"], strict=True)
        ]
    )
    missing = _MAX_ERRORS - order.shape[1]
    return {
        name: np.pad(
            np.take_along_axis(values, order, axis=1), ((0, 0), (0, missing)), constant_values=-1
        )
        for name, values in columns.items()
    }


def describe_errors(errors: Mapping[str, np.ndarray], dataset: Dataset, split: str) -> Errors:
    """`top_errors` with their documents; reads the split's records once, for their text."""
    documents = _read_documents(
        dataset, split, keys=set(errors["key"][errors["confidence"] >= 0].tolist())
    )
    wrong_confidence, missed_confidence = errors["confidence"]

    def examples(row: int, confidence: np.ndarray, scores: np.ndarray) -> tuple[ErrorExample, ...]:
        columns = confidence, scores, errors["label"][row], errors["key"][row]
        return tuple(
            ErrorExample(label=dataset.label_names[label], score=score, **documents[key])
            for value, score, label, key in zip(*(c.tolist() for c in columns), strict=True)
            if value >= 0
        )

    # In float64: 1 - (1 - score) then keeps all bits that the confidence has.
    return Errors(
        wrong=examples(0, wrong_confidence, wrong_confidence),
        missed=examples(1, missed_confidence, 1 - missed_confidence.astype(np.float64)),
    )


def _read_documents(dataset: Dataset, split: str, *, keys: set[int]) -> dict[int, dict]:
    """By key, the id, label names and text of a document, as keywords of `ErrorExample`."""
    documents = {}
    names, texts = dataset.label_names, dataset.record_spec.text_names
    for parsed in read_records(dataset, split, ["id", "labels", *texts]) if keys else ():
        batch_keys = document_key(tf.constant(parsed["id"])).numpy().tolist()
        label_ids, splits = parsed["labels"].values.numpy(), parsed["labels"].row_splits.numpy()
        for row, key in enumerate(batch_keys):
            if key in keys:
                text = " | ".join(parsed[name][row].decode("utf-8", "replace") for name in texts)
                documents[key] = {
                    "id": parsed["id"][row].decode("utf-8", "replace"),
                    "labels": tuple(
                        names[label] for label in label_ids[slice(*splits[row : row + 2])]
                    ),
                    "text": _cut(text),
                }
    return documents


def _cut(text: str) -> str:
    if len(text) <= _MAX_TEXT_CHARACTERS:
        return text
    return text[:_MAX_TEXT_CHARACTERS] + "..."
