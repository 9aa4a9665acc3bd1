"""Rules that decide which labels a document gets, tuned on the validation split only."""

from typing import Annotated, Any

import numpy as np
import pydantic
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import Section, validate
from trainer.metrics.classification import NEVER, NUM_BINS, ratio, sweep

# The numbers of labels per document that are tried are 1 to MAX_TOP_K.
MAX_TOP_K = 20
# A label whose best F1 on validation is lower gets no threshold of its own.
MIN_F1 = 0.1
_MAX_ROUNDS = 30
# An array of the sweep, float64 [these, bins], then takes 8 MB: small beside the histogram, however
# many labels it has.
_LABELS_AT_A_TIME = 1024

_Bin = Annotated[int, pydantic.Field(ge=0, le=NEVER)]


class Thresholds(Section):
    """One threshold for all labels, one per label, and a number of labels per document.

    Thresholds are bins, as `trainer.metrics.classification.decide` takes them.

    Attributes:
      global_bin: the global threshold times NUM_BINS.
      per_label_bins: the same for each label, in the order of label ids.
      num_bins: the NUM_BINS that the bins count in.
      top_k: how many labels to give to every document instead.
    """

    global_bin: _Bin
    per_label_bins: tuple[_Bin, ...]
    num_bins: int = NUM_BINS
    top_k: int = pydantic.Field(1, ge=1)

    @pydantic.field_validator("num_bins")
    @classmethod
    def _is_ours(cls, value: int) -> int:
        if value != NUM_BINS:
            raise ValueError(f"expected {NUM_BINS}; tune the thresholds again with this version")
        return value

    @property
    def global_threshold(self) -> float:
        return self.global_bin / NUM_BINS

    @property
    def per_label_thresholds(self) -> tuple[float, ...]:
        return tuple(k / NUM_BINS for k in self.per_label_bins)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, which `from_json` reads back to equal thresholds."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, raw: Any, *, num_labels: int, what: str = "thresholds") -> "Thresholds":
        """Reads what `to_json` gave; `what` names its origin in errors.

        Raises:
          UserError: these are not thresholds, or not those of `num_labels` labels.
        """
        thresholds = validate(cls, raw, what=what)
        if len(thresholds.per_label_bins) != num_labels:
            raise UserError(
                f"{what}: received thresholds of {len(thresholds.per_label_bins)} labels, expected "
                f"{num_labels}: they belong to another dataset; run the evaluation again"
            )
        return thresholds


def tune(
    histogram: np.ndarray, *, min_positives: int = 10, hits: np.ndarray | None = None
) -> Thresholds:
    """The thresholds with the best F1 on the validation split, among all multiples of 1 / bins.

    The global one maximizes micro-F1, the threshold of a label its F1. A label with fewer positives
    than `min_positives` takes the global one, because an optimum over a few documents is chance. So
    does one whose best F1 is below MIN_F1: if a label is not learned, that optimum assigns it to
    every document (Yang 2001, A study of thresholding strategies for text categorization, SCutFBR;
    Fan and Lin 2007, A study on threshold selection for multi-label classification). Of equally
    good thresholds the nearest to 0.5 (global) or to the global one (per label) is taken, then the
    lower: only evidence moves a threshold away from its default. Without any positive the
    threshold of all labels is 0.5.

    Args:
      histogram: [2, labels, bins + 1], summed `trainer.metrics.classification.score_histogram` of
        the validation split.
      min_positives: positives a label needs for a threshold of its own.
      hits: int64 [max_k], positives among the 1, 2, ... best-scored labels, summed over the split's
        documents; for `top_k`, the lowest k that maximizes micro-F1.
    """
    bins = histogram.shape[-1] - 1
    global_bin = int(_nearest_best(sweep(histogram.sum(axis=1))["f1"], bins // 2))
    per_label = np.full(histogram.shape[1], global_bin)
    for start in range(0, len(per_label), _LABELS_AT_A_TIME):
        part = histogram[:, start : start + _LABELS_AT_A_TIME]
        f1 = sweep(part)["f1"]
        is_own = (part[1].sum(axis=-1) >= min_positives) & (f1.max(axis=-1) >= MIN_F1)
        per_label[start : start + _LABELS_AT_A_TIME] = np.where(
            is_own, _nearest_best(f1, global_bin), global_bin
        )
    top_k = 1
    if hits is not None and histogram.shape[1]:
        documents = histogram[:, 0].sum()
        k = np.minimum(np.arange(1, len(hits) + 1), histogram.shape[1])
        top_k = 1 + int(np.argmax(ratio(2 * hits, k * documents + histogram[1].sum())))
    unit = NUM_BINS // bins
    return Thresholds(
        global_bin=global_bin * unit, per_label_bins=tuple((per_label * unit).tolist()), top_k=top_k
    )


def micro_f1(histogram: np.ndarray, thresholds: Thresholds) -> float:
    """The micro-F1 of the global threshold on the documents of a histogram, see `tune`."""
    bins = histogram.shape[-1] - 1
    f1 = sweep(histogram.sum(axis=1))["f1"]
    return float(f1[thresholds.global_bin * bins // NUM_BINS])


def label_errors(histogram: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """int64 [labels]: false positives and negatives of each label at its own threshold.

    Args:
      histogram: [2, labels, bins + 1], as in `tune`.
      thresholds: the thresholds.
    """
    bins = np.array(thresholds.per_label_bins) * (histogram.shape[-1] - 1) // NUM_BINS
    reached = np.arange(histogram.shape[-1]) >= bins[:, np.newaxis]
    return np.where(reached, histogram[0], histogram[1]).sum(axis=-1)


def expected_f1_decisions(scores: tf.Tensor) -> tf.Tensor:
    """The labels of each document that maximize its expected F1, in the graph.

    If labels are independent, the best set holds the best-scored labels (Lewis 1995, Evaluating and
    optimizing autonomous text classification systems). The expectation of the ratio is approximated
    by the ratio of expectations, 2 sum(p in set) / (size of set + sum(p)); the exact one is in
    Jansche 2007, A maximum expected utility framework for binary sequence labeling, and Ye et al.
    2012, Optimizing F-measures: a tale of two approaches. Its maximum is found without sorting by
    Dinkelbach's method (1967, On nonlinear fractional programming): a label belongs to the set if
    its score exceeds half of the F1 of the set, which is reached in a few rounds from an F1 of 0.
    So a document gets at least its best label, unless all of its scores are 0.

    Args:
      scores: float32 [batch, labels], calibrated probabilities.

    Returns:
      bool [batch, labels].
    """
    total = tf.reduce_sum(scores, axis=1, keepdims=True)

    def better(half_f1, _):
        chosen = tf.cast(scores > half_f1, tf.float32)
        new = tf.math.divide_no_nan(
            tf.reduce_sum(chosen * scores, axis=1, keepdims=True),
            tf.reduce_sum(chosen, axis=1, keepdims=True) + total,
        )
        return tf.maximum(new, half_f1), tf.reduce_any(new > half_f1)

    start = tf.zeros_like(total), tf.constant(True)
    half_f1, _ = tf.while_loop(
        lambda _, is_rising: is_rising, better, start, maximum_iterations=_MAX_ROUNDS
    )
    return scores > half_f1


def _nearest_best(f1: np.ndarray, anchor: int) -> np.ndarray:
    """Of the bins with the best F1 on the last axis, the nearest to `anchor`; of two, the lower."""
    distance = np.abs(np.arange(f1.shape[-1]) - anchor)
    return np.argmin(np.where(f1 == f1.max(axis=-1, keepdims=True), distance, NEVER), axis=-1)
