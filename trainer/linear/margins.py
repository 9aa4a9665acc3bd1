"""Margins of fitted classifiers on validation: how good they are, and what makes them log-odds."""

import numpy as np
import scipy.sparse

from beam_jobs.contract.sections.train import Objective
from trainer.linear.documents import Documents
from trainer.metrics import calibration
from trainer.metrics.score_histograms import LOG_ODDS_LIMIT

# What turns margins into log-odds where there is no validation split: the medians over seven sets,
# see docs/experiments/linear.md.
DEFAULT_SCALE, DEFAULT_SHIFT = 3.0, -1.0
_BINS = 4096
_BIN_SCALE = 4.0  # margins are counted at this multiple of them, which spreads them over the bins
_CELLS_AT_A_TIME = 4_000_000
_LABELS_AT_A_TIME = 256  # whose histograms take 16 MiB


def margin_histogram(
    features: scipy.sparse.csr_matrix,
    documents: Documents,
    weights: scipy.sparse.csr_matrix,
    bias: np.ndarray,
    label_ids: np.ndarray,
    *,
    by_label: bool = False,
) -> np.ndarray:
    """How many margins fall in each bin, for negatives and positives.

    Args:
      features: float CSR [documents, terms].
      documents: whose labels are the truth.
      weights: float CSR [labels, terms].
      bias: float [labels].
      label_ids: the ids of these labels.
      by_label: each label by itself, which takes 64 KiB each; else all together.

    Returns:
      int64 [2, labels or 1, bins].
    """
    rows = len(label_ids) if by_label else 1
    offsets = np.arange(len(label_ids)) * _BINS if by_label else 0
    histogram = np.zeros((2, rows * _BINS), np.int64)
    by_term, labels = weights.T.tocsr(), documents.labels[:, label_ids].tocsr()
    step = max(1, _CELLS_AT_A_TIME // max(len(label_ids), 1))
    for first in range(0, features.shape[0], step):
        part = slice(first, first + step)
        margins = (features[part] @ by_term).toarray() + bias
        bins = (margins * _BIN_SCALE + LOG_ODDS_LIMIT) * (_BINS / (2 * LOG_ODDS_LIMIT))
        bins = np.clip(bins, 0, _BINS - 1).astype(np.int64) + offsets
        of_positives = np.bincount(bins[labels[part].nonzero()], minlength=rows * _BINS)
        histogram[1] += of_positives
        histogram[0] += np.bincount(bins.ravel(), minlength=rows * _BINS) - of_positives
    return histogram.reshape(2, rows, _BINS)


def best_f1(
    features: scipy.sparse.csr_matrix,
    documents: Documents,
    weights: scipy.sparse.csr_matrix,
    bias: np.ndarray,
    label_ids: np.ndarray,
    *,
    objective: Objective,
) -> float:
    """The highest objective that one threshold for all labels reaches.

    The other arguments are those of `margin_histogram`.
    """
    step = len(label_ids) if objective == "micro_f1" else _LABELS_AT_A_TIME
    total, num_present = np.zeros(_BINS), 0
    for first in range(0, len(label_ids), step):
        part = slice(first, first + step)
        false, true = margin_histogram(
            features,
            documents,
            weights[part],
            bias[part],
            label_ids[part],
            by_label=objective == "macro_f1",
        )[..., ::-1].cumsum(axis=-1)
        positives = true[:, -1:]
        total += (2 * true / np.maximum(true + false + positives, 1)).sum(axis=0)
        num_present += np.count_nonzero(positives)
    return float(total.max() / max(num_present, 1))


def fit_scale(histogram: np.ndarray) -> tuple[float, float]:
    """Scale and shift that make margins log-odds (Platt 1999), common to all labels.

    Args:
      histogram: `margin_histogram` of all labels together.
    """
    fitted = calibration.fit("platt", histogram, min_positives=1)
    if fitted.method == "none":  # the margins do not rank above chance
        return DEFAULT_SCALE, DEFAULT_SHIFT
    return float(fitted.scale[0]) * _BIN_SCALE, float(fitted.bias[0])
