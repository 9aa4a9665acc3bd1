"""Rules that decide which labels a document gets, tuned on the validation split only."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pydantic
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.train import Objective
from beam_jobs.contract.validation import Section, validate
from trainer.metrics.classification import NEVER, NUM_BINS, ratio, sweep_f1
from trainer.metrics.pairs import Pairs, shape_of
from trainer.metrics.ranking import best_eligible
from trainer.metrics.score_histograms import Z_95, Z_9999, mann_whitney, ranks_above_chance

# The numbers of labels per document that are tried are 1 to MAX_TOP_K.
MAX_TOP_K = 20
# A label whose best F1 on validation is lower gets no threshold of its own.
MIN_F1 = 0.1
# A threshold that more of the validation documents reach is one that nearly every document reaches.
_NEARLY_ALL = 0.95
_MAX_ROUNDS = 30
# An array of the sweep, float64 [these, bins], then takes 8 MB: small beside the histogram, however
# many labels it has.
_LABELS_AT_A_TIME = 1024

# Where the threshold of a label comes from, as people read it.
LabelSource = Literal[
    "own",
    "common: too few positives",
    "common: scores at chance",
    "common: best F1 below 0.1",
    "withheld: scores at chance",
    "never assigned: no train positives",
]
OWN, TOO_FEW, AT_CHANCE, LOW_F1, WITHHELD, NEVER_TRAINED = get_args(LabelSource)

# Where the common threshold comes from.
GlobalSource = Literal[
    "tuned",
    "0.5: no validation documents",
    "0.5: no validation positives",
    "0.5: scores at chance on validation",
]
TUNED, NO_DOCUMENTS, NO_POSITIVES, ALL_AT_CHANCE = get_args(GlobalSource)

_Bin = Annotated[int, pydantic.Field(ge=0, le=NEVER)]


class Thresholds(Section):
    """One threshold for all labels, one per label, and a number of labels per document.

    Thresholds are bins, as `trainer.metrics.classification.decide` takes them.

    Attributes:
      global_bin: the global threshold times NUM_BINS.
      per_label_bins: the same for each label, in the order of label ids.
      sources: where the threshold of each label comes from.
      global_source: where the global one comes from.
      num_bins: the NUM_BINS that the bins count in.
      top_k: how many labels to give to every document instead.
    """

    global_bin: _Bin
    per_label_bins: tuple[_Bin, ...]
    sources: tuple[LabelSource, ...]
    global_source: GlobalSource = TUNED
    num_bins: int = NUM_BINS
    top_k: int = pydantic.Field(1, ge=1)

    @pydantic.field_validator("num_bins")
    @classmethod
    def _is_ours(cls, value: int) -> int:
        if value != NUM_BINS:
            raise ValueError(f"expected {NUM_BINS}; tune the thresholds again with this version")
        return value

    @pydantic.model_validator(mode="after")
    def _has_a_source_per_label(self) -> "Thresholds":
        if len(self.sources) != len(self.per_label_bins):
            raise ValueError(
                f"expected as many sources as per_label_bins, not {len(self.sources)} and "
                f"{len(self.per_label_bins)}"
            )
        return self

    @classmethod
    def untuned(cls, is_trained: np.ndarray) -> "Thresholds":
        """0.5 for every label, and never for those without train positives."""
        return tune(np.zeros((2, len(is_trained), NUM_BINS + 1), np.int64), is_trained=is_trained)

    def of_other_model(self, is_trained: np.ndarray) -> "Thresholds":
        """These thresholds for a model that was trained on other documents of the same labels.

        A label that it was not trained on is never assigned; one that only it was trained on takes
        the global threshold.

        Args:
          is_trained: bool [labels], whether the model's train split has the label.
        """
        bins, sources = np.array(self.per_label_bins), np.array(self.sources, object)
        is_new = is_trained & (sources == NEVER_TRAINED)
        bins[is_new], sources[is_new] = self.global_bin, TOO_FEW
        bins[~is_trained], sources[~is_trained] = NEVER, NEVER_TRAINED
        changes = {"per_label_bins": tuple(bins.tolist()), "sources": tuple(sources.tolist())}
        return self.model_copy(update=changes)

    @property
    def common_bins(self) -> tuple[int, ...]:
        """By label, the bins that one threshold for all labels comes to.

        It is the global one, except for labels that are withheld or never assigned.
        """
        return tuple(
            own if source in (WITHHELD, NEVER_TRAINED) else self.global_bin
            for own, source in zip(self.per_label_bins, self.sources, strict=True)
        )

    @property
    def is_assignable(self) -> np.ndarray:
        """bool [labels]: False for labels that are withheld or never assigned."""
        return np.array([source not in (WITHHELD, NEVER_TRAINED) for source in self.sources], bool)

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
        if isinstance(raw, dict) and "per_label_bins" in raw and "sources" not in raw:
            raise UserError(
                f"{what} does not say what the thresholds rest on: another version of multihot "
                "wrote it; run the evaluation again"
            )
        thresholds = validate(cls, raw, what=what)
        if len(thresholds.per_label_bins) != num_labels:
            raise UserError(
                f"{what}: received thresholds of {len(thresholds.per_label_bins)} labels, expected "
                f"{num_labels}: they belong to another dataset; run the evaluation again"
            )
        return thresholds


def tune(
    histogram: np.ndarray,
    *,
    min_positives: int = 10,
    hits: np.ndarray | None = None,
    is_trained: np.ndarray | None = None,
    objective: Objective = "micro_f1",
) -> Thresholds:
    """The thresholds with the best F1 on the validation split, among all multiples of 1 / bins.

    The global one maximizes the objective, the threshold of a label its F1. A label takes the
    global one

    - with fewer positives than `min_positives`, because an optimum over a few documents is chance;
    - if its scores do not rank above chance, see
      `trainer.metrics.score_histograms.ranks_above_chance`: their optimum assigns it to about every
      document. Where it does, to more than 95% of them, the scores must rank above chance at
      99.99% instead of 95%, for of many labels without information some pass at 95%;
    - if its best F1 is below MIN_F1, because it is not learned (Yang 2001, A study of thresholding
      strategies for text categorization, SCutFBR; Fan and Lin 2007, A study on threshold selection
      for multi-label classification).

    A label is withheld, and its threshold is the lowest that no document reaches, if every document
    would reach the global threshold although some do not have the label, and its scores do not rank
    above chance at 95%, or 99.99% for a label that fewer than half of the documents have. A label
    without train positives is never assigned; its scores have no part in the global threshold, but
    its positives count as missed.

    Of equally good thresholds the nearest to 0.5 (global) or to the global one (per label) is
    taken, then the lower: only evidence moves a threshold away from its default. The global
    threshold is 0.5 without any document or positive, or if all labels' scores together do not rank
    above chance, or more than 95% of all scores reach the best threshold although fewer than half
    of them are of positives; `global_source` says so.

    Args:
      histogram: [2, labels, bins + 1], summed `trainer.metrics.classification.score_histogram` of
        the validation split.
      min_positives: positives a label needs for a threshold of its own.
      hits: int64 [max_k], positives among the 1, 2, ... best-scored labels, summed over the split's
        documents; for `top_k`, the lowest k that maximizes micro-F1.
      is_trained: bool [labels], whether the train split has the label; None: all of them.
      objective: `train.objective`.
    """
    num_labels, bins = histogram.shape[1], histogram.shape[-1] - 1
    if is_trained is None:
        is_trained = np.ones(num_labels, bool)
    global_bin, global_source = _tune_global(histogram, is_trained, objective)
    per_label, sources = np.empty(num_labels, np.int64), np.empty(num_labels, object)
    for start in range(0, num_labels, _LABELS_AT_A_TIME):
        part = slice(start, start + _LABELS_AT_A_TIME)
        per_label[part], sources[part] = _tune_labels(
            histogram[:, part], is_trained[part], global_bin, min_positives=min_positives
        )
    unit = NUM_BINS // bins
    return Thresholds(
        global_bin=global_bin * unit,
        per_label_bins=tuple(np.minimum(per_label * unit, NEVER).tolist()),
        sources=tuple(sources.tolist()),
        global_source=global_source,
        top_k=1 if hits is None or not num_labels else _best_top_k(histogram, hits),
    )


def _best_top_k(histogram: np.ndarray, hits: np.ndarray) -> int:
    """The lowest number of best-scored labels that maximizes micro-F1, see `tune`."""
    documents, num_labels = histogram[:, 0].sum(), histogram.shape[1]
    k = np.minimum(np.arange(1, len(hits) + 1), num_labels)
    return 1 + int(np.argmax(ratio(2 * hits, k * documents + histogram[1].sum())))


def _tune_global(
    histogram: np.ndarray, is_trained: np.ndarray, objective: Objective
) -> tuple[int, str]:
    """The bin of the global threshold, and its source, see `tune`."""
    half = (histogram.shape[-1] - 1) // 2
    if not histogram.any():
        return half, NO_DOCUMENTS
    if not histogram[1].any():
        return half, NO_POSITIVES
    pooled = (histogram if is_trained.all() else histogram[:, is_trained]).sum(axis=1)
    if not ranks_above_chance(pooled[:, np.newaxis])[0]:
        return half, ALL_AT_CHANCE
    reached = np.cumsum(pooled[:, ::-1], axis=-1)[:, ::-1]
    if objective == "micro_f1":
        f1 = ratio(2 * reached[1], reached.sum(axis=0) + histogram[1].sum())
    else:
        f1 = _macro_f1_by_bin(histogram, is_trained & histogram[1].any(axis=-1))
    best = int(_nearest_best(f1, half))
    predicted, pairs = reached[:, best].sum(), pooled.sum()
    if predicted > _NEARLY_ALL * pairs and 2 * pooled[1].sum() < pairs:
        return half, ALL_AT_CHANCE
    return best, TUNED


def _macro_f1_by_bin(histogram: np.ndarray, is_averaged: np.ndarray) -> np.ndarray:
    """float64 [bins + 1]: the mean of the labels' F1 at every threshold, one for all of them."""
    total, labels = np.zeros(histogram.shape[-1]), np.flatnonzero(is_averaged)
    for start in range(0, len(labels), _LABELS_AT_A_TIME):
        part = histogram[:, labels[start : start + _LABELS_AT_A_TIME]]
        total += sweep_f1(part).sum(axis=0)
    return total / max(len(labels), 1)


def _tune_labels(
    histogram: np.ndarray, is_trained: np.ndarray, global_bin: int, *, min_positives: int
) -> tuple[np.ndarray, np.ndarray]:
    """The bin of each label's threshold, int64 [labels], and its source, [labels], see `tune`."""
    f1 = sweep_f1(histogram)
    own_bins = _nearest_best(f1, global_bin)
    documents = histogram.sum(axis=0)
    totals, positives = documents.sum(axis=-1), histogram[1].sum(axis=-1)
    reached = np.where(np.arange(documents.shape[-1]) >= own_bins[:, np.newaxis], documents, 0)
    assigns_nearly_all = reached.sum(axis=-1) > _NEARLY_ALL * totals
    excess, deviation = mann_whitney(histogram)
    is_above_chance, is_surely_above_chance = (excess > z * deviation for z in (Z_95, Z_9999))
    is_informative = np.where(assigns_nearly_all, is_surely_above_chance, is_above_chance)
    is_withheld = (
        ~documents[:, :global_bin].any(axis=-1)
        & (positives < totals)
        & ~np.where(2 * positives < totals, is_surely_above_chance, is_above_chance)
    )
    top_bins = documents.shape[-1] - 1 - np.argmax(documents[:, ::-1] > 0, axis=-1)
    # The first reason that holds.
    reasons = [
        (~is_trained, NEVER_TRAINED, NEVER),
        (is_withheld, WITHHELD, top_bins + 1),
        (positives < min_positives, TOO_FEW, global_bin),
        (~is_informative, AT_CHANCE, global_bin),
        (f1.max(axis=-1) < MIN_F1, LOW_F1, global_bin),
    ]
    holds = [condition for condition, _, _ in reasons]
    sources = np.select(holds, [np.full(len(f1), source, object) for _, source, _ in reasons], OWN)
    bins = np.select(holds, [bins for _, _, bins in reasons], own_bins)
    return bins, sources


def common_f1(histogram: np.ndarray, thresholds: Thresholds) -> dict[Objective, float]:
    """What one threshold for all labels reaches on the documents of a histogram, see `tune`.

    Returns:
      micro_f1; macro_f1, over the labels that occur in these documents.
    """
    reached = _is_reached(histogram, thresholds.common_bins)
    positives = histogram[1].sum(axis=-1)
    false, true = histogram.sum(axis=-1, where=reached)
    f1 = ratio(2 * true, true + false + positives)
    return {
        "micro_f1": float(ratio(2 * true.sum(), (true + false + positives).sum())),
        "macro_f1": float(ratio(f1[positives > 0].sum(), (positives > 0).sum())),
    }


def label_errors(histogram: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """int64 [labels]: false positives and negatives of each label at its own threshold.

    Args:
      histogram: [2, labels, bins + 1], as in `tune`.
      thresholds: the thresholds.
    """
    reached = _is_reached(histogram, thresholds.per_label_bins)
    return np.where(reached, histogram[0], histogram[1]).sum(axis=-1)


def _is_reached(histogram: np.ndarray, threshold_bins: Sequence[int]) -> np.ndarray:
    """bool [labels, bins + 1]: the bins whose scores reach each label's threshold."""
    # Rounded up: NEVER is above the last bin of a histogram with fewer bins too.
    unit = NUM_BINS // (histogram.shape[-1] - 1)
    bins = -(-np.array(threshold_bins) // unit)
    return np.arange(histogram.shape[-1]) >= bins[:, np.newaxis]


def expected_f1_pairs(scores: tf.Tensor, is_assignable: Any = None) -> Pairs:
    """The labels of each document that maximize its expected F1, in the graph.

    If labels are independent, the best set holds the best-scored labels (Lewis 1995, Evaluating and
    optimizing autonomous text classification systems). The expectation of the ratio is approximated
    by the ratio of expectations, 2 sum(p in set) / (size of set + sum(p)); the exact one is in
    Jansche 2007, A maximum expected utility framework for binary sequence labeling, and Ye et al.
    2012, Optimizing F-measures: a tale of two approaches. A label belongs to the set if its score
    exceeds half of the F1 of the set; so a document gets at least its best label, unless all of its
    scores are 0. Sets of the best-scored labels are tried one by one. Where a label that is not
    among these may belong to the set, Dinkelbach's method (1967, On nonlinear fractional
    programming) goes on over all labels, without sorting them.

    Args:
      scores: float32 [batch, labels], calibrated probabilities.
      is_assignable: bool [labels], those that may belong to a set; None: all.
    """
    values, indices, bound = best_eligible(scores, 1, is_assignable)
    best = tf.maximum(values, 0.0)
    if is_assignable is not None:
        scores = tf.where(is_assignable, scores, 0.0)
    total = tf.reduce_sum(scores, axis=1, keepdims=True)

    sizes = tf.range(1.0, tf.cast(tf.shape(best)[1], tf.float32) + 1)
    halves = tf.math.divide_no_nan(tf.cumsum(best, axis=1), sizes + total)
    start = tf.maximum(tf.reduce_max(halves, axis=1, keepdims=True), 0.0)
    is_open = tf.squeeze(bound > start, axis=1)  # another label may belong to the set
    of_best = Pairs.of_rows(indices, num_columns=shape_of(scores)[1])
    of_best = of_best.where(tf.reshape((best > start) & ~is_open[:, tf.newaxis], [-1]))
    rows = tf.squeeze(tf.where(is_open), axis=1)
    of_all = _dinkelbach(*(tf.gather(values, rows) for values in (scores, total, start)))
    return dataclasses.replace(
        of_best,
        documents=tf.concat([of_best.documents, tf.gather(rows, of_all.documents)], axis=0),
        columns=tf.concat([of_best.columns, of_all.columns], axis=0),
    )


def _dinkelbach(scores: tf.Tensor, total: tf.Tensor, start: tf.Tensor) -> Pairs:
    """Those whose scores exceed half of the best F1 of their row.

    Args:
      scores: float32 [rows, labels], not negative.
      total: float32 [rows, 1], the sums of the scores.
      start: float32 [rows, 1], not above half of the best F1.
    """

    def better(half_f1, _):
        chosen = tf.cast(scores > half_f1, tf.float32)
        new = tf.math.divide_no_nan(
            tf.reduce_sum(chosen * scores, axis=1, keepdims=True),
            tf.reduce_sum(chosen, axis=1, keepdims=True) + total,
        )
        return tf.maximum(new, half_f1), tf.reduce_any(new > half_f1)

    half_f1, _ = tf.while_loop(
        lambda _, is_rising: is_rising,
        better,
        (start, tf.constant(True)),
        maximum_iterations=_MAX_ROUNDS,
    )
    return Pairs.of(scores > half_f1)


def _nearest_best(f1: np.ndarray, anchor: int) -> np.ndarray:
    """Of the bins with the best F1 on the last axis, the nearest to `anchor`; of two, the lower."""
    distance = np.abs(np.arange(f1.shape[-1]) - anchor)
    return np.argmin(np.where(f1 == f1.max(axis=-1, keepdims=True), distance, NEVER), axis=-1)
