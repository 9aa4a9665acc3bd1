"""Slices of a split's documents, by length and by metadata, and what is counted of each."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.records import read_records
from trainer.metrics.classification import ratio

MOST_VALUES = (
    10  # of a metadata field, the most frequent; the documents of all others are one slice
)
_MOST_COUNTED = 100_000  # values of a metadata field kept while they are counted
_QUARTILES = ("0.25", "0.5", "0.75")


@dataclasses.dataclass(frozen=True)
class Slicing:
    """How a split's documents are divided, in one or several ways.

    Attributes:
      length_edges: the most tokens of a document in each slice by length but the last.
      values: by metadata field, the UTF-8 values that have a slice of their own.
    """

    length_edges: tuple[int, ...]
    values: Mapping[str, tuple[bytes, ...]]

    @property
    def names(self) -> list[tuple[str, str]]:
        """(what divides, which part) of every slice."""
        edges = self.length_edges
        low = [0, *(edge + 1 for edge in edges)]
        lengths = [f"{a:,} to {b:,} tokens" for a, b in zip(low, edges, strict=False)] + (
            [f"{low[-1]:,} tokens and more"]
        )
        rows = [("length", name) for name in lengths]
        for field, values in self.values.items():
            rows += [(field, value.decode("utf-8", "replace") or "(empty)") for value in values] + [
                (field, "(other)")
            ]
        return rows

    def metadata_slices(self, parsed: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """int32 [batch, fields]: each document's slice within each metadata field; on a CPU, from parsed records."""
        columns = []
        for field, values in self.values.items():
            is_value = parsed[f"metadata/{field}"][:, tf.newaxis] == tf.constant(
                values, tf.string, shape=[len(values)]
            )
            others = tf.fill([tf.shape(is_value)[0], 1], True)
            columns.append(
                tf.argmax(tf.concat([is_value, others], axis=1), axis=1, output_type=tf.int32)
            )
        return (
            tf.stack(columns, axis=1)
            if columns
            else tf.zeros([tf.shape(parsed["id"])[0], 0], tf.int32)
        )

    def members(self, tokens: Any, metadata: tf.Tensor) -> tf.Tensor:
        """float32 [batch, slices]: 1 where a document is in a slice; in the graph.

        Args:
          tokens: a batch's token ids, tf.RaggedTensor [batch, None], or a tuple of them.
          metadata: `metadata_slices`.
        """
        length = tf.add_n([part.row_lengths() for part in tf.nest.flatten(tokens)])
        place = tf.reduce_sum(
            tf.cast(
                length[:, tf.newaxis]
                > tf.constant(self.length_edges, tf.int64, shape=[len(self.length_edges)]),
                tf.int32,
            ),
            1,
        )
        parts = [tf.one_hot(place, len(self.length_edges) + 1)]
        parts += [
            tf.one_hot(metadata[:, i], len(values) + 1)
            for i, values in enumerate(self.values.values())
        ]
        return tf.concat(parts, axis=1)


def slicing_of(dataset: Dataset, split: str) -> Slicing:
    """The slices of a split: by the quartiles of length in the train split, and by the most frequent values of each metadata field.

    Raises:
      UserError: a shard is corrupt.
    """
    quantiles = dataset.manifest.splits["train"].token_length_quantiles
    edges = sorted({quantiles[q] for q in _QUARTILES if q in quantiles})
    fields = dataset.record_spec.metadata_fields
    return Slicing(
        tuple(edges),
        {
            field: values
            for field, values in zip(fields, _frequent_values(dataset, split), strict=True)
        },
    )


def _frequent_values(dataset: Dataset, split: str) -> list[tuple[bytes, ...]]:
    spec = dataset.record_spec
    if not spec.metadata_names:
        return []
    counters = [collections.Counter() for _ in spec.metadata_names]
    for parsed in read_records(dataset, split, list(spec.metadata_names)):
        for counter, name in zip(counters, spec.metadata_names, strict=True):
            counter.update(parsed[name].tolist())
            if (
                len(counter) > 2 * _MOST_COUNTED
            ):  # a field that tells documents apart has no frequent values anyway
                for value in _by_frequency(counter)[_MOST_COUNTED:]:
                    del counter[value]
    return [tuple(_by_frequency(counter)[:MOST_VALUES]) for counter in counters]


def _by_frequency(counter: collections.Counter[bytes]) -> list[bytes]:
    return sorted(counter, key=lambda value: (-counter[value], value))


# --- what is counted -------------------------------------------------------------------


def slice_counts(
    labels: tf.Tensor, decisions: tf.Tensor, members: tf.Tensor, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Sums over the documents of each slice, in the graph.

    Args:
      labels: float32 or bool [batch, labels].
      decisions: bool [batch, labels].
      members: float32 [batch, slices].
      mask: float32 [batch].

    Returns:
      documents, tp, fp, fn: int64 [slices]; sample_f1: float64 [slices].
    """
    positive, decided = tf.cast(labels, tf.float32), tf.cast(decisions, tf.float32)
    hits = tf.reduce_sum(positive * decided, axis=1)
    predicted, positives = tf.reduce_sum(decided, axis=1), tf.reduce_sum(positive, axis=1)
    weights = members * tf.cast(mask, tf.float32)[:, tf.newaxis]

    def over_documents(column):
        return tf.linalg.matvec(weights, column, transpose_a=True)

    columns = {
        "documents": tf.ones_like(hits),
        "tp": hits,
        "fp": predicted - hits,
        "fn": positives - hits,
    }
    f1 = tf.linalg.matvec(
        tf.cast(weights, tf.float64),
        tf.cast(tf.math.divide_no_nan(2 * hits, predicted + positives), tf.float64),
        transpose_a=True,
    )
    return {name: tf.cast(over_documents(column), tf.int64) for name, column in columns.items()} | {
        "sample_f1": f1
    }


def describe_slices(slicing: Slicing, counts: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """[{"by", "name", "documents", "micro_precision", "micro_recall", "micro_f1", "sample_f1"}] of the slices that have documents; plain JSON."""
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    columns = {
        "documents": counts["documents"],
        "micro_precision": ratio(tp, tp + fp),
        "micro_recall": ratio(tp, tp + fn),
        "micro_f1": ratio(2 * tp, 2 * tp + fp + fn),
        "sample_f1": ratio(counts["sample_f1"], counts["documents"]),
    }
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]
    return [
        {"by": by, "name": name} | row
        for (by, name), row in zip(slicing.names, rows, strict=True)
        if row["documents"]
    ]
