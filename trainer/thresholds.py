"""Thresholds, tuned on the score histograms of the validation split and on nothing else."""

from typing import Annotated, Any

import numpy as np
import pydantic

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.validation import Section, validate
from trainer.metrics import NEVER, NUM_BINS, sweep

# An array of the sweep, float64 [these, bins], then takes 8 MB: small beside the histogram, however many labels it has.
_LABELS_AT_A_TIME = 1024

_Bin = Annotated[int, pydantic.Field(ge=0, le=NEVER)]


class Thresholds(Section):
    """One threshold for all labels, and one per label, as bins for `trainer.metrics.decide`.

    Attributes:
      global_bin: the global threshold times NUM_BINS.
      per_label_bins: the same for each label, in the order of label ids.
      num_bins: the NUM_BINS that the bins count in.
    """

    global_bin: _Bin
    per_label_bins: tuple[_Bin, ...]
    num_bins: int = NUM_BINS

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


def tune(histogram: np.ndarray, *, min_positives: int = 10) -> Thresholds:
    """The thresholds with the best F1 on the validation split, among all multiples of 1 / NUM_BINS.

    The global one maximises micro-F1, each label's own its F1. A label with fewer positives than `min_positives`
    takes the global one, because an optimum over a few documents is chance. Of equally good thresholds the
    nearest to 0.5 (global) or to the global one (per label) is taken, then the lower: evidence alone moves a
    threshold away from where it would stand without. Without any positive that is 0.5 for all labels.

    Args:
      histogram: [2, labels, NUM_BINS + 1], summed `trainer.metrics.score_histogram` of the validation split.
      min_positives: positives a label needs for a threshold of its own.
    """
    global_bin = int(_nearest_best(sweep(histogram.sum(axis=1))["f1"], NUM_BINS // 2))
    per_label = np.full(histogram.shape[1], global_bin)
    for start in range(0, len(per_label), _LABELS_AT_A_TIME):
        part = histogram[:, start : start + _LABELS_AT_A_TIME]
        own = _nearest_best(sweep(part)["f1"], global_bin)
        per_label[start : start + _LABELS_AT_A_TIME] = np.where(part[1].sum(axis=-1) >= min_positives, own, global_bin)
    return Thresholds(global_bin=global_bin, per_label_bins=tuple(per_label.tolist()))


def _nearest_best(f1: np.ndarray, anchor: int) -> np.ndarray:
    """Of the bins with the greatest F1 on the last axis, the nearest to `anchor`; of two as near, the lower."""
    distance = np.abs(np.arange(NUM_BINS + 1) - anchor)
    return np.argmin(np.where(f1 == f1.max(axis=-1, keepdims=True), distance, NEVER), axis=-1)
