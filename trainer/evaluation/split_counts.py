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
from trainer.metrics.columns import Columns, of_columns
from trainer.metrics.pairs import Pairs, shape_of
from trainer.metrics.thresholds import Thresholds, expected_f1_pairs
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
# A label's bins for each document of a batch, up to which a histogram of the batch is made.
_MOST_CELLS = 4


@dataclasses.dataclass(frozen=True)
class ScoredBatch:
    """A replica's share of a batch, with what the model makes of it.

    Attributes:
      batch: from the input pipeline, with what `SplitCounts.annotate` adds.
      columns: which labels the columns of all these matrices stand for, see
        `trainer.metrics.columns`; None: all, in order.
      positives: the pairs of documents and labels that are right.
      logits: [batch, labels], the model's output.
      prior_corrected: float32 [batch, labels], log-odds: logits without the loss's weighting.
      log_odds: float32 [batch, labels], the prior-corrected ones after calibration.
      scores: float32 [batch, labels], their sigmoid; 0 of labels that are not scored.
      is_scored: bool [batch, labels], or None: all are.
    """

    batch: Batch
    columns: Columns | None
    positives: Pairs
    logits: tf.Tensor
    prior_corrected: tf.Tensor
    log_odds: tf.Tensor
    scores: tf.Tensor
    is_scored: tf.Tensor | None = None

    @property
    def mask(self) -> tf.Tensor:
        """float32 [batch]: 1 for a document, 0 for padding."""
        return self.batch["mask"]

    @property
    def num_documents(self) -> tf.Tensor:
        """int64 []: the documents without padding."""
        return tf.cast(tf.reduce_sum(self.mask), tf.int64)


class Histograms:
    """Histograms of the scores of one batch, with as many bins as the number of labels allows.

    Args:
      num_labels: the number of labels.
      documents: of a batch, on one replica.
    """

    def __init__(self, num_labels: int, *, documents: int):
        self._num_labels, self._documents = num_labels, documents
        self._score_bins = classification.histogram_bins(num_labels)
        self._log_odds_bins = score_histograms.log_odds_bins(num_labels)

    def of_scores(self, scored: ScoredBatch) -> Counts:
        """What `add_scores` adds to a histogram of scores, in the graph.

        Returns:
          counts or cells: `classification.score_counts`, or `classification.score_cells` where a
            batch has few scores for each cell, or not all labels have a column;
          positives: `classification.cells_of_bins` of the positives;
          documents: int64 [].
        """
        positive, bins = scored.positives.without_padding(scored.mask), self._score_bins
        counts = {
            "positives": classification.cells_of_bins(
                positive,
                classification.score_bins(positive.values_of(scored.scores), bins),
                num_bins=bins + 1,
                columns=scored.columns,
            ),
            "documents": scored.num_documents,
        }
        if scored.columns is None and self._documents * _MOST_CELLS > bins:
            of_all = classification.score_counts(scored.scores, scored.mask, num_bins=bins)
            return counts | {"counts": of_all}
        cells = classification.score_cells(
            scored.scores, scored.mask, num_bins=bins, columns=scored.columns
        )
        return counts | {"cells": cells}

    def add_scores(self, histogram: np.ndarray, counts: Counts) -> None:
        """Adds `of_scores` to a histogram that began as `empty_of_scores`, in place."""
        if "counts" in counts:
            histogram[0] += counts["counts"]
        else:
            classification.add_cells(histogram, counts["cells"], documents=counts["documents"])
        classification.move_positives(histogram, counts["positives"])

    def of_log_odds(
        self, scored: ScoredBatch, log_odds: tf.Tensor, *, of_scored: bool = False
    ) -> Counts:
        """What `add_log_odds` adds to a histogram of log-odds, in the graph.

        With `of_scored`, the labels that the model does not score for a document are left out.

        Returns:
          counts: `trainer.metrics.score_histograms.log_odds_counts`;
          positives: `trainer.metrics.score_histograms.log_odds_cells` of the positives;
          label_ids: of the columns, where not all labels have one; documents: int64 [].
        """
        mask, documents, bins = scored.mask, scored.num_documents, self._log_odds_bins
        positive = scored.positives.without_padding(mask)
        if of_scored and scored.columns is not None:
            mask = mask[:, tf.newaxis] * tf.cast(scored.is_scored, tf.float32)
            positive = positive.where(positive.values_of(scored.is_scored))
            documents = tf.zeros_like(documents)
        counts = {
            "counts": score_histograms.log_odds_counts(log_odds, mask, num_bins=bins),
            "positives": score_histograms.log_odds_cells(
                positive, log_odds, num_bins=bins, columns=scored.columns
            ),
        }
        if scored.columns is None:
            return counts
        return counts | {"label_ids": scored.columns.label_ids, "documents": documents}

    def add_log_odds(self, histogram: np.ndarray, counts: Counts) -> None:
        """Adds `of_log_odds` to a histogram that began as `empty_of_log_odds`, in place."""
        if "label_ids" in counts:
            score_histograms.add_columns(
                histogram,
                counts["counts"],
                label_ids=counts["label_ids"],
                documents=counts["documents"],
            )
        else:
            histogram[0] += counts["counts"]
        classification.move_positives(histogram, counts["positives"])

    def of_pooled_log_odds(self, scored: ScoredBatch, log_odds: tf.Tensor) -> tf.Tensor:
        """int64 [2, bins]: `of_log_odds` summed over labels."""
        return score_histograms.pooled_log_odds_histogram(
            scored.positives,
            log_odds,
            scored.mask,
            num_bins=self._log_odds_bins,
            columns=scored.columns,
        )

    def empty_of_scores(self) -> np.ndarray:
        """int64 [2, labels, bins + 1], `trainer.metrics.classification.score_histogram` of none."""
        return np.zeros((2, self._num_labels, self._score_bins + 1), np.int64)

    def empty_of_log_odds(self) -> np.ndarray:
        """int64 [2, labels, bins]: `score_histograms.log_odds_histogram` of no documents."""
        return np.zeros((2, self._num_labels, self._log_odds_bins), np.int64)


class SplitCounts:
    """Counts the batches of one split.

    Args:
      config: the experiment's.
      dataset: the dataset.
      split: the split whose batches are counted; its metadata decides the slices.
      thresholds: of the calibrated scores.
      histograms: count the scores of a batch.
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
        histograms: Histograms,
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
        self._histograms = histograms
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

    @property
    def labels_counted(self) -> np.ndarray:
        """Ids of the labels that need a column in every batch, whatever the model scores."""
        most = np.argsort(-self._frequency, kind="stable")[: max(self._at_k)]
        return np.concatenate([most, np.flatnonzero(self._is_frequent), self._confusion_labels])

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
          pooled: logits, prior_corrected: int64 [2, bins], `Histograms.of_pooled_log_odds` before
            the prior correction and before the calibration; absent where these are the log-odds;
          slices: see `trainer.evaluation.slices.slice_counts`;
          confusions: see `trainer.evaluation.error_analysis.confusion_counts`;
          bootstrap: by key of the method, `trainer.metrics.bootstrap.resampled_counts`; absent
            without replicates.
        """
        decisions = self._decisions(scored)
        counts = {
            "methods": {
                key: classification.decision_counts(
                    scored.positives, decided, scored.mask, scored.columns
                )
                for key, decided in decisions.items()
            },
            "rankings": self._rankings(scored),
            "pooled": self._histogram_counts(scored),
            "slices": slices.slice_counts(
                scored.positives,
                decisions[LABEL_THRESHOLDS],
                self.slicing.members(scored.batch["lengths"], scored.batch["slices"]),
                scored.mask,
            ),
            "confusions": error_analysis.confusion_counts(
                scored.positives,
                scored.scores,
                decisions[LABEL_THRESHOLDS],
                scored.mask,
                label_ids=self._confusion_labels,
                columns=scored.columns,
            ),
        }
        if self._replicates:
            counts["bootstrap"] = {
                key: bootstrap.resampled_counts(
                    scored.positives,
                    decisions[key],
                    scored.batch["resampled"],
                    scored.mask,
                    with_labels=self._resample_labels,
                    columns=scored.columns,
                )
                for key in RESAMPLED_METHODS
            }
        return counts

    def top_errors(self, scored: ScoredBatch) -> Counts:
        """`trainer.evaluation.error_analysis.confident_errors` of a batch, in the graph."""
        return error_analysis.confident_errors(
            scored.positives,
            scored.scores,
            model_decisions(scored.scores, self._thresholds, scored.columns)[LABEL_THRESHOLDS],
            scored.mask,
            scored.batch["keys"],
            scored.columns,
        )

    def _decisions(self, scored: ScoredBatch) -> dict[str, Pairs]:
        """The pairs that each method assigns."""
        num_documents, num_columns = shape_of(scored.scores)
        nothing = tf.zeros([0], tf.int64)
        frequent = tf.where(of_columns(self._is_frequent, scored.columns))[:, 0]
        shape = tf.stack([num_documents, tf.size(frequent, tf.int64)])
        frequent = tf.broadcast_to(frequent, shape)
        return model_decisions(scored.scores, self._thresholds, scored.columns) | {
            NO_LABELS: Pairs(nothing, nothing, num_documents, num_columns),
            FREQUENT_LABELS: Pairs.of_rows(frequent, num_columns=num_columns),
        }

    def _rankings(self, scored: ScoredBatch) -> dict[str, Counts]:
        def counts_at_k(scores):
            return ranking.ranking_counts(
                scored.positives,
                scores,
                scored.mask,
                at_k=self._at_k,
                label_propensities=of_columns(self._propensities, scored.columns),
            )

        frequency = tf.reshape(of_columns(self._frequency, scored.columns), [1, -1])
        return {
            MODEL_RANKING: counts_at_k(scored.scores)
            | ranking.full_ranking_counts(
                scored.positives, scored.scores, scored.mask, scored.columns
            ),
            FREQUENT_LABELS: counts_at_k(frequency),
        }

    def _histogram_counts(self, scored: ScoredBatch) -> Counts:
        stages = {"logits": scored.logits, "prior_corrected": scored.prior_corrected}
        return {
            name: self._histograms.of_pooled_log_odds(scored, values)
            for name, values in stages.items()
            if values is not scored.log_odds
        }


def model_decisions(
    scores: tf.Tensor, thresholds: Thresholds, columns: Columns | None = None
) -> dict[str, Pairs]:
    """The pairs of a document and a label that each of the model's rules assigns.

    No rule assigns labels that are withheld or never assigned.
    """
    is_assignable = None
    if not thresholds.is_assignable.all():
        is_assignable = of_columns(thresholds.is_assignable, columns)
    of_common, of_own = classification.decided_pairs(
        scores,
        of_columns(np.array(thresholds.common_bins), columns),
        of_columns(np.array(thresholds.per_label_bins), columns),
    )
    return {
        ONE_THRESHOLD: of_common,
        LABEL_THRESHOLDS: of_own,
        TOP_K: ranking.top_k_pairs(scores, thresholds.top_k, is_assignable),
        EXPECTED_F1: expected_f1_pairs(scores, is_assignable),
    }


def _most_frequent(positives: np.ndarray, documents: int) -> np.ndarray:
    """bool [labels]: as many of the most frequent labels as a document has on average."""
    count = max(1, round(positives.sum() / documents))
    chosen = np.zeros(len(positives), bool)
    chosen[np.argsort(-positives, kind="stable")[:count]] = True
    return chosen
