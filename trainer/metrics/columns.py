"""The labels of a batch that have columns, where not all of many labels have one.

A model that scores a few of its labels for each document (`bow_tree`) gives probability 0 to the
others. So a batch is counted in the columns of the labels that any of its documents has, or is
scored for; of all others is known that they are neither right nor assigned.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from trainer.metrics.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which labels the columns of a batch stand for.

    Attributes:
      label_ids: int64 [columns], rising.
      num_labels: the number of all labels.
    """

    label_ids: tf.Tensor
    num_labels: int

    @classmethod
    def of(cls, label_ids: tf.Tensor, *, num_labels: int) -> "Columns":
        """The columns of labels int64 [n], each of which may occur several times."""
        is_used = tf.scatter_nd(
            label_ids[:, tf.newaxis], tf.ones_like(label_ids, tf.int32), [num_labels]
        )
        return cls(tf.where(is_used > 0)[:, 0], num_labels)

    def places(self, label_ids: tf.Tensor) -> tf.Tensor:
        """The column of each label of an int64 tensor; all have one."""
        flat = tf.searchsorted(self.label_ids, tf.reshape(label_ids, [-1]), out_type=tf.int64)
        return tf.reshape(flat, tf.shape(label_ids))

    @property
    def num_absent(self) -> tf.Tensor:
        """int64 []: the labels without a column."""
        return self.num_labels - tf.size(self.label_ids, tf.int64)


def of_columns(values: np.ndarray | tf.Tensor, columns: Columns | None) -> tf.Tensor:
    """Of values [labels, ...] those of the columns; None: all labels have one."""
    return tf.convert_to_tensor(values) if columns is None else tf.gather(values, columns.label_ids)


def of_labels(sums: tf.Tensor, columns: Columns | None) -> tf.Tensor:
    """Sums [columns, ...] as those [labels, ...] of all labels: 0 for labels without a column."""
    if columns is None:
        return sums
    shape = tf.concat([[columns.num_labels], tf.shape(sums, tf.int64)[1:]], axis=0)
    return tf.scatter_nd(columns.label_ids[:, tf.newaxis], sums, shape)


def of_pairs(pairs: Pairs, columns: Columns | None) -> tf.Tensor:
    """The label ids int64 [n] of pairs."""
    return pairs.columns if columns is None else tf.gather(columns.label_ids, pairs.columns)
