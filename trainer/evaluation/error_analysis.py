"""What goes wrong: which labels are taken for which, and the errors that the model is surest of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.records import read_records
from trainer.metrics.bootstrap import document_key

MOST_CONFUSION_LABELS = 512  # the counts of their pairs take 4 MB
_PAIRS_SHOWN = 50
_ERRORS_SHOWN = 20
_TEXT_CHARACTERS = 600


# --- confusions ------------------------------------------------------------------------


def confusion_labels(errors: np.ndarray, train_positives: np.ndarray) -> np.ndarray:
    """The labels whose confusions are counted: all of them, or the MOST_CONFUSION_LABELS with the most errors on validation; sorted ids.

    Args:
      errors: int [labels], false positives and false negatives, all 0 where there is no validation split.
      train_positives: int [labels], which decides where errors are equal.
    """
    order = np.lexsort((np.arange(len(errors)), -train_positives, -errors))
    return np.sort(order[:MOST_CONFUSION_LABELS])


def confusion_counts(
    labels: tf.Tensor,
    scores: tf.Tensor,
    decisions: tf.Tensor,
    mask: tf.Tensor,
    *,
    chosen: np.ndarray,
) -> dict[str, tf.Tensor]:
    """Pairs of labels, counted in the graph. One batch must hold fewer than 2^24 documents.

    Args:
      labels: float32 [batch, labels].
      scores: float32 [batch, labels].
      decisions: bool [batch, labels].
      mask: float32 [batch].
      chosen: int [n], `confusion_labels`.

    Returns:
      pairs: int64 [n, n], documents that have the row's label but not assigned, while the column's is assigned and wrong;
      matrix: int64 [n, n], documents with the row's label whose best-scored label is the column's;
      one_label: int64 [], documents with exactly one label.
    """
    weight, decided = tf.cast(mask, tf.float32)[:, tf.newaxis], tf.cast(decisions, tf.float32)
    own, assigned = (tf.gather(matrix, chosen, axis=1) for matrix in (labels, decided))
    best = tf.cast(
        tf.argmax(scores, axis=1)[:, tf.newaxis] == tf.constant(chosen, tf.int64), tf.float32
    )

    def together(left, right):
        return tf.cast(tf.matmul(left * weight, right, transpose_a=True), tf.int64)

    one_label = tf.cast(tf.reduce_sum(labels, axis=1) == 1, tf.float32)
    return {
        "pairs": together(own * (1 - assigned), assigned * (1 - own)),
        "matrix": together(own, best),
        "one_label": tf.cast(tf.reduce_sum(one_label * weight[:, 0]), tf.int64),
    }


def describe_confusions(
    counts: Mapping[str, np.ndarray], *, chosen: np.ndarray, names: Sequence[str], documents: int
) -> dict[str, Any]:
    """Plain JSON values.

    Returns:
      labels: how many labels were looked at; pairs: [{"present", "predicted", "documents"}], the most frequent first; and where every
      document has exactly one label and all labels were looked at, matrix: {"labels": [name], "rows": [[documents]]} by their ids.
    """
    pairs = counts["pairs"]
    cells = np.argsort(-pairs, axis=None, kind="stable")[:_PAIRS_SHOWN]
    rows = [
        {"present": names[chosen[a]], "predicted": names[chosen[b]], "documents": int(pairs[a, b])}
        for a, b in zip(*np.unravel_index(cells, pairs.shape), strict=True)
        if pairs[a, b]
    ]
    confusions: dict[str, Any] = {"labels": len(chosen), "pairs": rows}
    if counts["one_label"] == documents and len(chosen) == len(names):
        confusions["matrix"] = {"labels": list(names), "rows": counts["matrix"].tolist()}
    return confusions


# --- errors that the model is surest of ------------------------------------------------


def confident_errors(
    labels: tf.Tensor, scores: tf.Tensor, decisions: tf.Tensor, mask: tf.Tensor, keys: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The batch's wrong labels with the highest scores, and its missed ones with the lowest, one a document at most; in the graph.

    Args:
      labels: float32 [batch, labels].
      scores: float32 [batch, labels], in [0, 1].
      decisions: bool [batch, labels].
      mask: float32 [batch].
      keys: int64 [batch], `trainer.metrics.bootstrap.document_key`.

    Returns:
      surety: float32 [2, n], the score of a wrong label, or one minus that of a missed one; -1 where there is no error;
      label: int64 [2, n]; key: int64 [2, n].
    """
    is_real, positive, decided = (
        tf.cast(mask, tf.bool)[:, tf.newaxis],
        tf.cast(labels, tf.bool),
        tf.cast(decisions, tf.bool),
    )
    sides = {"surety": [], "label": [], "key": []}
    for is_error, surety in ((decided & ~positive, scores), (positive & ~decided, 1 - scores)):
        surety = tf.where(is_error & is_real, surety, -1.0)
        best = tf.math.top_k(
            tf.reduce_max(surety, axis=1), tf.minimum(_ERRORS_SHOWN, tf.shape(scores)[0])
        )
        sides["surety"].append(best.values)
        sides["label"].append(tf.gather(tf.argmax(surety, axis=1), best.indices))
        sides["key"].append(tf.gather(keys, best.indices))
    return {name: tf.stack(columns) for name, columns in sides.items()}


def surest(errors: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of several `confident_errors` the surest, as many as are shown, padded with surety -1; ties by key."""
    columns = {
        name: np.concatenate([part[name] for part in errors], axis=1)
        for name in ("surety", "label", "key")
    }
    order = [
        np.lexsort((key, -surety))[:_ERRORS_SHOWN]
        for key, surety in zip(columns["key"], columns["surety"], strict=True)
    ]
    rows = {
        name: np.stack([column[i] for column, i in zip(values, order, strict=True)])
        for name, values in columns.items()
    }
    missing = _ERRORS_SHOWN - rows["key"].shape[1]
    return {
        name: np.pad(values, ((0, 0), (0, missing)), constant_values=-1)
        for name, values in rows.items()
    }


def describe_errors(
    errors: Mapping[str, np.ndarray], dataset: Dataset, split: str
) -> dict[str, list[dict[str, Any]]]:
    """{"wrong": [{"id", "label", "score", "labels", "text"}], "missed": [same]}, surest first; reads the split's records once for their text."""
    wanted = set(errors["key"][errors["surety"] >= 0].tolist())
    found: dict[int, dict[str, Any]] = {}
    names, texts = dataset.label_names, dataset.record_spec.text_names
    for parsed in read_records(dataset, split, ["id", "labels", *texts]) if wanted else ():
        keys, labels = document_key(tf.constant(parsed["id"])).numpy().tolist(), parsed["labels"]
        for row in [row for row, key in enumerate(keys) if key in wanted]:
            text = " | ".join(parsed[name][row].decode("utf-8", "replace") for name in texts)
            found[keys[row]] = {
                "id": parsed["id"][row].decode("utf-8", "replace"),
                "labels": [names[label] for label in labels[row].numpy()],
                "text": text if len(text) <= _TEXT_CHARACTERS else text[:_TEXT_CHARACTERS] + "...",
            }
    sides = {}
    for side, (name, of_side) in enumerate(
        (("wrong", lambda surety: surety), ("missed", lambda surety: 1 - surety))
    ):
        rows = zip(*(errors[key][side].tolist() for key in ("surety", "label", "key")), strict=True)
        sides[name] = [
            {"label": names[label], "score": of_side(surety)} | found[key]
            for surety, label, key in rows
            if surety >= 0
        ]
    return sides
