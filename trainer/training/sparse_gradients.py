"""Gradients of some rows of a variable, tf.IndexedSlices: their sums, and rows that repeat."""

from typing import Any

import tensorflow as tf


def add_gradients(left: Any, right: Any) -> Any:
    """The sum of two gradients of a variable: None, tensors or tf.IndexedSlices.

    In a sum of tf.IndexedSlices, a row may occur several times.
    """
    if left is None or right is None:
        return right if left is None else left
    if isinstance(left, tf.IndexedSlices) and isinstance(right, tf.IndexedSlices):
        indices = tf.concat([left.indices, right.indices], 0)
        return tf.IndexedSlices(
            tf.concat([left.values, right.values], 0), indices, left.dense_shape
        )
    return tf.convert_to_tensor(left) + tf.convert_to_tensor(right)


def with_distinct_rows(gradient: Any) -> Any:
    """Sums the rows of a tf.IndexedSlices that occur several times; returns other gradients."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    if _are_distinct(gradient.indices):
        return gradient
    rows, positions = tf.unique(gradient.indices)
    are_distinct = tf.size(rows) == tf.size(gradient.indices)
    values = tf.cond(
        are_distinct,
        lambda: gradient.values,
        lambda: tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(rows)),
    )
    return tf.IndexedSlices(
        tf.ensure_shape(values, [None, *gradient.values.shape[1:]]), rows, gradient.dense_shape
    )


def _are_distinct(indices: tf.Tensor) -> bool:
    """Whether the graph shows that indices are distinct: they are the values of a tf.unique."""
    if not tf.is_symbolic_tensor(indices):
        return False
    indices = source_of(indices)
    return indices.op.type in ("Unique", "UniqueV2") and indices.value_index == 0


def source_of(values: tf.Tensor) -> tf.Tensor:
    """The tensor of a graph that values are, before they were passed on or given a shape."""
    while values.op.type in ("Identity", "Reshape"):
        values = values.op.inputs[0]
    return values
