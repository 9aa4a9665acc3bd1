"""Counts over a split: one pass of the model, summed over replicas and workers."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.progress import ProgressLine
from trainer.data.input_pipeline import Batch, BatchIterator, evaluation_batches
from trainer.data.labels import multi_hot
from trainer.data.shards import explain_corrupt_shards, plan_split
from trainer.distribution.strategy import (
    gather_over_workers,
    is_chief,
    num_workers,
    sum_over_workers,
)
from trainer.evaluation import error_analysis
from trainer.evaluation.split_counts import Counts, Histograms, ScoredBatch, SplitCounts
from trainer.experiment import Experiment
from trainer.metrics import ranking
from trainer.metrics.calibration import Calibration
from trainer.metrics.thresholds import MAX_TOP_K, Thresholds, common_f1, tune


class Evaluator:
    """Runs the model over a split and returns sums, exact over any number of replicas.

    Args:
      experiment: its model is used with the weights it has at each call.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._strategy = experiment.strategy
        self._num_labels = experiment.dataset.num_labels
        self._histograms = Histograms(self._num_labels)
        replicas = self._strategy.num_replicas_in_sync
        # Rounded up to a share for each replica; padding is masked, so the numbers do not change.
        self._batch_size = -(-experiment.config.evaluate.batch_size // replicas) * replicas
        # Training calls it after every epoch, so it is traced once.
        self._histogram_step = self._step(self._histograms.cells_of_scores)

    def histogram(self, split: str) -> np.ndarray:
        """Of a split before calibration, `trainer.metrics.classification.score_histogram`."""
        histogram = self._histograms.empty_of_scores()
        for part in self._results(self._histogram_step, split, what=f"scoring {split}"):
            self._histograms.add_scores(histogram, part)
        return sum_over_workers(self._strategy, histogram)

    def validate(self) -> dict[str, float | None]:
        """The model on the validation split, at the one threshold that the objective is best at.

        Returns:
          validation_micro_f1, validation_macro_f1, threshold: columns of history.json, None if the
          split has no documents.
        """
        histogram = self.histogram("validation")
        if not histogram.any():
            return dict.fromkeys(("validation_micro_f1", "validation_macro_f1", "threshold"))
        tuned = tune(
            histogram,
            min_positives=self._experiment.config.evaluate.min_positives,
            is_trained=self._experiment.dataset.is_trained,
            objective=self._experiment.config.train.objective,
        )
        f1 = common_f1(histogram, tuned)
        return {
            "validation_micro_f1": f1["micro_f1"],
            "validation_macro_f1": f1["macro_f1"],
            "threshold": tuned.global_threshold,
        }

    def log_odds_histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins]: `Histograms.of_log_odds` of a split, before calibration."""

        def count(scored: ScoredBatch) -> Counts:
            return {"histogram": self._histograms.of_log_odds(scored, scored.prior_corrected)}

        total = {"histogram": self._histograms.empty_of_log_odds()}
        for part in self._results(self._step(count), split, what=f"calibrating on {split}"):
            total = _add(total, part)
        return sum_over_workers(self._strategy, total)["histogram"]

    def tuning_counts(self, split: str, calibration: Calibration) -> Counts:
        """What thresholds are tuned on, see `trainer.metrics.thresholds.tune`.

        Returns:
          histogram: `trainer.metrics.classification.score_histogram` of calibrated scores;
          hits: int64 [MAX_TOP_K].
        """
        at_k, equal = tuple(range(1, MAX_TOP_K + 1)), np.ones(self._num_labels)
        is_trained = self._experiment.dataset.is_trained

        def count(scored: ScoredBatch) -> Counts:
            ranked = ranking.ranking_counts(
                scored.labels,
                tf.where(is_trained, scored.scores, -1.0),  # the others are never assigned
                scored.mask,
                at_k=at_k,
                label_propensities=equal,
            )
            return {"scores": self._histograms.cells_of_scores(scored), "hits": ranked["hits"]}

        histogram, hits = self._histograms.empty_of_scores(), np.zeros(MAX_TOP_K, np.int64)
        step = self._step(count, calibration)
        for part in self._results(step, split, what=f"tuning on {split}"):
            self._histograms.add_scores(histogram, part["scores"])
            hits += part["hits"]
        return sum_over_workers(self._strategy, {"histogram": histogram, "hits": hits})

    def measure(
        self,
        split: str,
        thresholds: Thresholds,
        calibration: Calibration,
        *,
        confusion_labels: np.ndarray,
    ) -> Counts:
        """Everything that an evaluation says of a split, whose documents are read once.

        Args:
          split: the split.
          thresholds: of the calibrated scores.
          calibration: what calibrates the model's log-odds.
          confusion_labels: the labels whose confusions are counted, see
            `trainer.evaluation.error_analysis.confusion_labels`.

        Returns:
          Summed `SplitCounts.of_batch`, with
          histogram: `trainer.metrics.classification.score_histogram` of calibrated scores;
          errors: `trainer.evaluation.error_analysis.top_errors` of the split;
          slicing: the `trainer.evaluation.slices.Slicing` of the counts `slices`.
        """
        split_counts = SplitCounts(
            self._experiment.config,
            self._experiment.dataset,
            split,
            thresholds,
            confusion_labels=confusion_labels,
        )

        def count(scored: ScoredBatch) -> Counts:
            return {
                "sums": split_counts.of_batch(scored),
                "errors": split_counts.top_errors(scored),
                "scores": self._histograms.cells_of_scores(scored),
            }

        total, errors, histogram = None, [], self._histograms.empty_of_scores()
        step = self._step(count, calibration)
        for part in self._results(
            step, split, annotate=split_counts.annotate, what=f"measuring {split}"
        ):
            total = part["sums"] if total is None else _add(total, part["sums"])
            errors = [error_analysis.top_errors([*errors, part["errors"]])]
            self._histograms.add_scores(histogram, part["scores"])
        errors_by_worker = gather_over_workers(self._strategy, errors[0])
        return sum_over_workers(self._strategy, total | {"histogram": histogram}) | {
            "errors": error_analysis.top_errors(errors_by_worker),
            "slicing": split_counts.slicing,
        }

    def _score(self, batch: Batch, calibration: Calibration | None) -> ScoredBatch:
        """The way from tokens to scores, in the graph; what a step does not use is not computed."""
        logits = self._experiment.model(batch["tokens"], training=False)
        prior_corrected = self._experiment.log_odds(logits)
        log_odds = calibration.log_odds(prior_corrected) if calibration else prior_corrected
        return ScoredBatch(
            batch=batch,
            labels=multi_hot(batch["labels"], self._num_labels),
            logits=logits,
            prior_corrected=prior_corrected,
            log_odds=log_odds,
            scores=tf.sigmoid(log_odds),
        )

    def _step(
        self, count: Callable[[ScoredBatch], Counts], calibration: Calibration | None = None
    ) -> Callable[[Iterator[Any]], Counts]:
        """A graph function that counts the next batch of an iterator on every replica."""
        # AutoGraph takes ten times as long to rewrite all that is counted as 10,000 documents take
        # to be counted. The model may need it.
        count = tf.autograph.experimental.do_not_convert(count)

        def of_replica(batch: Batch) -> Counts:
            return count(self._score(batch, calibration))

        return tf.function(lambda iterator: self._strategy.run(of_replica, args=(next(iterator),)))

    def _results(self, step, split: str, *, what: str, annotate=None) -> Iterator[Counts]:
        """What every step counts on every replica of this worker, as NumPy arrays.

        The chief shows the progress; `what` is what it calls the work.
        """
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
        documents, started = dataset.num_examples(split), time.monotonic()
        with (
            BatchIterator(batches) as reader,
            explain_corrupt_shards(dataset, split),
            ProgressLine(what) if is_chief(strategy) else contextlib.nullcontext() as progress,
        ):
            for index in range(plan.steps):
                yield from self._by_local_replica(step(reader.iterator))
                if progress:
                    done = min(documents, (index + 1) * self._batch_size)
                    rate = done / (time.monotonic() - started)
                    status = f"{done:,} of {documents:,} documents, {rate:,.0f} documents/s"
                    progress.update(done, documents, status)

    def _by_local_replica(self, counts: Counts) -> Iterator[Counts]:
        """The counts of each replica of this worker."""
        for replica in range(self._strategy.num_replicas_in_sync // num_workers(self._strategy)):
            yield tf.nest.map_structure(
                lambda value, i=replica: self._strategy.experimental_local_results(value)[
                    i
                ].numpy(),
                counts,
            )


def _add(total: Counts, part: Counts) -> Counts:
    """The sums of both, with the arrays of `total` changed in place: they may be large."""

    def add(left, right):
        if not np.ndim(left):
            return left + right
        left += right
        return left

    return tf.nest.map_structure(add, total, part)
