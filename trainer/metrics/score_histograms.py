"""What follows from the score histograms of labels: ROC AUC, average precision, calibration error.

Each comes with the error that binning may cause. Bins of even width in the log-odds separate the
small scores of rare labels, which bins of even width in the score would put together. Histograms
add up over batches and replicas exactly, so that what follows from them is exact too.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics.classification import (
    NUM_BINS,
    cells_of_bins,
    count_by_label,
    histogram_bins,
    histogram_of_bins,
    ratio,
)
from trainer.metrics.columns import Columns
from trainer.metrics.pairs import Pairs

# Log-odds beyond are counted in the outer bins; a score of 1e-7 is at -16.1.
LOG_ODDS_LIMIT = 16.0
# Of even width in the score, as in Guo et al. 2017, On calibration of modern neural networks.
ECE_BINS = 15
# Of the standard normal: labels at chance pass for better in 1 of 20 cases, and in 1 of 10,000.
Z_95 = 1.6449
Z_9999 = 3.7190
# Arrays float64 [these, bins] then take a few MB, however many labels there are.
_LABELS_AT_A_TIME = 1024


# --- in the graph ----------------------------------------------------------------------


def log_odds_bins(num_labels: int) -> int:
    """The number of bins of log-odds histograms: half as many as score histograms have.

    512 bins, the usual number, are 1/16 wide.
    """
    return histogram_bins(num_labels) * 512 // NUM_BINS


def log_odds_histogram(
    labels: tf.Tensor, log_odds: tf.Tensor, mask: tf.Tensor, *, num_bins: int
) -> tf.Tensor:
    """How many log-odds of each label fall in each bin.

    The bins are of even width over [-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT). Log-odds beyond are counted
    in the outer bins, NaN in bin 0.

    Returns:
      int64 [2, labels, num_bins]: [0] counts negatives, [1] positives.
    """
    bins = _bins(tf.transpose(tf.cast(log_odds, tf.float32)), num_bins)
    return histogram_of_bins(labels, bins, mask, num_bins=num_bins)


def log_odds_counts(log_odds: tf.Tensor, mask: tf.Tensor, *, num_bins: int) -> tf.Tensor:
    """`log_odds_histogram` of negatives and positives together: int32 [labels, num_bins]."""
    bins = _bins(tf.transpose(tf.cast(log_odds, tf.float32)), num_bins)
    return count_by_label(bins, mask, num_bins=num_bins)


def log_odds_cells(
    pairs: Pairs, log_odds: tf.Tensor, *, num_bins: int, columns: Columns | None = None
) -> tf.Tensor:
    """The cells of pairs in `log_odds_counts`, as `classification.cells_of_bins` gives them."""
    bins = _bins(pairs.values_of(tf.cast(log_odds, tf.float32)), num_bins)
    return cells_of_bins(pairs, bins, num_bins=num_bins, columns=columns)


def pooled_log_odds_histogram(
    labels: Pairs | tf.Tensor,
    log_odds: tf.Tensor,
    mask: tf.Tensor,
    *,
    num_bins: int,
    columns: Columns | None = None,
) -> tf.Tensor:
    """`log_odds_histogram` summed over labels: int64 [2, bins].

    Labels without a column are negatives in bin 0.
    """
    log_odds = tf.cast(log_odds, tf.float32)
    positive = Pairs.of(labels).without_padding(mask)
    # The op ignores cells past the end.
    bins = tf.where(tf.cast(mask, tf.bool)[:, tf.newaxis], _bins(log_odds, num_bins), num_bins)

    def count(values):
        counts = tf.raw_ops.DenseBincount(
            input=tf.reshape(values, [-1]), size=num_bins, weights=tf.zeros([0], tf.int32)
        )
        return tf.cast(counts, tf.int64)

    positives = count(_bins(positive.values_of(log_odds), num_bins))
    counts = tf.stack([count(bins) - positives, positives])
    if columns is None:
        return counts
    absent = columns.num_absent * tf.cast(tf.reduce_sum(tf.cast(mask, tf.float32)), tf.int64)
    return tf.tensor_scatter_nd_add(counts, [[0, 0]], [absent])


def _bins(log_odds: tf.Tensor, num_bins: int) -> tf.Tensor:
    scaled = (log_odds + LOG_ODDS_LIMIT) * (num_bins / (2 * LOG_ODDS_LIMIT))
    # Clipped as floats too: the integer of a float beyond int32 depends on the device.
    clipped = tf.clip_by_value(scaled, 0.0, num_bins - 1.0)
    return tf.clip_by_value(tf.cast(clipped, tf.int32), 0, num_bins - 1)


# --- on the host -----------------------------------------------------------------------


def add_columns(
    histogram: np.ndarray, counts: np.ndarray, *, label_ids: np.ndarray, documents: int
) -> None:
    """Adds the `log_odds_counts` of a batch's columns to the negatives of all labels, in place.

    Labels without a column are in bin 0.

    Args:
      histogram: int64 [2, labels, bins].
      counts: int32 [columns, bins].
      label_ids: int64 [columns], distinct.
      documents: the documents in the batch without padding.
    """
    histogram[0, label_ids] += counts
    histogram[0, :, 0] += documents
    histogram[0, label_ids, 0] -= documents


def bin_centers(num_bins: int) -> np.ndarray:
    """Log-odds at the center of each bin, float64 [num_bins]."""
    return (np.arange(num_bins) + 0.5) * (2 * LOG_ODDS_LIMIT / num_bins) - LOG_ODDS_LIMIT


def roc_auc(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The area under each label's ROC curve.

    It is the fraction of pairs of a positive and a negative in which the positive scores higher; a
    pair in one bin counts half.

    Args:
      histogram: [2, labels, bins], in the order of scores.

    Returns:
      The areas, float64 [labels], NaN for labels without positives or without negatives; and by how
      much those of the scores themselves may differ, float64 [labels].
    """
    return _in_parts(_roc_auc, histogram)


def _roc_auc(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells = _PositiveCells.of(histogram)
    higher = cells.sum_by_label(cells.positives * cells.negatives_below)
    same_bin = cells.sum_by_label(cells.positives * cells.negatives)
    with np.errstate(invalid="ignore"):
        return (higher + same_bin / 2) / cells.pairs, same_bin / 2 / cells.pairs


def ranks_above_chance(histogram: np.ndarray) -> np.ndarray:
    """Which labels have positives that score higher than negatives by more than chance explains.

    The one-sided test of Mann and Whitney 1947 (On a test of whether one of two random variables is
    stochastically larger than the other) at 95%: of n+ positives and n- negatives, N together,
    U = n+ n- ROC AUC exceeds its mean n+ n- / 2 by 1.645 standard deviations. The variance has the
    correction for ties, n+ n- / 12 (N + 1 - sum(t^3 - t) / (N (N - 1))), where t scores are equal
    (Lehmann 1975, Nonparametrics: statistical methods based on ranks, chapter 1). Scores of one bin
    count as equal, so that constant scores, and those of labels without positives or without
    negatives, are at chance.

    Args:
      histogram: [2, labels, bins], in the order of scores.

    Returns:
      bool [labels].
    """
    excess, deviation = mann_whitney(histogram)
    return excess > Z_95 * deviation


def mann_whitney(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The test of `ranks_above_chance`: by how much U exceeds its mean by chance.

    Returns:
      The excess and U's standard deviation by chance, float64 [labels].
    """
    return _in_parts(_mann_whitney, histogram)


def _mann_whitney(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells, tied = _PositiveCells.of(histogram), histogram.sum(axis=0).astype(np.float64)
    below = cells.negatives_below + cells.negatives / 2
    excess = cells.sum_by_label(cells.positives * below) - cells.pairs / 2
    total = tied.sum(axis=-1)
    ties = ratio((tied * tied * tied - tied).sum(axis=-1), total * (total - 1))
    return excess, np.sqrt(np.maximum(cells.pairs / 12 * (total + 1 - ties), 0))


def average_precision(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each label's average precision, where all scores of a bin count as equal.

    It is the mean over the label's positives of the precision among all documents that score at
    least as high.

    Args:
      histogram: [2, labels, bins], in the order of scores.

    Returns:
      The average precision, float64 [labels], NaN for labels without positives; and by how much at
      most that of the scores themselves may differ, float64 [labels].
    """
    return _in_parts(_average_precision, histogram)


def _average_precision(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells = _PositiveCells.of(histogram[..., ::-1])
    tp, fp = cells.positives_below + cells.positives, cells.negatives_below + cells.negatives
    # Within a bin the precision is lowest at the first positive if all negatives of the bin score
    # higher, and highest at the last positive if all of them score lower.
    first = cells.positives_below + 1
    of_cells = np.zeros(histogram.shape[1:])

    def mean_over_positives(precision):
        of_cells[cells.places] = cells.positives * precision
        with np.errstate(invalid="ignore"):
            return of_cells.sum(axis=-1) / cells.total

    value = mean_over_positives(tp / (tp + fp))
    lowest = mean_over_positives(first / (first + fp))
    highest = mean_over_positives(tp / (tp + fp - cells.negatives))
    return value, np.maximum(value - lowest, highest - value)


@dataclasses.dataclass(frozen=True)
class _PositiveCells:
    """The cells [n] of a histogram that hold positives, few among all, as float64.

    Attributes:
      places: their labels and bins.
      positives, negatives: how many they hold.
      positives_below, negatives_below: how many are in the bins before.
      total: of each label, its positives, [labels].
      pairs: of each label, its pairs of a positive and a negative, [labels].
    """

    places: tuple[np.ndarray, np.ndarray]
    positives: np.ndarray
    negatives: np.ndarray
    positives_below: np.ndarray
    negatives_below: np.ndarray
    total: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, histogram: np.ndarray) -> "_PositiveCells":
        """Those of a histogram [2, labels, bins]."""
        places = np.nonzero(histogram[1])
        counts = [side[places].astype(np.float64) for side in histogram]
        reached = [np.cumsum(side, axis=-1) for side in histogram]
        negatives, positives = (side[:, -1].astype(np.float64) for side in reached)
        below = [side[places] - count for side, count in zip(reached, counts, strict=True)]
        return cls(
            places, counts[1], counts[0], below[1], below[0], positives, negatives * positives
        )

    def sum_by_label(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n] of the cells, float64 [labels]; exact, if they are whole numbers."""
        return np.bincount(self.places[0], values, len(self.total))


def _in_parts(
    function: Callable[[np.ndarray], tuple[np.ndarray, ...]], histogram: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What the function gives of some labels at a time, together."""
    parts = [
        function(histogram[:, start : start + _LABELS_AT_A_TIME])
        for start in range(0, max(histogram.shape[1], 1), _LABELS_AT_A_TIME)
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def expected_calibration_error(histogram: np.ndarray) -> dict[str, Any]:
    """How far scores are from frequencies, over all pairs of a document and a label.

    The expected calibration error (ECE) is the mean over pairs of |frequency - mean score| of the
    pair's bin, of ECE_BINS (Guo et al. 2017, equation 3, for the score of every label instead of
    the best class). A score counts as the center of its bin of log-odds.

    Args:
      histogram: [2, bins], a `log_odds_histogram` of one label or summed over labels.

    Returns:
      Plain values. ece; ece_error: by how much at most that of the scores themselves may differ;
      bins: [{"count", "mean_score", "frequency"}] of those that are not empty, in the order of
      scores.
    """
    negatives, positives = histogram.astype(np.float64)
    counts = negatives + positives
    scores, edges, ece_bins = _as_scores(histogram.shape[-1])

    def sum_by_ece_bin(weights):
        return np.bincount(ece_bins, weights, ECE_BINS)

    count = sum_by_ece_bin(counts)
    frequency = ratio(sum_by_ece_bin(positives), count)
    mean_score = ratio(sum_by_ece_bin(counts * scores), count)
    # A bin of log-odds that contains an edge of the ECE's bins may belong to either of them: then
    # its pairs may change both bins by up to 1.
    contains_edge = np.ceil(edges[1:] * ECE_BINS) - np.floor(edges[:-1] * ECE_BINS) > 1
    max_change = np.maximum(scores - edges[:-1], edges[1:] - scores) + 2 * contains_edge
    rows = zip(count, mean_score, frequency, strict=True)
    return {
        "ece": float(ratio((count * np.abs(frequency - mean_score)).sum(), counts.sum())),
        "ece_error": float(ratio((counts * max_change).sum(), counts.sum())),
        "bins": [
            {"count": int(n), "mean_score": float(score), "frequency": float(positive)}
            for n, score, positive in rows
            if n
        ],
    }


def per_label_calibration_error(histogram: np.ndarray) -> np.ndarray:
    """The expected calibration error of each label: float64 [labels], from [2, labels, bins]."""
    return _in_parts(_per_label_calibration_error, histogram)[0]


def _per_label_calibration_error(histogram: np.ndarray) -> tuple[np.ndarray]:
    scores, _, ece_bins = _as_scores(histogram.shape[-1])
    edges = np.searchsorted(ece_bins, np.arange(ECE_BINS + 1))  # the scores rise
    positives, counts = histogram[1], histogram.sum(axis=0)
    # Of positives over the sum of scores. Turned, so that bins are added one after the other.
    excess = np.ascontiguousarray((positives - counts * scores).T)
    errors = [np.abs(excess[first:last].sum(axis=0)) for first, last in itertools.pairwise(edges)]
    return (ratio(np.sum(errors, axis=0), counts.sum(axis=-1)),)


def _as_scores(num_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of log-odds as scores.

    Returns:
      Their centers [num_bins], their edges [num_bins + 1], and the ECE's bin of each center, int
      [num_bins].
    """
    edges = np.arange(num_bins + 1) * (2 * LOG_ODDS_LIMIT / num_bins) - LOG_ODDS_LIMIT
    edges[0], edges[-1] = -np.inf, np.inf
    scores = _sigmoid(bin_centers(num_bins))
    ece_bins = np.minimum((scores * ECE_BINS).astype(int), ECE_BINS - 1)
    return scores, _sigmoid(edges), ece_bins


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
