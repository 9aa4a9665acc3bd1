"""A linear classifier by scikit-learn on the same documents, splits and tokens, to compare with."""

from collections.abc import Iterator, Mapping, Sequence

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
from trainer.runs.evaluation_record import LINEAR_LABEL_THRESHOLDS, LINEAR_ONE_THRESHOLD

MAX_DOCUMENTS = 200_000  # train documents; they are held in memory
MAX_DOCUMENTS_LABELS = 100_000_000  # train documents x labels: about half an hour on one core
MAX_WEIGHTS = 250_000_000  # tokens x labels: 1 GB
_BATCH_DOCUMENTS = 1024


def check_fits(dataset: Dataset) -> None:
    """Raises UserError if a dataset is too large for `linear_baseline`."""
    documents, labels = dataset.num_examples("train"), dataset.num_labels
    for name, received, maximum in (
        ("train documents", documents, MAX_DOCUMENTS),
        ("train documents x labels", documents * labels, MAX_DOCUMENTS_LABELS),
        ("tokens x labels", len(dataset.vocabulary) * labels, MAX_WEIGHTS),
    ):
        if received > maximum:
            raise UserError(
                f"--baseline linear: received {received:,} {name}, expected at most {maximum:,}; "
                "leave the baseline out, or use fewer"
            )


def linear_baseline(
    dataset: Dataset, splits: Sequence[str], *, config: EvaluateConfig
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """One-vs-rest LinearSVC (C = 1) over TF-IDF of single tokens (sublinear, L2-normalized).

    Its thresholds are tuned on the validation split. A sigmoid maps its decision values to (0, 1),
    which keeps their order.

    Args:
      dataset: the dataset; its train split is fitted.
      splits: the splits to evaluate.
      config: the k of metrics at k, propensities, and positives that a threshold needs.

    Returns:
      By split and key of the method, the counts of
      `trainer.metrics.classification.decision_counts` and `trainer.metrics.ranking.ranking_counts`.
    """
    classifier = _LinearClassifier(dataset)
    thresholds = tune(
        classifier.histogram("validation"),
        min_positives=config.min_positives,
        is_trained=dataset.is_trained,
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


class _LinearClassifier:
    """`linear_baseline`, fitted on the train split."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        self._features = TfidfVectorizer(
            analyzer=str.split, vocabulary=dataset.vocabulary, sublinear_tf=True
        )
        texts, labels = _read(dataset, "train")
        self._weights, self._bias = _fit(self._features.fit_transform(texts), labels)

    def score(self, split: str) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Yields (labels, scores, mask) of batches of a split, as `trainer.metrics` takes them."""
        texts, labels = _read(self._dataset, split)
        for start in range(0, len(texts), _BATCH_DOCUMENTS):
            batch = slice(start, start + _BATCH_DOCUMENTS)
            margins = self._features.transform(texts[batch]) @ self._weights.T + self._bias
            yield (
                tf.constant(labels[batch].toarray()),
                tf.sigmoid(tf.constant(margins, tf.float32)),
                tf.ones([margins.shape[0]]),
            )

    def histogram(self, split: str) -> np.ndarray:
        """int64 [2, labels, bins + 1], see `trainer.metrics.classification.score_histogram`."""
        num_labels = self._dataset.num_labels
        bins = classification.histogram_bins(num_labels)
        histogram = np.zeros((2, num_labels, bins + 1), np.int64)
        for batch in self.score(split):
            histogram += classification.score_histogram(*batch, num_bins=bins).numpy()
        return histogram


def _read(dataset: Dataset, split: str) -> tuple[list[str], scipy.sparse.csr_matrix]:
    """Analyzed texts, the fields of a document joined, and labels, float32 [documents, labels]."""
    names = dataset.record_spec.text_names
    texts: list[str] = []
    label_ids, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for parsed in read_records(dataset, split, [*names, "labels"]):
        for fields in zip(*(parsed[name] for name in names), strict=True):
            texts.append(b" ".join(fields).decode())
        label_ids.append(parsed["labels"].values.numpy())
        lengths.append(parsed["labels"].row_lengths().numpy())
    columns = np.concatenate(label_ids)
    row_ends = np.cumsum(np.concatenate(lengths))
    labels = scipy.sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.concatenate([[0], row_ends])),
        shape=(len(texts), dataset.num_labels),
    )
    return texts, labels


def _fit(
    features: scipy.sparse.csr_matrix, labels: scipy.sparse.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, float32 [labels, tokens], and biases, float32 [labels]."""
    num_labels = labels.shape[1]
    weights = np.zeros((num_labels, features.shape[1]), np.float32)
    bias = np.full(num_labels, -1, np.float32)  # of a label that no document has
    columns = labels.tocsc()
    with ProgressLine("fitting the linear baseline") as line:
        for label in range(num_labels):
            positive = columns[:, [label]].toarray()[:, 0] > 0
            if positive.any() and not positive.all():
                model = LinearSVC(random_state=0).fit(features, positive)
                weights[label], bias[label] = model.coef_[0], model.intercept_[0]
            elif positive.any():
                bias[label] = 1  # every document has it
            line.update(label + 1, num_labels, f"{label + 1:,} of {num_labels:,} labels")
    return weights, bias
