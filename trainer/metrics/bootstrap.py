"""Confidence intervals by the Poisson bootstrap.

In every replicate of the bootstrap, every document counts a Poisson-distributed number of times.
These numbers follow from the document's id and the seed, so the intervals do not depend on the
order of documents, and the counts of the replicates add up over batches, replicas and workers
(Chamandy et al. 2012, Estimating uncertainty for massive data streams).
"""

import math

import numpy as np
import tensorflow as tf

from trainer.metrics.classification import ratio
from trainer.metrics.columns import Columns, of_labels
from trainer.metrics.pairs import Pairs

# Counts of all labels in all replicates; if they are larger, macro-F1 has no interval.
MAX_MACRO_BYTES = 256 << 20  # 256 MiB
_CONFIDENCE = 0.95
# Of mean 1; one number in a million is above 8.
_POISSON_CDF = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(9)])


def document_key(ids: tf.Tensor) -> tf.Tensor:
    """A hash of document ids: string [batch] to int64 [batch]; on a CPU."""
    return tf.strings.to_hash_bucket_fast(ids, 2**63 - 1)


def resample(keys: tf.Tensor, *, replicates: int, seed: int) -> tf.Tensor:
    """How often each document counts in each replicate, Poisson-distributed with mean 1; on a CPU.

    The uniform numbers are those of SplitMix64 (Steele et al. 2014, Fast splittable pseudorandom
    number generators), started from the key.

    Args:
      keys: int64 [batch], `document_key`.
      replicates: the number of replicates.
      seed: any integer.

    Returns:
      float32 [batch, replicates].
    """
    steps = np.arange(1, replicates + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = _mix(tf.cast(keys, tf.uint64) ^ tf.constant(seed % 2**64, tf.uint64))
    bits = _mix(start[:, tf.newaxis] + tf.constant(steps))
    upper_bits = tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64))
    uniform = tf.cast(upper_bits, tf.float32) * np.float32(2**-24)
    return tf.add_n(
        [tf.cast(uniform >= edge, tf.float32) for edge in _POISSON_CDF.astype(np.float32)]
    )


def _mix(state: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (
            state ^ tf.bitwise.right_shift(state, tf.constant(shift, tf.uint64))
        ) * tf.constant(factor, tf.uint64)
    return state ^ tf.bitwise.right_shift(state, tf.constant(31, tf.uint64))


def macro_counts_fit_memory(num_labels: int, *, replicates: int) -> bool:
    """Whether the counts of all labels in all replicates stay within MAX_MACRO_BYTES."""
    return 3 * 8 * num_labels * replicates <= MAX_MACRO_BYTES


def resampled_counts(
    labels: tf.Tensor,
    decisions: tf.Tensor,
    weights: tf.Tensor,
    mask: tf.Tensor,
    *,
    with_labels: bool,
    columns: Columns | None = None,
) -> dict[str, tf.Tensor]:
    """Counts of each replicate, in the graph.

    One batch must hold fewer than 2^24 counts of a label.

    Args:
      labels, decisions: bool [batch, labels], or their pairs.
      weights: float32 [batch, replicates], of `resample`.
      mask: float32 [batch].
      with_labels: count every label separately, for macro-F1.
      columns: see `trainer.metrics.classification`.

    Returns:
      tp, fp, fn: int32 [labels, replicates], or [1, replicates] summed over labels.
    """
    positive = Pairs.of(labels).without_padding(mask)
    decided = Pairs.of(decisions).without_padding(mask)
    hit = decided.which_are_in(positive)

    def resampled(pairs):
        if not with_labels:
            sums = tf.matmul(pairs.count_by_document()[tf.newaxis], weights)
            return tf.cast(sums, tf.int32)
        # Few labels are assigned or right: at 5,000 labels a sparse product takes a tenth of the
        # time.
        matrix = tf.SparseTensor(
            tf.stack([pairs.columns, pairs.documents], axis=1),
            tf.ones_like(pairs.documents, tf.float32),
            tf.stack([pairs.num_columns, pairs.num_documents]),
        )
        sums = tf.sparse.sparse_dense_matmul(matrix, weights)
        return of_labels(tf.cast(sums, tf.int32), columns)

    tp = resampled(hit)
    return {"tp": tp, "fp": resampled(decided) - tp, "fn": resampled(positive) - tp}


def intervals(counts: dict[str, np.ndarray], *, num_labels: int) -> dict[str, tuple[float, float]]:
    """95% percentile intervals, (low, high).

    Macro-F1 is over the labels with a positive in the replicate: over all labels it would be far
    lower in the replicates than on the documents, because a rare label is often in no document of a
    replicate.

    Args:
      counts: summed `resampled_counts`.
      num_labels: the number of labels.

    Returns:
      Those of micro_f1 and, if labels were counted separately, of macro_f1_present.
    """
    # Turned, so that sums over labels run along the rows.
    tp, fp, fn = (np.ascontiguousarray(counts[name].T) for name in ("tp", "fp", "fn"))
    values = {"micro_f1": ratio(2 * tp.sum(axis=1), (2 * tp + fp + fn).sum(axis=1))}
    if tp.shape[1] == num_labels:
        values["macro_f1_present"] = ratio(
            ratio(2 * tp, 2 * tp + fp + fn).sum(axis=1), (tp + fn > 0).sum(axis=1)
        )
    ends = (1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2
    return {name: tuple(np.quantile(value, ends).tolist()) for name, value in values.items()}
