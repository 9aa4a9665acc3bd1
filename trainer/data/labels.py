"""Labels as the trainer needs them: ids to multi-hot, and head, mid and tail groups."""

import numpy as np
import tensorflow as tf

from beam_jobs.contract.ragged import row_ids


def multi_hot(label_ids: tf.RaggedTensor, num_labels: int | tf.Tensor) -> tf.Tensor:
    """Label ids as a multi-hot matrix; an id that occurs twice in a row still gives 1.

    Args:
      label_ids: int64 [batch, None], in any order.
      num_labels: the number of labels.

    Returns:
      float32 [batch, num_labels].

    Raises:
      tf.errors.InvalidArgumentError: an id is outside [0, num_labels) (on a CPU; a GPU ignores it).
    """
    cells = tf.stack([row_ids(label_ids), label_ids.values], axis=1)
    return tf.tensor_scatter_nd_update(
        tf.zeros([label_ids.nrows(), num_labels]), cells, tf.ones_like(label_ids.values, tf.float32)
    )


def label_groups(positives: np.ndarray) -> dict[str, np.ndarray]:
    """Label ids in `head`, `mid` and `tail`; the most frequent come first, ties by id.

    Head labels are the most frequent ones, as many as hold half of all positives; mid labels are
    the next ones, up to nine tenths of all positives; tail labels are the others.

    Args:
      positives: int [labels], documents with each label.
    """
    order = np.argsort(-np.asarray(positives), kind="stable")
    before = np.cumsum(np.asarray(positives)[order]) - np.asarray(positives)[order]
    total = max(1, int(np.sum(positives)))
    ends = np.searchsorted(before / total, [0.5, 0.9])
    return dict(zip(("head", "mid", "tail"), np.split(order, ends), strict=True))
