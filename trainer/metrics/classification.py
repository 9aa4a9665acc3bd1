"""Metrics of multi-label classification: streamed as sums in the graph, summarized with NumPy.

The graph functions take one batch and return sums. The sums of batches and replicas add up
(`add`) to those of all documents, so that every metric is exact over any number of replicas; only
the three float64 sums over documents depend on the order of addition, in their last bits. No
state is larger than labels x bins.

The ranking of labels is counted in `trainer.metrics.ranking`, and what follows from histograms of
log-odds is in `trainer.metrics.score_histograms`.

Arguments that recur:
  labels: float32 or bool [batch, labels], multi-hot (`trainer.data.labels.multi_hot`), or the
    `trainer.metrics.pairs.Pairs` of these.
  scores: float [batch, labels], probabilities in [0, 1].
  decisions: bool [batch, labels] (`decide`), or the pairs of these.
  columns: which labels `labels`, `scores` and `decisions` have columns of; None: all, in order.
  mask: float32 or bool [batch], 1 for a document and 0 for padding.

A ratio with a zero denominator is 0, as with `zero_division=0` in scikit-learn; so the F1 of a
label without positives and predictions is 0, and so is the sample F1 of a document without labels
and decisions, although nothing about it is wrong.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics.columns import Columns, of_labels, of_pairs
from trainer.metrics.pairs import Pairs

# Thresholds are the multiples of 1 / NUM_BINS. It is a power of two, so that they and
# score * NUM_BINS are exact in float32: with 1000, a score of float32(0.251) would fall below the
# threshold 0.251.
NUM_BINS = 1024
# The threshold bin that no score reaches.
NEVER = NUM_BINS + 1
# A histogram of more labels than this holds at NUM_BINS has fewer bins, see `histogram_bins`.
HISTOGRAM_BYTES = 256 << 20  # 256 MiB


# --- in the graph: one batch -> sums ---------------------------------------------------


def histogram_bins(num_labels: int) -> int:
    """The number of bins of score histograms, which keeps them within HISTOGRAM_BYTES.

    A power of two: 1024 (NUM_BINS) up to 16,368 labels, 512 up to 32,704, 64 at 200,000, at least
    16. Thresholds are then multiples of 1 / bins.
    """
    bins = NUM_BINS
    while bins > 16 and 16 * num_labels * (bins + 1) > HISTOGRAM_BYTES:
        bins //= 2
    return bins


def score_bins(scores: tf.Tensor, num_bins: int = NUM_BINS) -> tf.Tensor:
    """The bin of each score: floor(score * num_bins), clipped to [0, num_bins]; NaN is in bin 0.

    Args:
      scores: float, of any shape.
      num_bins: a power of two.

    Returns:
      int32, in the shape of `scores`.
    """
    # Clipped as integers: NaN casts to an integer that depends on the device, but never to one in
    # (0, num_bins].
    bins = tf.cast(tf.cast(scores, tf.float32) * num_bins, tf.int32)
    return tf.clip_by_value(bins, 0, num_bins)


def decide(scores: tf.Tensor, threshold_bins: Any) -> tf.Tensor:
    """Which labels are assigned: score >= threshold, by the bins that `score_histogram` counts.

    Args:
      scores: float [batch, labels].
      threshold_bins: integers [labels], or one for all: thresholds times NUM_BINS. 0 assigns
        always, NEVER never.

    Returns:
      bool [batch, labels].
    """
    return score_bins(scores) >= tf.cast(threshold_bins, tf.int32)


def decided_pairs(scores: tf.Tensor, *threshold_bins: tf.Tensor) -> list[Pairs]:
    """The pairs that `decide` assigns, for each of several thresholds [labels].

    All scores are compared but once, with the lowest thresholds.
    """
    thresholds = [tf.cast(bins, tf.int32) for bins in threshold_bins]
    bins = score_bins(scores)
    candidates = Pairs.of(bins >= functools.reduce(tf.minimum, thresholds))
    bins = candidates.values_of(bins)
    return [candidates.where(bins >= tf.gather(of, candidates.columns)) for of in thresholds]


def score_histogram(
    labels: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor, *, num_bins: int = NUM_BINS
) -> tf.Tensor:
    """How many scores of each label fall in each bin, for negatives and positives separately.

    Memory: see `histogram_of_bins`; 82 MB at 5,000 labels. `histogram_bins` bounds it.

    Returns:
      int64 [2, labels, num_bins + 1]: [0] counts negatives, [1] positives.
    """
    return histogram_of_bins(
        labels, score_bins(tf.transpose(scores), num_bins), mask, num_bins=num_bins + 1
    )


def score_counts(scores: tf.Tensor, mask: tf.Tensor, *, num_bins: int) -> tf.Tensor:
    """How many scores of each label fall in each bin, of negatives and positives together.

    Returns:
      int32 [labels, num_bins + 1].
    """
    return count_by_label(score_bins(tf.transpose(scores), num_bins), mask, num_bins=num_bins + 1)


def score_cells(
    scores: tf.Tensor, mask: tf.Tensor, *, num_bins: int, columns: Columns | None = None
) -> tf.Tensor:
    """The cells of `score_counts` that the scores of a batch fall in, except for those of bin 0.

    Where nearly all scores are in bin 0, or documents are few, they cost less than the counts, and
    labels without a column need none.

    Returns:
      int32 [n], indices of `score_counts` in C order, one for each score.
    """
    bins = score_bins(scores, num_bins)
    pairs = Pairs.of((bins > 0) & tf.cast(mask, tf.bool)[:, tf.newaxis])
    return cells_of_bins(pairs, pairs.values_of(bins), num_bins=num_bins + 1, columns=columns)


def cells_of_bins(
    pairs: Pairs, bins: tf.Tensor, *, num_bins: int, columns: Columns | None = None
) -> tf.Tensor:
    """The bins int32 [n] of pairs as indices of [labels, num_bins] in C order, int32 [n]."""
    label_ids = of_pairs(pairs, columns)
    return tf.cast(label_ids * num_bins + tf.cast(bins, tf.int64), tf.int32)


def histogram_of_bins(
    labels: tf.Tensor, bins: tf.Tensor, mask: tf.Tensor, *, num_bins: int
) -> tf.Tensor:
    """How often each label falls in each bin, for negatives and positives separately.

    Memory: the result takes 16 bytes x labels x num_bins; while it is made, as much again, and
    12 bytes x batch x labels. One batch must hold fewer than 2^31 documents.

    Args:
      labels: [batch, labels].
      bins: int32 [labels, batch], in [0, num_bins). Transposed, because labels are counted row by
        row.
      mask: [batch], or [batch, labels] where only some labels of a document are counted.
      num_bins: the number of bins.

    Returns:
      int64 [2, labels, num_bins].
    """
    # Transposed as floats: on many CPUs oneDNN complains of an int32 transpose.
    positive = tf.transpose(tf.cast(labels, tf.float32)) > 0
    cells = bins + tf.where(positive, num_bins, 0)
    counts = count_by_label(cells, mask, num_bins=2 * num_bins)
    return tf.cast(tf.stack([counts[:, :num_bins], counts[:, num_bins:]]), tf.int64)


def count_by_label(bins: tf.Tensor, mask: tf.Tensor, *, num_bins: int) -> tf.Tensor:
    """How often each label falls in each bin: int32 [labels, num_bins], see `histogram_of_bins`."""
    is_counted = tf.cast(mask, tf.float32)
    is_counted = is_counted[tf.newaxis, :] if len(mask.shape) == 1 else tf.transpose(is_counted)
    # The op ignores cells past the end.
    bins = tf.where(is_counted > 0, bins, num_bins)
    # One row per label is counted in parallel without private copies: 2.5 times as fast at 5,000
    # labels as a flat bincount or unsorted_segment_sum, 7 times as fast as scatter_nd. int32,
    # because the op has no int64 kernel on a GPU.
    return tf.raw_ops.DenseBincount(input=bins, size=num_bins, weights=tf.zeros([0], tf.int32))


def decision_counts(
    labels: tf.Tensor, decisions: tf.Tensor, mask: tf.Tensor, columns: Columns | None = None
) -> dict[str, tf.Tensor]:
    """What `summarize` and `per_label` need to know of the decisions.

    One batch must hold fewer than 2^24 documents and labels: they are counted in float32.

    Returns:
      tp, fp, fn: int64 [labels], true positives, false positives, false negatives; tp + fn are the
        positives.
      documents: int64 [], the documents in the batch without padding.
      sample_precision, sample_recall, sample_f1: float64 [], sums over documents.
      subset_accurate: int64 [], documents whose decisions are all right.
    """
    mask = tf.cast(mask, tf.float32)
    positive = Pairs.of(labels).without_padding(mask)
    decided = Pairs.of(decisions).without_padding(mask)
    hit = decided.which_are_in(positive)

    def sum_by_label(pairs):
        return of_labels(pairs.count_by_column(), columns)

    def sum_by_document(pairs):
        return tf.cast(pairs.count_by_document(), tf.float64)

    tp = sum_by_label(hit)
    hits, positives = sum_by_document(hit), sum_by_document(positive)
    predicted = sum_by_document(decided)
    weight = tf.cast(mask, tf.float64)
    return {
        "tp": tp,
        "fp": sum_by_label(decided) - tp,
        "fn": sum_by_label(positive) - tp,
        "documents": tf.cast(tf.reduce_sum(mask), tf.int64),
        "sample_precision": tf.reduce_sum(weight * tf.math.divide_no_nan(hits, predicted)),
        "sample_recall": tf.reduce_sum(weight * tf.math.divide_no_nan(hits, positives)),
        "sample_f1": tf.reduce_sum(weight * tf.math.divide_no_nan(2 * hits, positives + predicted)),
        "subset_accurate": tf.cast(
            tf.reduce_sum(tf.where((hits == positives) & (hits == predicted), mask, 0)), tf.int64
        ),
    }


# --- on the host: sums -> numbers to read ----------------------------------------------


def add(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The counts of two sets of documents together.

    Raises:
      ValueError: they hold different counts.
    """
    if left.keys() != right.keys():
        raise ValueError(
            f"received the counts {sorted(left)} and {sorted(right)}, expected the same in both"
        )
    return {key: left[key] + right[key] for key in left}


def add_cells(histogram: np.ndarray, cells: np.ndarray, *, documents: int) -> None:
    """Adds the scores of a batch to the negatives of a `score_histogram`, in place.

    Args:
      histogram: int64 [2, labels, bins + 1].
      cells: `score_cells` of the batch.
      documents: the documents in the batch without padding.
    """
    _, num_labels, row = histogram.shape
    np.add.at(histogram[0].reshape(-1), cells, 1)
    histogram[0, :, 0] += documents - np.bincount(cells // row, minlength=num_labels)


def move_positives(histogram: np.ndarray, cells: np.ndarray) -> None:
    """Makes positives of those in `cells`, which were counted as negatives, in place.

    Args:
      histogram: int64 [2, labels, bins].
      cells: `cells_of_bins` of the positives.
    """
    negatives, positives = histogram.reshape(2, -1)
    np.add.at(negatives, cells, -1)
    np.add.at(positives, cells, 1)


def summarize(counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The metrics of one method's decisions, as plain values.

    Those of its ranking are `trainer.metrics.ranking.summarize_ranking`.

    Args:
      counts: summed `decision_counts`.

    Returns:
      micro_, macro_, weighted_ and sample_ precision, recall and f1 as scikit-learn defines them
      (macro over all labels); macro_*_present, the same over the labels with a positive;
      subset_accuracy; hamming_loss; documents; labels; labels_present.
    """
    tp, fp, fn = (np.asarray(counts[key]) for key in ("tp", "fp", "fn"))
    documents, positives = int(counts["documents"]), tp + fn
    each = _precision_recall_f1(tp, tp + fp, positives)
    micro = _precision_recall_f1(tp.sum(), (tp + fp).sum(), positives.sum())
    summary: dict[str, Any] = {
        "documents": documents,
        "labels": len(tp),
        "labels_present": int((positives > 0).sum()),
    }
    for name, values in each.items():
        summary[f"micro_{name}"] = float(micro[name])
        summary[f"macro_{name}"] = float(ratio(values.sum(), len(tp)))
        summary[f"macro_{name}_present"] = float(
            ratio(values[positives > 0].sum(), (positives > 0).sum())
        )
        summary[f"weighted_{name}"] = float(ratio((values * positives).sum(), positives.sum()))
        summary[f"sample_{name}"] = float(ratio(counts[f"sample_{name}"], documents))
    summary["subset_accuracy"] = float(ratio(counts["subset_accurate"], documents))
    summary["hamming_loss"] = float(ratio((fp + fn).sum(), documents * len(tp)))
    return summary


def per_label(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics of every label, in the order of label ids.

    Args:
      counts: summed `decision_counts`.

    Returns:
      positives, predicted: int64 [labels]; precision, recall, f1: float64 [labels].
    """
    tp = np.asarray(counts["tp"])
    predicted, positives = tp + counts["fp"], tp + counts["fn"]
    return {"positives": positives, "predicted": predicted} | _precision_recall_f1(
        tp, predicted, positives
    )


def sweep(histogram: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 at every threshold, exactly.

    Args:
      histogram: [2, ..., bins + 1], of `score_histogram`. Summed over labels
        (`histogram.sum(axis=1)`) it gives micro metrics.

    Returns:
      precision, recall, f1: float64 [..., bins + 1]; index k is the threshold k / bins.
    """
    false, true = _reached(histogram)
    return _precision_recall_f1(true, false + true, true[..., :1])


def sweep_f1(histogram: np.ndarray, bins: Any = slice(None)) -> np.ndarray:
    """The F1 of `sweep` alone, at some of the thresholds."""
    false, true = _reached(histogram)
    positives = true[..., :1]
    false, true = false[..., bins], true[..., bins]
    return ratio(2 * true, false + true + positives)


def _reached(histogram: np.ndarray) -> np.ndarray:
    """How many negatives and positives reach each threshold: [2, ..., bins + 1]."""
    return np.cumsum(histogram[..., ::-1], axis=-1)[..., ::-1]


def _precision_recall_f1(tp: Any, predicted: Any, positives: Any) -> dict[str, np.ndarray]:
    # F1 is divided once, from integers: equal F1s are then equal floats, which the rule for ties
    # between thresholds relies on.
    return {
        "precision": ratio(tp, predicted),
        "recall": ratio(tp, positives),
        "f1": ratio(2 * tp, predicted + positives),
    }


def ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """float64 numerator / denominator, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
