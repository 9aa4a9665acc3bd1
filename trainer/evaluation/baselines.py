"""A plain linear model on the same documents, splits and tokens, to compare with."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.linear_model import LinearConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import token_ids
from trainer.data.labels import multi_hot
from trainer.data.records import read_records
from trainer.experiment import Experiment, vocabulary_statistics
from trainer.linear.fit import Team, fit_linear
from trainer.metrics import classification, ranking
from trainer.metrics.thresholds import tune
from trainer.runs.evaluation_record import LINEAR_LABEL_THRESHOLDS, LINEAR_ONE_THRESHOLD

MAX_DOCUMENTS = 200_000  # train documents; they are held in memory
MAX_DOCUMENTS_LABELS = 100_000_000  # train documents x labels: about half an hour on one core
# One-vs-rest over TF-IDF of single tokens, as LinearSVC is by default.
_CONFIG = LinearConfig(name="linear", features="words", C=1.0, pos_weight="none", min_weight=0.0)


def check_fits(dataset: Dataset) -> None:
    """Raises UserError if a dataset is too large for `linear_baseline`."""
    documents, labels = dataset.num_examples("train"), dataset.num_labels
    for name, received, maximum in (
        ("train documents", documents, MAX_DOCUMENTS),
        ("train documents x labels", documents * labels, MAX_DOCUMENTS_LABELS),
    ):
        if received > maximum:
            raise UserError(
                f"--baseline linear: received {received:,} {name}, expected at most {maximum:,}; "
                "leave the baseline out, or use fewer"
            )


def linear_baseline(
    experiment: Experiment, splits: Sequence[str]
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """The model `linear` with features `words` and C 1, which are those of LinearSVC over TF-IDF.

    Its thresholds are tuned on the validation split.

    Args:
      experiment: its dataset's train split is fitted.
      splits: the splits to evaluate.

    Returns:
      By split and key of the method, the counts of
      `trainer.metrics.classification.decision_counts` and `trainer.metrics.ranking.ranking_counts`.
    """
    dataset, config = experiment.dataset, experiment.config.evaluate
    classifier = _Classifier(experiment)
    thresholds = tune(
        classifier.histogram("validation"),
        min_positives=config.min_positives,
        is_trained=dataset.label_counts("train") > 0,
        objective=experiment.config.train.objective,
    )
    propensities = ranking.propensities(
        dataset.label_counts("train"),
        dataset.num_examples("train"),
        a=config.propensity_a,
        b=config.propensity_b,
    )
    totals: dict[str, dict[str, dict[str, np.ndarray]]] = {split: {} for split in splits}
    for split in splits:
        for labels, scores, mask in classifier.score(split):
            ranked = ranking.ranking_counts(
                labels, scores, mask, at_k=config.at_k, label_propensities=propensities
            )
            for key, threshold_bins in (
                (LINEAR_ONE_THRESHOLD, thresholds.common_bins),
                (LINEAR_LABEL_THRESHOLDS, thresholds.per_label_bins),
            ):
                decided = classification.decide(scores, threshold_bins)
                counts = classification.decision_counts(labels, decided, mask) | ranked
                _add(totals[split], key, {name: value.numpy() for name, value in counts.items()})
    return totals


def _add(totals: dict[str, dict], key: str, counts: Mapping[str, np.ndarray]) -> None:
    totals[key] = classification.add(totals[key], counts) if key in totals else dict(counts)


class _Classifier:
    """`linear_baseline`, fitted on the train split."""

    def __init__(self, experiment: Experiment):
        self._dataset, self._vectorizer = experiment.dataset, experiment.vectorizer
        vocabulary = vocabulary_statistics(self._dataset)
        with tempfile.TemporaryDirectory() as directory:
            fitted = fit_linear(
                _CONFIG,
                self._dataset,
                vocabulary,
                self._vectorizer,
                directory=Path(directory),
                team=Team(cores=len(os.sched_getaffinity(0))),
                exact=True,
            )
        self._score = tf.function(fitted.model(vocabulary), reduce_retracing=True, autograph=False)

    def score(self, split: str) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Yields (labels, scores, mask) of batches of a split, as `trainer.metrics` takes them."""
        names = self._dataset.record_spec.text_names
        for records in read_records(self._dataset, split, [*names, "labels"]):
            texts = [tf.constant(records[name]) for name in names]
            scores = tf.sigmoid(self._score(token_ids(self._vectorizer, texts)))
            labels = multi_hot(records["labels"], self._dataset.num_labels)
            yield labels, scores, tf.ones([tf.shape(scores)[0]])

    def histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins + 1], see `trainer.metrics.classification.score_histogram`."""
        num_labels = self._dataset.num_labels
        bins = classification.histogram_bins(num_labels)
        histogram = np.zeros((2, num_labels, bins + 1), np.int64)
        for batch in self.score(split):
            histogram += classification.score_histogram(*batch, num_bins=bins).numpy()
        return histogram
