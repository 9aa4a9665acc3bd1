"""Slices of a split's documents, by length and by metadata, and what is counted of each."""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.records import read_records
from trainer.metrics.classification import ratio
from trainer.metrics.pairs import Pairs
from trainer.runs.evaluation_record import Slice

# Of a metadata field, the most frequent; the documents of all others are one slice.
MAX_VALUES = 10
# Values of a metadata field that are kept while they are counted.
_MAX_COUNTED_VALUES = 100_000
_QUARTILES = ("0.25", "0.5", "0.75")


@dataclasses.dataclass(frozen=True)
class Slicing:
    """How a split's documents are divided, in one or several ways.

    Attributes:
      length_edges: the maximum number of tokens in each slice by length except the last.
      values: by metadata field, the UTF-8 values that have a slice of their own.
    """

    length_edges: tuple[int, ...]
    values: Mapping[str, tuple[bytes, ...]]

    @property
    def names(self) -> list[tuple[str, str]]:
        """Of every slice, (`length` or the metadata field, the part of it)."""
        rows, low = [], 0
        for edge in self.length_edges:
            rows.append(("length", f"{low:,} to {edge:,} tokens"))
            low = edge + 1
        rows.append(("length", f"{low:,} tokens and more"))
        for field, values in self.values.items():
            for value in values:
                rows.append((field, value.decode("utf-8", "replace") or "(empty)"))
            rows.append((field, "(other)"))
        return rows

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of slices by length and of each metadata field: all that `members` rests on,
        besides the edges.
        """
        return (len(self.length_edges) + 1, *(len(values) + 1 for values in self.values.values()))

    def metadata_slices(self, parsed: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The index of each document's slice within each metadata field, from parsed records.

        Returns:
          int32 [batch, fields]; on a CPU.
        """
        documents = tf.shape(parsed["id"])[0]
        if not self.values:
            return tf.zeros([documents, 0], tf.int32)
        columns = []
        for field, values in self.values.items():
            known = tf.constant(values, tf.string, shape=[len(values)])
            is_value = parsed[f"metadata/{field}"][:, tf.newaxis] == known
            is_other = tf.fill([documents, 1], True)  # argmax takes the first that is true
            columns.append(
                tf.argmax(tf.concat([is_value, is_other], axis=1), axis=1, output_type=tf.int32)
            )
        return tf.stack(columns, axis=1)

    def members(self, lengths: tf.Tensor, metadata: tf.Tensor) -> tf.Tensor:
        """float32 [batch, slices]: 1 where a document is in a slice; in the graph.

        Args:
          lengths: int64 [batch], the documents' tokens.
          metadata: `metadata_slices`.
        """
        edges = tf.constant(self.length_edges, tf.int64, shape=[len(self.length_edges)])
        is_longer = tf.cast(lengths[:, tf.newaxis] > edges, tf.int32)
        parts = [tf.one_hot(tf.reduce_sum(is_longer, axis=1), len(self.length_edges) + 1)]
        for i, values in enumerate(self.values.values()):
            parts.append(tf.one_hot(metadata[:, i], len(values) + 1))
        return tf.concat(parts, axis=1)


def slicing_of(dataset: Dataset, split: str) -> Slicing:
    """The slices of a split: by length, at the quartiles of the train split, and by metadata.

    Each metadata field is divided by its most frequent values in the split.

    Raises:
      UserError: a shard is corrupt.
    """
    quantiles = dataset.manifest.splits["train"].token_length_quantiles
    edges = sorted({quantiles[q] for q in _QUARTILES if q in quantiles})
    fields = dataset.record_spec.metadata_fields
    values = _frequent_values(dataset, split)
    return Slicing(tuple(edges), dict(zip(fields, values, strict=True)))


def _frequent_values(dataset: Dataset, split: str) -> list[tuple[bytes, ...]]:
    """By metadata field, its most frequent values in the split."""
    spec = dataset.record_spec
    if not spec.metadata_names:
        return []
    counters = [collections.Counter() for _ in spec.metadata_names]
    for parsed in read_records(dataset, split, list(spec.metadata_names)):
        for counter, name in zip(counters, spec.metadata_names, strict=True):
            counter.update(parsed[name].tolist())
            # A field that differs in every document has no frequent values anyway.
            if len(counter) > 2 * _MAX_COUNTED_VALUES:
                for value in _by_frequency(counter)[_MAX_COUNTED_VALUES:]:
                    del counter[value]
    return [tuple(_by_frequency(counter)[:MAX_VALUES]) for counter in counters]


def _by_frequency(counter: collections.Counter[bytes]) -> list[bytes]:
    return sorted(counter, key=lambda value: (-counter[value], value))


# --- what is counted -------------------------------------------------------------------


def slice_counts(
    labels: tf.Tensor, decisions: tf.Tensor, members: tf.Tensor, mask: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Sums over the documents of each slice, in the graph.

    Args:
      labels, decisions: bool [batch, labels], or the pairs of these.
      members: float32 [batch, slices].
      mask: float32 [batch].

    Returns:
      documents, tp, fp, fn: int64 [slices]; sample_f1: float64 [slices].
    """
    positive, decided = Pairs.of(labels), Pairs.of(decisions)
    hits = decided.which_are_in(positive).count_by_document()
    predicted, positives = decided.count_by_document(), positive.count_by_document()
    weights = members * tf.cast(mask, tf.float32)[:, tf.newaxis]

    def sum_over_documents(column):
        return tf.cast(tf.linalg.matvec(weights, column, transpose_a=True), tf.int64)

    f1 = tf.math.divide_no_nan(2 * hits, predicted + positives)
    return {
        "documents": sum_over_documents(tf.ones_like(hits)),
        "tp": sum_over_documents(hits),
        "fp": sum_over_documents(predicted - hits),
        "fn": sum_over_documents(positives - hits),
        "sample_f1": tf.linalg.matvec(
            tf.cast(weights, tf.float64), tf.cast(f1, tf.float64), transpose_a=True
        ),
    }


def describe_slices(slicing: Slicing, counts: Mapping[str, np.ndarray]) -> tuple[Slice, ...]:
    """The metrics of every slice that has documents."""
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    columns = {
        "documents": counts["documents"],
        "micro_precision": ratio(tp, tp + fp),
        "micro_recall": ratio(tp, tp + fn),
        "micro_f1": ratio(2 * tp, 2 * tp + fp + fn),
        "sample_f1": ratio(counts["sample_f1"], counts["documents"]),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    described = [
        Slice(by=by, name=name, **dict(zip(columns, row, strict=True)))
        for (by, name), row in zip(slicing.names, rows, strict=True)
    ]
    return tuple(row for row in described if row.documents)
