"""What an exported graph is worth on the validation split."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.labels import multi_hot
from trainer.data.records import read_records
from trainer.metrics import classification
from trainer.serving.serving_module import ServingModule


def validation_f1(dataset: Dataset, module: ServingModule) -> dict[str, float]:
    """micro_f1 and macro_f1 of the labels that `decide` assigns."""

    def count(labels: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return classification.decision_counts(labels, module.assigned(scores), mask)

    summary = classification.summarize(count_over_validation(dataset, module.score_analyzed, count))
    return {key: summary[key] for key in ("micro_f1", "macro_f1")}


def count_over_validation(
    dataset: Dataset, score: Callable[..., tf.Tensor], count: Callable[..., Any]
) -> Any:
    """Sums of `count(labels, scores, mask)` over the validation split.

    Args:
      dataset: its validation split has documents.
      score: analyzed strings [N] of each text field -> probabilities, float32 [N, labels].
      count: multi-hot labels and scores, float32 [N, labels], and a mask of ones [N] -> a structure
        of tensors.

    Returns:
      The structure, of NumPy arrays.
    """
    text_names = dataset.record_spec.text_names

    @functools.partial(tf.function, reduce_retracing=True, autograph=False)
    def step(label_ids: tf.RaggedTensor, *texts: tf.Tensor) -> Any:
        labels = multi_hot(label_ids, dataset.num_labels)
        return count(labels, score(*texts), tf.ones(tf.shape(texts[0])))

    total = None
    for records in read_records(dataset, "validation", [*text_names, "labels"]):
        texts = [tf.constant(records[name]) for name in text_names]
        counts = tf.nest.map_structure(lambda value: value.numpy(), step(records["labels"], *texts))
        total = counts if total is None else tf.nest.map_structure(np.add, total, counts)
    return total
