"""A linear classifier by scikit-learn on the same documents, splits and tokens, for models to be compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.training_config import EvaluateConfig
from trainer.data.dataset import Dataset
from trainer.data.records import read_records
from trainer.metrics import classification, ranking
from trainer.metrics.thresholds import tune

MOST_DOCUMENTS = 200_000  # train documents; they are held in memory
MOST_DOCUMENTS_LABELS = 100_000_000  # train documents x labels: about half an hour on one core
MOST_WEIGHTS = 250_000_000  # tokens x labels: 1 GB
_BATCH_DOCUMENTS = 1024


def check_fits(dataset: Dataset) -> None:
    """Raises UserError where a dataset is too large for `linear_baseline`."""
    documents, labels, tokens = (
        dataset.num_examples("train"),
        dataset.num_labels,
        len(dataset.vocabulary),
    )
    for name, received, most in (
        ("train documents", documents, MOST_DOCUMENTS),
        ("train documents x labels", documents * labels, MOST_DOCUMENTS_LABELS),
        ("tokens x labels", tokens * labels, MOST_WEIGHTS),
    ):
        if received > most:
            raise UserError(
                f"--baseline linear: received {received:,} {name}, expected at most {most:,}; leave the baseline out, or use fewer"
            )


def linear_baseline(
    dataset: Dataset, splits: Sequence[str], *, config: EvaluateConfig
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """One-vs-rest LinearSVC (C = 1) over TF-IDF of single tokens (sublinear, L2-normalized), with thresholds tuned on the validation split.

    Its decision values are put in (0, 1) by a sigmoid, which changes no order.

    Args:
      dataset: the dataset; its train split is fitted.
      splits: the splits to evaluate.
      config: ranks, propensities and least positives for a threshold.

    Returns:
      By split and name of the system, the counts of `trainer.metrics.classification.decision_counts` and `trainer.metrics.ranking.ranking_counts`.
    """
    labels = dataset.num_labels
    features = TfidfVectorizer(analyzer=str.split, vocabulary=dataset.vocabulary, sublinear_tf=True)
    texts, truth = _read(dataset, "train")
    weights, bias = _fit(features.fit_transform(texts), truth)

    def batches(split):
        texts, truth = _read(dataset, split)
        for start in range(0, len(texts), _BATCH_DOCUMENTS):
            part = slice(start, start + _BATCH_DOCUMENTS)
            margins = features.transform(texts[part]) @ weights.T + bias
            yield (
                tf.constant(truth[part].toarray()),
                tf.sigmoid(tf.constant(margins, tf.float32)),
                tf.ones([margins.shape[0]]),
            )

    bins = classification.histogram_bins(labels)
    histogram = np.zeros((2, labels, bins + 1), np.int64)
    for batch in batches("validation"):
        histogram += classification.score_histogram(*batch, num_bins=bins).numpy()
    thresholds = tune(histogram, min_positives=config.min_positives)
    propensities = ranking.propensities(
        dataset.label_counts("train"),
        dataset.num_examples("train"),
        a=config.propensity_a,
        b=config.propensity_b,
    )
    found: dict[str, dict[str, Any]] = {split: {} for split in splits}
    for split in splits:
        for positive, scores, mask in batches(split):
            ranked = ranking.ranking_counts(
                positive, scores, mask, ranks=config.at_k, label_propensities=propensities
            )
            for name, at in (
                ("one threshold", thresholds.global_bin),
                ("a threshold per label", thresholds.per_label_bins),
            ):
                counts = (
                    classification.decision_counts(
                        positive, classification.decide(scores, at), mask
                    )
                    | ranked
                )
                _add(
                    found[split],
                    f"baseline: linear, {name}",
                    {key: value.numpy() for key, value in counts.items()},
                )
    return found


def _add(systems: dict[str, Any], name: str, counts: Mapping[str, np.ndarray]) -> None:
    systems[name] = classification.add(systems[name], counts) if name in systems else dict(counts)


def _read(dataset: Dataset, split: str) -> tuple[list[str], scipy.sparse.csr_matrix]:
    """Analyzed texts, several fields of a document joined, and float32 [documents, labels]."""
    names = dataset.record_spec.text_names
    texts: list[str] = []
    label_ids, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for parsed in read_records(dataset, split, [*names, "labels"]):
        texts += [
            b" ".join(row).decode() for row in zip(*(parsed[name] for name in names), strict=True)
        ]
        label_ids.append(parsed["labels"].values.numpy())
        lengths.append(parsed["labels"].row_lengths().numpy())
    columns, splits = (
        np.concatenate(label_ids),
        np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
    )
    return texts, scipy.sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, splits), shape=(len(texts), dataset.num_labels)
    )


def _fit(
    features: scipy.sparse.csr_matrix, truth: scipy.sparse.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 [labels, tokens], and biases, float32 [labels]."""
    num_labels = truth.shape[1]
    weights, bias = (
        np.zeros((num_labels, features.shape[1]), np.float32),
        np.full(num_labels, -1, np.float32),
    )
    columns = truth.tocsc()
    with ProgressLine("fitting the linear baseline") as line:
        for label in range(num_labels):
            positive = columns[:, [label]].toarray()[:, 0] > 0
            if positive.any() and not positive.all():
                model = LinearSVC(random_state=0).fit(features, positive)
                weights[label], bias[label] = model.coef_[0], model.intercept_[0]
            elif positive.any():
                bias[label] = 1  # on every document
            line.update(label + 1, num_labels, f"{label + 1:,} of {num_labels:,} labels")
    return weights, bias
