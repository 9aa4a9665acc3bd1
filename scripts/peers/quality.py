"""Scores of a system -> its metrics, by the code that evaluates our own models.

Documents are read in batches; nothing is documents x labels in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from beam_jobs.contract.sections.evaluate import EvaluateConfig
from peers.exchange import batch_documents, read_scores
from trainer.data.dataset import Dataset
from trainer.metrics import bootstrap, classification, ranking
from trainer.metrics.thresholds import tune

AT_K = (1, 3, 5)
_REPLICATES = 200  # of the bootstrap
_RULES = ("one_threshold", "label_thresholds")
_RANKED = {
    "precision_at": "precision_at",
    "ndcg_at": "ndcg_at",
    "psp_at": "propensity_scored_precision_at",
}


class Meter:
    """Measures systems on a split of a dataset.

    Args:
      dataset: the dataset.
      split: the split that is measured.
      labels: float32 [documents, labels] of validation and of `split`.
      config: propensities, and the positives that a label needs for a threshold of its own.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        split: str,
        labels: dict[str, scipy.sparse.csr_matrix],
        config: EvaluateConfig,
    ):
        self._split, self._labels, self._config = split, labels, config
        self._num_labels = dataset.num_labels
        self._is_trained = dataset.is_trained
        self._num_bins = classification.histogram_bins(dataset.num_labels)
        self._propensities = ranking.propensities(
            dataset.label_counts("train"),
            dataset.num_examples("train"),
            a=config.propensity_a,
            b=config.propensity_b,
        )
        matrix = tf.TensorSpec([None, dataset.num_labels], tf.float32)
        self._histogram = tf.function(self._histogram, input_signature=[matrix, matrix])
        bins = (tf.TensorSpec([dataset.num_labels], tf.int32),) * len(_RULES)
        keys = tf.TensorSpec([None], tf.int64)
        self._counts = tf.function(self._counts, input_signature=[matrix, matrix, keys, bins])

    def measure(self, directory: Path) -> dict[str, Any]:
        """The metrics of the scores that `peers.exchange.ScoreWriter` wrote to a directory.

        Returns:
          thresholds; one_threshold and label_thresholds, each with micro_f1, macro_f1 (over labels
          that occur) and the 95% intervals of both (of macro_f1 where the counts fit in memory);
          precision_at, ndcg_at and psp_at, by k.
        """
        histogram = np.zeros((2, self._num_labels, self._num_bins + 1), np.int64)
        for labels, scores, _ in self._batches(directory, "validation"):
            histogram += self._histogram(labels, scores).numpy()
        thresholds = tune(
            histogram, min_positives=self._config.min_positives, is_trained=self._is_trained
        )
        bins = thresholds.common_bins, thresholds.per_label_bins
        bins = tuple(tf.constant(of, tf.int32) for of in bins)
        total: dict[str, dict[str, np.ndarray]] = {}
        for batch in self._batches(directory, self._split):
            for name, tensors in self._counts(*batch, bins).items():
                counts = {key: value.numpy() for key, value in tensors.items()}
                total[name] = classification.add(total[name], counts) if name in total else counts
        ranked = ranking.summarize_ranking(
            total["ranking"], documents=self._labels[self._split].shape[0], at_k=AT_K
        )
        return (
            {"thresholds": thresholds.to_json()}
            | {name: self._summarize(total, name) for name in _RULES}
            | {
                name: {str(k): float(value) for k, value in ranked[key].items()}
                for name, key in _RANKED.items()
            }
        )

    def _histogram(self, labels, scores):
        mask = tf.ones(tf.shape(scores)[0])
        return classification.score_histogram(labels, scores, mask, num_bins=self._num_bins)

    def _counts(self, labels, scores, keys, bins):
        mask = tf.ones(tf.shape(scores)[0])
        weights = bootstrap.resample(keys, replicates=_REPLICATES, seed=0)
        with_labels = bootstrap.macro_counts_fit_memory(
            self._num_labels, replicates=2 * _REPLICATES
        )
        counts = {
            "ranking": ranking.ranking_counts(
                labels, scores, mask, at_k=AT_K, label_propensities=self._propensities
            )
        }
        for name, threshold_bins in zip(_RULES, bins, strict=True):
            decisions = classification.decide(scores, threshold_bins)
            counts[name] = classification.decision_counts(labels, decisions, mask)
            counts[f"{name} resampled"] = bootstrap.resampled_counts(
                labels, decisions, weights, mask, with_labels=with_labels
            )
        return counts

    def _summarize(self, total, name):
        summary = classification.summarize(total[name])
        intervals = bootstrap.intervals(total[f"{name} resampled"], num_labels=self._num_labels)
        return {
            "micro_f1": summary["micro_f1"],
            "macro_f1": summary["macro_f1_present"],
            "intervals": {key.removesuffix("_present"): of for key, of in intervals.items()},
        }

    def _batches(
        self, directory: Path, split: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Labels and scores, float32 [batch, labels], and the documents' keys, int64 [batch]."""
        labels = self._labels[split]
        num_documents, num_labels = labels.shape
        ids, values = read_scores(directory, split, num_labels=num_labels)
        if len(ids) != num_documents:
            raise ValueError(f"received scores of {len(ids)} documents, expected {num_documents}")
        step = batch_documents(num_labels)
        for start in range(0, num_documents, step):
            part = slice(start, min(start + step, num_documents))
            scores = np.zeros((part.stop - start, num_labels), np.float32)
            np.put_along_axis(scores, ids[part].astype(np.int64), values[part], axis=1)
            yield labels[part].toarray(), scores, np.arange(start, part.stop)
