"""What an evaluation counts in each batch of a split, once thresholds and calibration are fixed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.config import Config
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch
from trainer.evaluation import error_analysis, slices
from trainer.metrics import bootstrap, classification, ranking, score_histograms
from trainer.metrics.thresholds import Thresholds, expected_f1_decisions
from trainer.runs.evaluation_record import (
    EXPECTED_F1,
    FREQUENT_LABELS,
    LABEL_THRESHOLDS,
    NO_LABELS,
    ONE_THRESHOLD,
    TOP_K,
)

# A nested dict of tensors or of NumPy arrays.
Counts = dict[str, Any]

# Key of the ranking by the model's scores, which all of its methods share. The keys of the other
# rankings are those of their methods, which are baselines.
MODEL_RANKING = "model"
# The methods whose metrics get intervals.
RESAMPLED_METHODS = (ONE_THRESHOLD, LABEL_THRESHOLDS)


@dataclasses.dataclass(frozen=True)
class ScoredBatch:
    """A replica's share of a batch, with what the model makes of it.

    Attributes:
      batch: from the input pipeline, with what `SplitCounts.annotate` adds.
      labels: float32 [batch, labels], multi-hot.
      logits: [batch, labels], the model's output.
      prior_corrected: float32 [batch, labels], log-odds: logits without the loss's weighting.
      log_odds: float32 [batch, labels], the prior-corrected ones after calibration.
      scores: float32 [batch, labels], their sigmoid.
    """

    batch: Batch
    labels: tf.Tensor
    logits: tf.Tensor
    prior_corrected: tf.Tensor
    log_odds: tf.Tensor
    scores: tf.Tensor

    @property
    def mask(self) -> tf.Tensor:
        """float32 [batch]: 1 for a document, 0 for padding."""
        return self.batch["mask"]


class Histograms:
    """Histograms of the scores of one batch, with as many bins as the number of labels allows."""

    def __init__(self, num_labels: int):
        self._num_labels = num_labels
        self._score_bins = classification.histogram_bins(num_labels)
        self._log_odds_bins = score_histograms.log_odds_bins(num_labels)

    def cells_of_scores(self, scored: ScoredBatch) -> Counts:
        """What `add_scores` adds to a histogram of scores, in the graph.

        Returns:
          cells: see `trainer.metrics.classification.histogram_cells`; documents: int64 [].
        """
        cells = classification.histogram_cells(
            scored.labels, scored.scores, scored.mask, num_bins=self._score_bins
        )
        return {"cells": cells, "documents": tf.cast(tf.reduce_sum(scored.mask), tf.int64)}

    def add_scores(self, histogram: np.ndarray, counts: Counts) -> None:
        """Adds `cells_of_scores` to a histogram that began as `empty_of_scores`, in place."""
        classification.add_cells(histogram, counts["cells"], documents=counts["documents"])

    def of_log_odds(self, scored: ScoredBatch, log_odds: tf.Tensor) -> tf.Tensor:
        """int64 [2, labels, bins], see `trainer.metrics.score_histograms.log_odds_histogram`."""
        return score_histograms.log_odds_histogram(
            scored.labels, log_odds, scored.mask, num_bins=self._log_odds_bins
        )

    def of_pooled_log_odds(self, scored: ScoredBatch, log_odds: tf.Tensor) -> tf.Tensor:
        """int64 [2, bins]: `of_log_odds` summed over labels."""
        return score_histograms.pooled_log_odds_histogram(
            scored.labels, log_odds, scored.mask, num_bins=self._log_odds_bins
        )

    def empty_of_scores(self) -> np.ndarray:
        """int64 [2, labels, bins + 1], `trainer.metrics.classification.score_histogram` of none."""
        return np.zeros((2, self._num_labels, self._score_bins + 1), np.int64)

    def empty_of_log_odds(self) -> np.ndarray:
        """`of_log_odds` of no documents."""
        return np.zeros((2, self._num_labels, self._log_odds_bins), np.int64)


class SplitCounts:
    """Counts the batches of one split.

    Args:
      config: the experiment's.
      dataset: the dataset.
      split: the split whose batches are counted; its metadata decides the slices.
      thresholds: of the calibrated scores.
      confusion_labels: ids of the labels whose confusions are counted, see
        `trainer.evaluation.error_analysis.confusion_labels`.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        split: str,
        thresholds: Thresholds,
        *,
        confusion_labels: np.ndarray,
    ):
        train_positives, train_documents = (
            dataset.label_counts("train"),
            dataset.num_examples("train"),
        )
        self.slicing = slices.slicing_of(dataset, split)
        self._thresholds = thresholds
        self._confusion_labels = confusion_labels
        self._num_labels = dataset.num_labels
        self._histograms = Histograms(dataset.num_labels)
        self._is_frequent = _most_frequent(train_positives, train_documents)
        self._frequency = (train_positives / train_documents).astype(np.float32)
        self._at_k = config.evaluate.at_k
        self._propensities = ranking.propensities(
            train_positives,
            train_documents,
            a=config.evaluate.propensity_a,
            b=config.evaluate.propensity_b,
        )
        self._replicates = config.evaluate.bootstrap_replicates
        self._seed = config.train.seed
        self._resample_labels = bootstrap.macro_counts_fit_memory(
            dataset.num_labels, replicates=len(RESAMPLED_METHODS) * self._replicates
        )

    def annotate(self, parsed: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What the counts need of parsed records, in addition to their tokens; on a CPU."""
        keys = bootstrap.document_key(parsed["id"])
        columns = {"keys": keys, "slices": self.slicing.metadata_slices(parsed)}
        if self._replicates:
            columns["resampled"] = bootstrap.resample(
                keys, replicates=self._replicates, seed=self._seed
            )
        return columns

    def of_batch(self, scored: ScoredBatch) -> Counts:
        """Sums over the documents of a batch, in the graph.

        Returns:
          methods: by key of the method, `trainer.metrics.classification.decision_counts`;
          rankings: MODEL_RANKING or the key of a baseline, the counts of `trainer.metrics.ranking`;
          log_odds: see `Histograms.of_log_odds`, of calibrated log-odds;
          prior_corrected, logits: int64 [2, bins], the same of all labels together, before the
            calibration, and before the prior correction too;
          slices: see `trainer.evaluation.slices.slice_counts`;
          confusions: see `trainer.evaluation.error_analysis.confusion_counts`;
          bootstrap: by key of the method, `trainer.metrics.bootstrap.resampled_counts`; absent
            without replicates.
        """
        decisions = self._decisions(scored)
        counts = {
            "methods": {
                key: classification.decision_counts(scored.labels, decided, scored.mask)
                for key, decided in decisions.items()
            },
            "rankings": self._rankings(scored),
            **self._histogram_counts(scored),
            "slices": slices.slice_counts(
                scored.labels,
                decisions[LABEL_THRESHOLDS],
                self.slicing.members(scored.batch["lengths"], scored.batch["slices"]),
                scored.mask,
            ),
            "confusions": error_analysis.confusion_counts(
                scored.labels,
                scored.scores,
                decisions[LABEL_THRESHOLDS],
                scored.mask,
                label_ids=self._confusion_labels,
            ),
        }
        if self._replicates:
            counts["bootstrap"] = {
                key: bootstrap.resampled_counts(
                    scored.labels,
                    decisions[key],
                    scored.batch["resampled"],
                    scored.mask,
                    with_labels=self._resample_labels,
                )
                for key in RESAMPLED_METHODS
            }
        return counts

    def top_errors(self, scored: ScoredBatch) -> Counts:
        """`trainer.evaluation.error_analysis.confident_errors` of a batch, in the graph."""
        decided = classification.decide(scored.scores, self._thresholds.per_label_bins)
        return error_analysis.confident_errors(
            scored.labels, scored.scores, decided, scored.mask, scored.batch["keys"]
        )

    def _decisions(self, scored: ScoredBatch) -> dict[str, tf.Tensor]:
        """By key of the method, bool [batch, labels]."""
        shape = tf.shape(scored.scores)
        return model_decisions(scored.scores, self._thresholds) | {
            NO_LABELS: tf.zeros(shape, tf.bool),
            FREQUENT_LABELS: tf.broadcast_to(self._is_frequent, shape),
        }

    def _rankings(self, scored: ScoredBatch) -> dict[str, Counts]:
        def counts_at_k(scores):
            return ranking.ranking_counts(
                scored.labels,
                scores,
                scored.mask,
                at_k=self._at_k,
                label_propensities=self._propensities,
            )

        by_frequency = tf.broadcast_to(self._frequency, tf.shape(scored.scores))
        return {
            MODEL_RANKING: counts_at_k(scored.scores)
            | ranking.full_ranking_counts(scored.labels, scored.scores, scored.mask),
            FREQUENT_LABELS: counts_at_k(by_frequency),
        }

    def _histogram_counts(self, scored: ScoredBatch) -> Counts:
        return {
            "log_odds": self._histograms.of_log_odds(scored, scored.log_odds),
            "prior_corrected": self._histograms.of_pooled_log_odds(scored, scored.prior_corrected),
            "logits": self._histograms.of_pooled_log_odds(scored, scored.logits),
        }


def model_decisions(scores: tf.Tensor, thresholds: Thresholds) -> dict[str, tf.Tensor]:
    """The labels that each of the model's rules assigns: by key, bool [batch, labels].

    No rule assigns labels that are withheld or never assigned.
    """
    is_assignable = thresholds.is_assignable
    best = ranking.top_k_decisions(tf.where(is_assignable, scores, -1.0), thresholds.top_k)
    return {
        ONE_THRESHOLD: classification.decide(scores, thresholds.common_bins),
        LABEL_THRESHOLDS: classification.decide(scores, thresholds.per_label_bins),
        TOP_K: best & is_assignable,
        EXPECTED_F1: expected_f1_decisions(tf.where(is_assignable, scores, 0.0)),
    }


def _most_frequent(positives: np.ndarray, documents: int) -> np.ndarray:
    """bool [labels]: as many of the most frequent labels as a document has on average."""
    count = max(1, round(positives.sum() / documents))
    chosen = np.zeros(len(positives), bool)
    chosen[np.argsort(-positives, kind="stable")[:count]] = True
    return chosen
