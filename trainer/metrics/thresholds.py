"""Rules that decide which labels a document gets, tuned on the validation split and on nothing else."""

from typing import Annotated, Any

import numpy as np
import pydantic
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import Section, validate
from trainer.metrics.classification import NEVER, NUM_BINS, ratio, sweep

# The k that are tried as the number of labels that every document gets.
MOST_LABELS = 20
# The best F1 on validation that a label needs for a threshold of its own.
LEAST_F1 = 0.1
_MOST_ROUNDS = 30
# An array of the sweep, float64 [these, bins], then takes 8 MB: small beside the histogram, however many labels it has.
_LABELS_AT_A_TIME = 1024

_Bin = Annotated[int, pydantic.Field(ge=0, le=NEVER)]


class Thresholds(Section):
    """One threshold for all labels, and one per label, as bins for `trainer.metrics.classification.decide`; and a number of labels.

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
          UserError: these are no thresholds, or not those of `num_labels` labels.
        """
        thresholds = validate(cls, raw, what=what)
        if len(thresholds.per_label_bins) != num_labels:
            raise UserError(
                f"{what}: received thresholds of {len(thresholds.per_label_bins)} labels, expected {num_labels}: "
                "they belong to another dataset; run the evaluation again"
            )
        return thresholds


def tune(
    histogram: np.ndarray, *, min_positives: int = 10, hits: np.ndarray | None = None
) -> Thresholds:
    """The thresholds with the best F1 on the validation split, among all multiples of 1 / bins.

    The global one maximises micro-F1, each label's own its F1. A label with fewer positives than `min_positives`
    takes the global one, because an optimum over a few documents is chance, and so does one whose best F1 is below LEAST_F1: where a
    label is not learned, that optimum assigns it to every document (Yang 2001, A study of thresholding strategies for text categorization, SCutFBR;
    Fan and Lin 2007, A study on threshold selection for multi-label classification). Of equally good thresholds the
    nearest to 0.5 (global) or to the global one (per label) is taken, then the lower: evidence alone moves a
    threshold away from where it would stand without. Without any positive that is 0.5 for all labels.

    Args:
      histogram: [2, labels, bins + 1], summed `trainer.metrics.classification.score_histogram` of the validation split.
      min_positives: positives a label needs for a threshold of its own.
      hits: int64 [most], positives among the 1, 2, ... best-scored labels, summed over the split's documents; for `top_k`, which
        maximises micro-F1, and is the least of those as good.
    """
    bins = histogram.shape[-1] - 1
    global_bin = int(_nearest_best(sweep(histogram.sum(axis=1))["f1"], bins // 2))
    per_label = np.full(histogram.shape[1], global_bin)
    for start in range(0, len(per_label), _LABELS_AT_A_TIME):
        part = histogram[:, start : start + _LABELS_AT_A_TIME]
        f1 = sweep(part)["f1"]
        is_own = (part[1].sum(axis=-1) >= min_positives) & (f1.max(axis=-1) >= LEAST_F1)
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
    """The micro-F1 that the global threshold has on the documents of a histogram, see `tune`."""
    return float(
        sweep(histogram.sum(axis=1))["f1"][
            thresholds.global_bin * (histogram.shape[-1] - 1) // NUM_BINS
        ]
    )


def label_errors(histogram: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """int64 [labels]: how many false positives and false negatives each label's own threshold gives on the documents of a histogram."""
    bins = np.array(thresholds.per_label_bins) * (histogram.shape[-1] - 1) // NUM_BINS
    reached = np.arange(histogram.shape[-1]) >= bins[:, np.newaxis]
    return np.where(reached, histogram[0], histogram[1]).sum(axis=-1)


def expected_f1_decisions(scores: tf.Tensor) -> tf.Tensor:
    """The labels of each document that maximise its expected F1, in the graph: bool [batch, labels].

    If labels are independent, the best set holds the best-scored labels (Lewis 1995, Evaluating and optimizing autonomous text classification
    systems). The expectation of the ratio is taken as the ratio of expectations, 2 sum(p in set) / (size of set + sum(p)), as an approximation of
    the exact one (Jansche 2007, A maximum expected utility framework for binary sequence labeling; Ye et al. 2012, Optimizing F-measures: a
    tale of two approaches). Its maximum is found without sorting by Dinkelbach's method (1967, On nonlinear fractional programming): a
    label belongs to the set if its score exceeds half of the F1 of the set, and a few rounds from an F1 of 0 end there. A document
    thus gets its best label at least, unless all of its scores are 0.

    Args:
      scores: float32 [batch, labels], calibrated probabilities.
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
        lambda _, is_rising: is_rising, better, start, maximum_iterations=_MOST_ROUNDS
    )
    return scores > half_f1


def _nearest_best(f1: np.ndarray, anchor: int) -> np.ndarray:
    """Of the bins with the greatest F1 on the last axis, the nearest to `anchor`; of two as near, the lower."""
    distance = np.abs(np.arange(f1.shape[-1]) - anchor)
    return np.argmin(np.where(f1 == f1.max(axis=-1, keepdims=True), distance, NEVER), axis=-1)
