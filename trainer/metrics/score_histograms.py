"""What follows from the score histograms of labels: ROC AUC, average precision, calibration error, each with the error that binning may cause.

Bins of even width in the log-odds tell apart the small scores of rare labels, which bins of even width in the score put together.
Histograms add up over batches and replicas exactly, so that what follows from them does too.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from trainer.metrics.classification import NUM_BINS, histogram_bins, histogram_of_bins, ratio

LOG_ODDS_LIMIT = 16.0  # log-odds beyond are counted in the outer bins; a score of 1e-7 is at -16.1
CALIBRATION_BINS = 15  # of even width in the score, as in Guo et al. 2017, On calibration of modern neural networks
_LABELS_AT_A_TIME = (
    1024  # arrays float64 [these, bins] then take a few MB, however many labels there are
)


# --- in the graph ----------------------------------------------------------------------


def log_odds_bins(num_labels: int) -> int:
    """Bins of the log-odds histograms of so many labels: half as many as score histograms have (512: 1/16 wide)."""
    return histogram_bins(num_labels) * 512 // NUM_BINS


def log_odds_histogram(
    labels: tf.Tensor, log_odds: tf.Tensor, mask: tf.Tensor, *, num_bins: int
) -> tf.Tensor:
    """How many log-odds of each label fall in each of `num_bins` even bins over [-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT), clipped; NaN in bin 0.

    Returns:
      int64 [2, labels, num_bins]: [0] counts negatives, [1] positives.
    """
    scaled = (tf.transpose(tf.cast(log_odds, tf.float32)) + LOG_ODDS_LIMIT) * (
        num_bins / (2 * LOG_ODDS_LIMIT)
    )
    # Clipped as floats too: the integer of a float beyond int32 depends on the device.
    bins = tf.clip_by_value(
        tf.cast(tf.clip_by_value(scaled, 0.0, num_bins - 1.0), tf.int32), 0, num_bins - 1
    )
    return histogram_of_bins(labels, bins, mask, num_bins=num_bins)


# --- on the host -----------------------------------------------------------------------


def bin_centers(num_bins: int) -> np.ndarray:
    """Log-odds in the middle of each bin, float64 [num_bins]."""
    return (np.arange(num_bins) + 0.5) * (2 * LOG_ODDS_LIMIT / num_bins) - LOG_ODDS_LIMIT


def roc_auc(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The area under each label's ROC curve: the fraction of pairs in which the positive scores higher, half where both are in one bin.

    Args:
      histogram: [2, labels, bins], in the order of scores.

    Returns:
      float64 [labels], NaN for labels without positives or without negatives; float64 [labels], by how much the scores' own may differ.
    """
    return _in_parts(_roc_auc, histogram)


def _roc_auc(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    negatives, positives = histogram.astype(np.float64)
    below = np.cumsum(negatives, axis=-1) - negatives
    pairs = negatives.sum(axis=-1) * positives.sum(axis=-1)
    higher, together = (positives * below).sum(axis=-1), (positives * negatives).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return (higher + together / 2) / pairs, together / 2 / pairs


def average_precision(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each label's average precision: the mean over its positives of the precision among all that score as high, a bin counting as one score.

    Args:
      histogram: [2, labels, bins], in the order of scores.

    Returns:
      float64 [labels], NaN for labels without positives; float64 [labels], by how much the scores' own may differ at most.
    """
    return _in_parts(_average_precision, histogram)


def _average_precision(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    negatives, positives = histogram[..., ::-1].astype(np.float64)
    tp, fp = np.cumsum(positives, axis=-1), np.cumsum(negatives, axis=-1)
    total = tp[..., -1]
    # Within a bin the precision lies between that of its first positive behind all its negatives and that of its last one before them.
    first = tp - positives + (positives > 0)
    sums = [
        (positives * ratio(*pair)).sum(axis=-1)
        for pair in ((tp, tp + fp), (first, first + fp), (tp, tp + fp - negatives))
    ]
    with np.errstate(invalid="ignore"):
        value, least, most = (x / total for x in sums)
    return value, np.maximum(value - least, most - value)


def _in_parts(function: Any, histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [
        function(histogram[:, start : start + _LABELS_AT_A_TIME])
        for start in range(0, histogram.shape[1], _LABELS_AT_A_TIME)
    ]
    return (
        tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        if parts
        else (np.zeros(0), np.zeros(0))
    )


def calibration(histogram: np.ndarray) -> dict[str, Any]:
    """How far scores are from the frequencies of what they are given to, over all pairs of a document and a label.

    The expected calibration error is the mean over pairs of |frequency - mean score| of the pair's bin, of CALIBRATION_BINS (Guo et al.
    2017, equation 3, for the score of each label instead of the best class). A score counts as the middle of its bin of log-odds.

    Args:
      histogram: [2, bins], a `log_odds_histogram` of one label or summed over labels.

    Returns:
      Plain JSON values. ece; ece_error: by how much that of the scores themselves may differ at most; bins: [{"count", "mean_score",
      "frequency"}] of those that are not empty, in the order of scores.
    """
    negatives, positives = histogram.astype(np.float64)
    counts = negatives + positives
    scores, edges, cells = _calibration_cells(histogram.shape[-1])
    count, right, mean = (
        np.bincount(cells, weights, CALIBRATION_BINS)
        for weights in (counts, positives, counts * scores)
    )
    frequency, mean = ratio(right, count), ratio(mean, count)
    # A bin of log-odds that an edge of the score's bins cuts may belong to either: its pairs may move by their whole distance.
    is_cut = np.ceil(edges[1:] * CALIBRATION_BINS) - np.floor(edges[:-1] * CALIBRATION_BINS) > 1
    farthest = np.maximum(scores - edges[:-1], edges[1:] - scores) + 2 * is_cut
    rows = zip(count, mean, frequency, strict=True)
    return {
        "ece": float(ratio((count * np.abs(frequency - mean)).sum(), counts.sum())),
        "ece_error": float(ratio((counts * farthest).sum(), counts.sum())),
        "bins": [
            {"count": int(n), "mean_score": float(m), "frequency": float(f)}
            for n, m, f in rows
            if n
        ],
    }


def label_calibration_error(histogram: np.ndarray) -> np.ndarray:
    """The expected calibration error of each label, see `calibration`: float64 [labels], from [2, labels, bins]."""
    scores, _, cells = _calibration_cells(histogram.shape[-1])
    positives, counts = histogram[1], histogram.sum(axis=0)
    excess = positives - counts * scores  # of positives over what the scores promise
    parts = [np.abs(excess[:, cells == cell].sum(axis=-1)) for cell in range(CALIBRATION_BINS)]
    return ratio(np.sum(parts, axis=0), counts.sum(axis=-1))


def _calibration_cells(num_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of log-odds as scores: their middles [num_bins], their edges [num_bins + 1], and the calibration bins of the middles."""
    edges = np.arange(num_bins + 1) * (2 * LOG_ODDS_LIMIT / num_bins) - LOG_ODDS_LIMIT
    edges[0], edges[-1] = -np.inf, np.inf
    scores = _sigmoid(bin_centers(num_bins))
    return (
        scores,
        _sigmoid(edges),
        np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1),
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
