"""Counts over a split: one pass of the model, summed over replicas and workers."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.ragged import row_ids
from trainer.data.input_pipeline import Batch, BatchIterator, evaluation_batches
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
from trainer.metrics.columns import Columns, of_columns
from trainer.metrics.pairs import Pairs, shape_of
from trainer.metrics.thresholds import MAX_TOP_K, Thresholds, common_f1, tune
from trainer.models.bow_tree import NOT_SCORED, BagWithLabelTree

# Documents x labels of a batch of a model that scores some labels of each; 16 MiB of float32.
_MAX_CELLS = 4 << 20


class Evaluator:
    """Runs the model over a split and returns sums, exact over any number of replicas.

    Args:
      experiment: its model is used with the weights it has at each call.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._strategy = experiment.strategy
        self._num_labels = experiment.dataset.num_labels
        self._outputs = self._model_function()
        replicas = self._strategy.num_replicas_in_sync
        batch_size = experiment.config.evaluate.batch_size
        if isinstance(experiment.model, BagWithLabelTree):
            batch_size = min(batch_size, replicas * self._documents_at_a_time())
        # Rounded up to a share for each replica; padding is masked, so the numbers do not change.
        self._batch_size = -(-batch_size // replicas) * replicas
        self._histograms = Histograms(self._num_labels, documents=self._batch_size // replicas)
        # Training calls it after every epoch, so it is traced once.
        self._histogram_step = self._step(self._histograms.of_scores)

    def _model_function(self) -> Callable[[Any], Any]:
        """Tokens -> the logits of all labels, or the `shortlist` of a model that scores some.

        All steps share its graph: to make one of the model takes as long as thousands of documents.
        A replica of several has variables of its own, so that these make their own.
        """
        model, is_read = self._experiment.model, self._experiment.has_own_code
        function = functools.partial(model, training=False)
        if isinstance(model, BagWithLabelTree):
            function = model.shortlist
        if self._strategy.num_replicas_in_sync > 1:
            return function
        return tf.function(function, autograph=is_read, reduce_retracing=True)

    def _documents_at_a_time(self) -> int:
        """So many that a batch and its columns, see `_scored_columns`, stay within _MAX_CELLS."""
        model, documents = self._experiment.model, self._experiment.config.evaluate.batch_size
        while documents > 1 and documents * model.most_labels(documents) > _MAX_CELLS:
            documents //= 2
        return documents

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
        """Of a split before calibration, `trainer.metrics.score_histograms.log_odds_histogram`.

        Of the labels that the model scores: those of others are not log-odds.
        """

        def count(scored: ScoredBatch) -> Counts:
            return self._histograms.of_log_odds(scored, scored.prior_corrected, of_scored=True)

        histogram = self._histograms.empty_of_log_odds()
        for part in self._results(self._step(count), split, what=f"calibrating on {split}"):
            self._histograms.add_log_odds(histogram, part)
        return sum_over_workers(self._strategy, histogram)

    def tuning_counts(self, split: str, calibration: Calibration) -> Counts:
        """What thresholds are tuned on, see `trainer.metrics.thresholds.tune`.

        Returns:
          histogram: `trainer.metrics.classification.score_histogram` of calibrated scores;
          hits: int64 [MAX_TOP_K].
        """
        at_k, equal = tuple(range(1, MAX_TOP_K + 1)), np.ones(self._num_labels)
        is_trained = self._experiment.dataset.is_trained

        def count(scored: ScoredBatch) -> Counts:
            scores = scored.scores
            if not is_trained.all():  # the others are never assigned
                scores = tf.where(of_columns(is_trained, scored.columns), scores, -1.0)
            ranked = ranking.ranking_counts(
                scored.positives,
                scores,
                scored.mask,
                at_k=at_k,
                label_propensities=of_columns(equal, scored.columns),
            )
            return {"scores": self._histograms.of_scores(scored), "hits": ranked["hits"]}

        histogram, hits = self._histograms.empty_of_scores(), np.zeros(MAX_TOP_K, np.int64)
        step = self._step(count, calibration)
        for part in self._results(step, split, what=f"tuning on {split}"):
            self._histograms.add_scores(histogram, part["scores"])
            hits += part["hits"]
        return sum_over_workers(self._strategy, {"histogram": histogram, "hits": hits})

    def measure(
        self,
        splits: Sequence[str],
        thresholds: Thresholds,
        calibration: Calibration,
        *,
        confusion_labels: np.ndarray,
    ) -> dict[str, Counts]:
        """Everything that an evaluation says of splits, whose documents are read once.

        Args:
          splits: the splits.
          thresholds: of the calibrated scores.
          calibration: what calibrates the model's log-odds.
          confusion_labels: the labels whose confusions are counted, see
            `trainer.evaluation.error_analysis.confusion_labels`.

        Returns:
          By split, the summed `SplitCounts.of_batch`, with
          histogram: `trainer.metrics.classification.score_histogram` of calibrated scores;
          log_odds: `trainer.metrics.score_histograms.log_odds_histogram` of calibrated log-odds;
          errors: `trainer.evaluation.error_analysis.top_errors` of the split;
          slicing: the `trainer.evaluation.slices.Slicing` of the counts `slices`.
        """
        counts, steps = {}, {}
        for split in splits:
            split_counts = SplitCounts(
                self._experiment.config,
                self._experiment.dataset,
                split,
                thresholds,
                histograms=self._histograms,
                confusion_labels=confusion_labels,
            )
            # Splits whose slices are as many are counted by one graph: to trace it takes a second.
            sizes = split_counts.slicing.sizes
            if sizes not in steps:
                steps[sizes] = self._counting_step(split_counts, calibration)
            counts[split] = self._measure(split, split_counts, steps[sizes])
        return counts

    def _counting_step(
        self, split_counts: SplitCounts, calibration: Calibration
    ) -> Callable[[Iterator[Any]], Counts]:
        """The graph function of what `measure` counts in each batch."""

        def count(scored: ScoredBatch) -> Counts:
            return {
                "sums": split_counts.of_batch(scored),
                "errors": split_counts.top_errors(scored),
                "scores": self._histograms.of_scores(scored),
                "log_odds": self._histograms.of_log_odds(scored, scored.log_odds),
            }

        return self._step(count, calibration, labels=split_counts.labels_counted.tolist())

    def _measure(
        self, split: str, split_counts: SplitCounts, step: Callable[[Iterator[Any]], Counts]
    ) -> Counts:
        """What `measure` gives of one split."""
        total, errors = None, []
        histogram, log_odds = (
            self._histograms.empty_of_scores(),
            self._histograms.empty_of_log_odds(),
        )
        for part in self._results(
            step, split, annotate=split_counts.annotate, what=f"measuring {split}"
        ):
            if total is None:
                total = tf.nest.map_structure(_zeros, part["sums"])
            total = _add(total, part["sums"])
            errors = [error_analysis.top_errors([*errors, part["errors"]])]
            self._histograms.add_scores(histogram, part["scores"])
            self._histograms.add_log_odds(log_odds, part["log_odds"])
        total |= {"histogram": histogram, "log_odds": log_odds}
        errors_by_worker = gather_over_workers(self._strategy, errors[0])
        return sum_over_workers(self._strategy, total) | {
            "errors": error_analysis.top_errors(errors_by_worker),
            "slicing": split_counts.slicing,
        }

    def _score(
        self, batch: Batch, calibration: Calibration | None, labels: Sequence[int]
    ) -> ScoredBatch:
        """The way from tokens to scores, in the graph; what a step does not use is not computed."""
        experiment = self._experiment
        if isinstance(experiment.model, BagWithLabelTree):
            columns, logits = self._scored_columns(batch, labels)
            label_ids = columns.label_ids
            own_columns = columns.places(batch["labels"].values)
        else:
            columns, label_ids = None, None
            logits = self._outputs(batch["tokens"])
            own_columns = batch["labels"].values
        positives = Pairs(row_ids(batch["labels"]), own_columns, *shape_of(logits))
        prior_corrected = experiment.log_odds(logits, label_ids)
        log_odds = prior_corrected
        if calibration:
            log_odds = calibration.log_odds(prior_corrected, label_ids)
        scores, is_scored = tf.sigmoid(log_odds), None
        if columns is not None:
            is_scored = logits > NOT_SCORED
            scores = tf.where(is_scored, scores, 0.0)
        return ScoredBatch(
            batch=batch,
            columns=columns,
            positives=positives,
            logits=logits,
            prior_corrected=prior_corrected,
            log_odds=log_odds,
            scores=scores,
            is_scored=is_scored,
        )

    def _scored_columns(self, batch: Batch, labels: Sequence[int]) -> tuple[Columns, tf.Tensor]:
        """The columns of a batch and their logits, float32 [batch, columns].

        Those labels have columns that the model scores for a document, that a document has, and
        the given ones.
        """
        label_ids, logits = self._outputs(batch["tokens"])
        used = [
            tf.reshape(label_ids, [-1]),
            batch["labels"].values,
            tf.constant(labels, tf.int64, [len(labels)]),
        ]
        columns = Columns.of(tf.concat(used, axis=0), num_labels=self._num_labels)
        places = columns.places(label_ids)
        documents = tf.range(tf.shape(logits, tf.int64)[0])[:, tf.newaxis]
        cells = tf.stack([tf.broadcast_to(documents, tf.shape(places)), places], axis=2)
        shape = [tf.shape(logits)[0], tf.size(columns.label_ids)]
        # The maximum: an empty slot is one of label 0.
        return columns, tf.tensor_scatter_nd_max(tf.fill(shape, NOT_SCORED), cells, logits)

    def _step(
        self,
        count: Callable[[ScoredBatch], Counts],
        calibration: Calibration | None = None,
        *,
        labels: Sequence[int] = (),
    ) -> Callable[[Iterator[Any]], Counts]:
        """A graph function that counts the next batch of an iterator on every replica.

        The ids `labels` have a column in every batch.
        """
        # AutoGraph takes longer to read all that is counted, and the model, than thousands of
        # documents take.
        count = tf.autograph.experimental.do_not_convert(count)
        is_read = self._experiment.has_own_code

        def of_replica(batch: Batch) -> Counts:
            return count(self._score(batch, calibration, labels))

        if not is_read:
            of_replica = tf.autograph.experimental.do_not_convert(of_replica)
        return tf.function(
            lambda iterator: self._strategy.run(of_replica, args=(next(iterator),)),
            autograph=is_read,
        )

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
                lambda value, i=replica: _to_numpy(
                    self._strategy.experimental_local_results(value)[i]
                ),
                counts,
            )


def _to_numpy(tensor: tf.Tensor) -> np.ndarray:
    """A tensor as an array that must not be written to: without a copy, where it is on the host."""
    if not tensor.shape.rank or "CPU" not in tensor.backing_device:
        return tensor.numpy()
    return np.asarray(memoryview(tensor))


def _zeros(part: np.ndarray) -> np.ndarray:
    """Zeros to add up what batches count; int32 may be too small for their sums."""
    return np.zeros(part.shape, np.int64 if part.dtype == np.int32 else part.dtype)


def _add(total: Counts, part: Counts) -> Counts:
    """The sums of both, with the arrays of `total` changed in place: they may be large."""

    def add(left, right):
        if not np.ndim(left):
            return left + right
        left += right
        return left

    return tf.nest.map_structure(add, total, part)
