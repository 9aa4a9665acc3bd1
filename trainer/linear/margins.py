"""Margins of fitted classifiers on validation: how good they are, and what makes them log-odds."""

import numpy as np
import scipy.sparse

from trainer.linear.documents import Documents
from trainer.metrics import calibration
from trainer.metrics.score_histograms import LOG_ODDS_LIMIT

# What turns margins into log-odds where there is no validation split: the medians over seven sets,
# see docs/experiments/linear.md.
DEFAULT_SCALE, DEFAULT_SHIFT = 3.0, -1.0
_BINS = 4096
_BIN_SCALE = 4.0  # margins are counted at this multiple of them, which spreads them over the bins
_CELLS_AT_A_TIME = 4_000_000


def margin_histogram(
    features: scipy.sparse.csr_matrix,
    documents: Documents,
    weights: scipy.sparse.csr_matrix,
    bias: np.ndarray,
    label_ids: np.ndarray,
) -> np.ndarray:
    """How many margins fall in each bin, for negatives and positives, all labels together.

    Args:
      features: float CSR [documents, terms].
      documents: whose labels are the truth.
      weights: float CSR [labels, terms].
      bias: float [labels].
      label_ids: the ids of these labels.

    Returns:
      int64 [2, bins].
    """
    histogram = np.zeros((2, _BINS), np.int64)
    by_term, labels = weights.T.tocsr(), documents.labels[:, label_ids].tocsr()
    step = max(1, _CELLS_AT_A_TIME // max(len(label_ids), 1))
    for first in range(0, features.shape[0], step):
        part = slice(first, first + step)
        margins = (features[part] @ by_term).toarray() + bias
        bins = (margins * _BIN_SCALE + LOG_ODDS_LIMIT) * (_BINS / (2 * LOG_ODDS_LIMIT))
        bins = np.clip(bins, 0, _BINS - 1).astype(np.int64)
        of_positives = np.bincount(bins[labels[part].nonzero()], minlength=_BINS)
        histogram[1] += of_positives
        histogram[0] += np.bincount(bins.ravel(), minlength=_BINS) - of_positives
    return histogram


def best_micro_f1(histogram: np.ndarray) -> float:
    """The highest micro-F1 of one threshold for all labels."""
    false, true = histogram[:, ::-1].cumsum(axis=1)
    return float((2 * true / np.maximum(true + false + true[-1], 1)).max())


def fit_scale(histogram: np.ndarray) -> tuple[float, float]:
    """Scale and shift that make margins log-odds (Platt 1999), common to all labels."""
    fitted = calibration.fit("platt", histogram[:, np.newaxis], min_positives=1)
    if fitted.method == "none":  # the margins do not rank above chance
        return DEFAULT_SCALE, DEFAULT_SHIFT
    return float(fitted.scale[0]) * _BIN_SCALE, float(fitted.bias[0])
