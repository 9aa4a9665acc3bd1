"""Counts over a split: one pass of the model, summed over replicas and workers."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.input_pipeline import Batch, delete_in_background, evaluation_batches
from trainer.data.labels import multi_hot
from trainer.data.shards import explain_corrupt_shards, plan_split
from trainer.distribution.strategy import num_workers, sum_over_workers, worker_index
from trainer.evaluation import error_analysis, slices
from trainer.experiment import Experiment
from trainer.metrics import bootstrap, classification, ranking, score_histograms
from trainer.metrics.calibration import Calibration
from trainer.metrics.thresholds import MOST_LABELS, Thresholds, expected_f1_decisions
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


class Evaluator:
    """Runs the model over a split and returns sums, exact over any number of replicas.

    Args:
      experiment: its model is used with the weights it has at each call.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._strategy = experiment.strategy
        self._num_labels = experiment.dataset.num_labels
        replicas = self._strategy.num_replicas_in_sync
        # Rounded up to a share for each replica; padding is masked, so the numbers do not change.
        self._batch_size = -(-experiment.config.evaluate.batch_size // replicas) * replicas
        self._num_bins = classification.histogram_bins(self._num_labels)
        self._log_odds_bins = score_histograms.log_odds_bins(self._num_labels)
        # Training calls it after every epoch, so it is traced once.
        self._histogram_step = self._compile(
            lambda labels, scores, mask, _: {"histogram": self._histogram(labels, scores, mask)}
        )

    def histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins + 1]: `trainer.metrics.classification.score_histogram` of the whole split, before calibration."""
        empty = np.zeros((2, self._num_labels, self._num_bins + 1), np.int64)
        return self._sum(self._histogram_step, split, {"histogram": empty})["histogram"]

    def log_odds_histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins]: `trainer.metrics.score_histograms.log_odds_histogram` of the whole split, before calibration."""

        def count(batch: Batch) -> Counts:
            log_odds = self._experiment.log_odds(
                self._experiment.model(batch["tokens"], training=False)
            )
            return {
                "histogram": self._log_odds_histogram(
                    multi_hot(batch["labels"], self._num_labels), log_odds, batch["mask"]
                )
            }

        empty = np.zeros((2, self._num_labels, self._log_odds_bins), np.int64)
        return self._sum(self._distribute(count), split, {"histogram": empty})["histogram"]

    def tuning_counts(self, split: str, calibration: Calibration) -> Counts:
        """What thresholds are tuned on: histogram, as above but of calibrated scores, and hits, see `trainer.metrics.thresholds.tune`."""
        ranks, even = tuple(range(1, MOST_LABELS + 1)), np.ones(self._num_labels)

        def count(labels, scores, mask, _):
            best = ranking.ranking_counts(
                labels, scores, mask, ranks=ranks, label_propensities=even
            )
            return {"histogram": self._histogram(labels, scores, mask), "hits": best["hits"]}

        empty = {
            "histogram": np.zeros((2, self._num_labels, self._num_bins + 1), np.int64),
            "hits": np.zeros(MOST_LABELS, np.int64),
        }
        return self._sum(self._compile(count, calibration), split, empty)

    def measure(
        self, split: str, thresholds: Thresholds, calibration: Calibration, *, chosen: np.ndarray
    ) -> Counts:
        """Everything that an evaluation tells of a split; its documents are read once.

        Args:
          split: the split.
          thresholds: of the calibrated scores.
          calibration: what calibrates the model's log-odds.
          chosen: the labels whose confusions are counted, see `trainer.evaluation.error_analysis.confusion_labels`.

        Returns:
          systems: by name of the system, `trainer.metrics.classification.decision_counts`; rankings: by name, the counts of `trainer.metrics.ranking`; histogram;
          log_odds: [2, labels, bins] of calibrated log-odds; uncalibrated and raw: [2, bins], all labels together, before the calibration
          and before what the loss's weighting does is undone; slices; bootstrap: by name; confusions; errors: `trainer.evaluation.error_analysis.surest`.
        """
        experiment, config = self._experiment, self._experiment.config.evaluate
        train_positives = experiment.dataset.label_counts("train")
        frequent, frequency = _most_frequent(
            train_positives, experiment.dataset.num_examples("train")
        )
        propensities = ranking.propensities(
            train_positives,
            experiment.dataset.num_examples("train"),
            a=config.propensity_a,
            b=config.propensity_b,
        )
        slicing, replicates = (
            slices.slicing_of(experiment.dataset, split),
            config.bootstrap_replicates,
        )
        with_labels = bootstrap.has_macro(self._num_labels, replicates=2 * replicates)

        def annotate(parsed):
            keys = bootstrap.document_key(parsed["id"])
            weights = (
                bootstrap.resample(keys, replicates=replicates, seed=experiment.config.train.seed)
                if replicates
                else None
            )
            return {"keys": keys, "slices": slicing.metadata_slices(parsed)} | (
                {"resampled": weights} if replicates else {}
            )

        def count(batch: Batch) -> Counts:
            labels, mask = multi_hot(batch["labels"], self._num_labels), batch["mask"]
            logits = experiment.model(batch["tokens"], training=False)
            uncalibrated = experiment.log_odds(logits)
            log_odds = calibration.log_odds(uncalibrated)
            scores = tf.sigmoid(log_odds)

            def constant(row):
                return tf.broadcast_to(row, tf.shape(scores))

            def ranked(of):
                return ranking.ranking_counts(
                    labels, of, mask, ranks=config.at_k, label_propensities=propensities
                )

            decisions = {
                ONE_THRESHOLD: classification.decide(scores, thresholds.global_bin),
                LABEL_THRESHOLDS: classification.decide(scores, thresholds.per_label_bins),
                TOP_K: ranking.top_k_decisions(scores, thresholds.top_k),
                EXPECTED_F1: expected_f1_decisions(scores),
                NO_LABELS: constant(np.zeros(self._num_labels, bool)),
                FREQUENT_LABELS: constant(frequent),
            }
            members = slicing.members(batch["tokens"], batch["slices"])
            sums = {
                "systems": {
                    name: classification.decision_counts(labels, decided, mask)
                    for name, decided in decisions.items()
                },
                "rankings": {
                    "model": ranked(scores) | ranking.full_ranking_counts(labels, scores, mask),
                    FREQUENT_LABELS: ranked(constant(frequency)),
                },
                "histogram": self._histogram(labels, scores, mask),
                "log_odds": self._log_odds_histogram(labels, log_odds, mask),
                "uncalibrated": tf.reduce_sum(
                    self._log_odds_histogram(labels, uncalibrated, mask), axis=1
                ),
                "raw": tf.reduce_sum(self._log_odds_histogram(labels, logits, mask), axis=1),
                "slices": slices.slice_counts(labels, decisions[LABEL_THRESHOLDS], members, mask),
                "confusions": error_analysis.confusion_counts(
                    labels, scores, decisions[LABEL_THRESHOLDS], mask, chosen=chosen
                ),
            }
            if replicates:
                sums["bootstrap"] = {
                    name: bootstrap.resampled_counts(
                        labels, decisions[name], batch["resampled"], mask, with_labels=with_labels
                    )
                    for name in (ONE_THRESHOLD, LABEL_THRESHOLDS)
                }
            errors = error_analysis.confident_errors(
                labels, scores, decisions[LABEL_THRESHOLDS], mask, batch["keys"]
            )
            return {"sums": sums, "errors": errors}

        total, errors = None, []
        for part in self._results(self._distribute(count), split, annotate):
            total = (
                part["sums"]
                if total is None
                else tf.nest.map_structure(np.add, total, part["sums"])
            )
            errors = [error_analysis.surest([*errors, part["errors"]])]
        workers, worker = num_workers(self._strategy), worker_index(self._strategy)
        # Each worker's errors in a place of its own: the sum then holds those of all.
        apart = {
            name: np.stack([values * (i == worker) for i in range(workers)])
            for name, values in errors[0].items()
        }
        gathered = sum_over_workers(self._strategy, apart)
        every = error_analysis.surest(
            [{name: values[i] for name, values in gathered.items()} for i in range(workers)]
        )
        return sum_over_workers(self._strategy, total) | {"errors": every, "slicing": slicing}

    def _histogram(self, labels, scores, mask) -> tf.Tensor:
        return classification.score_histogram(labels, scores, mask, num_bins=self._num_bins)

    def _log_odds_histogram(self, labels, log_odds, mask) -> tf.Tensor:
        return score_histograms.log_odds_histogram(
            labels, log_odds, mask, num_bins=self._log_odds_bins
        )

    def _compile(self, count: Callable[..., Counts], calibration: Calibration | None = None):
        """A step that counts (labels, calibrated scores, mask, batch) of each replica."""

        def of_batch(batch: Batch) -> Counts:
            log_odds = self._experiment.log_odds(
                self._experiment.model(batch["tokens"], training=False)
            )
            scores = tf.sigmoid(calibration.log_odds(log_odds) if calibration else log_odds)
            return count(multi_hot(batch["labels"], self._num_labels), scores, batch["mask"], batch)

        return self._distribute(of_batch)

    def _distribute(self, count: Callable[[Batch], Counts]):
        return tf.function(lambda iterator: self._strategy.run(count, args=(next(iterator),)))

    def _results(self, step, split: str, annotate=None) -> Iterator[Counts]:
        """What every step counts on every replica of this worker, as NumPy arrays."""
        dataset, strategy = self._experiment.dataset, self._strategy
        plan = plan_split(
            dataset, split, num_workers=num_workers(strategy), global_batch_size=self._batch_size
        )
        batches = evaluation_batches(
            dataset,
            split,
            self._experiment.vectorizer,
            strategy,
            global_batch_size=self._batch_size,
            plan=plan,
            annotate=annotate,
        )
        iterators = [iter(batches)]
        with explain_corrupt_shards(dataset, split):
            for _ in range(plan.steps):
                result = tf.nest.map_structure(
                    strategy.experimental_local_results, step(iterators[0])
                )
                flat = [[value.numpy() for value in replicas] for replicas in _leaves(result)]
                for values in zip(*flat, strict=True):
                    yield _with_leaves(result, iter(values))
        delete_in_background(iterators)

    def _sum(self, step, split: str, total: Counts) -> Counts:
        """Adds up the counts of all replicas of all workers; what they send each other is one sum at the end."""
        for part in self._results(step, split):
            total = tf.nest.map_structure(np.add, total, part)
        return sum_over_workers(self._strategy, total)


def _leaves(counts: Counts) -> Iterator[Any]:
    for value in counts.values():
        yield from _leaves(value) if isinstance(value, dict) else (value,)


def _with_leaves(counts: Counts, values: Iterator[Any]) -> Counts:
    return {
        name: _with_leaves(value, values) if isinstance(value, dict) else next(values)
        for name, value in counts.items()
    }


def _most_frequent(positives: np.ndarray, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(bool [labels]: as many of the most frequent labels as a document has on average; float32 [labels]: frequencies)."""
    count = max(1, round(positives.sum() / documents))
    chosen = np.zeros(len(positives), bool)
    chosen[np.argsort(-positives, kind="stable")[:count]] = True
    return chosen, (positives / documents).astype(np.float32)
