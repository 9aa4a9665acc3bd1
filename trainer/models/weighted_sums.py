"""Weighted sums of embeddings by sparse matrix products."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf


class SumGradient(NamedTuple):
    """How the gradient of a sum's vectors has been computed, see `recorded_gradients`.

    Attributes:
      bags: float32 [batch, n], sparse, the weights.
      upstream: float32 [batch, dim], the gradient of the sums.
      vectors: float32 [n, dim], the gradient of the vectors: `gradient_of_vectors(bags, upstream)`.
    """

    bags: tf.SparseTensor
    upstream: tf.Tensor
    vectors: tf.Tensor


_records: list[list[SumGradient]] = []


@contextlib.contextmanager
def recorded_gradients() -> Iterator[list[SumGradient]]:
    """The gradients of `sum_bags` that are taken in the `with` block, in the list that it gives."""
    record: list[SumGradient] = []
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


def sum_bags(bags: tf.SparseTensor, vectors: tf.Tensor) -> tf.Tensor:
    """Each document's weighted sum of vectors.

    The product is taken in the CSR format: on a CPU it and its gradient take half the time of
    tf.sparse.sparse_dense_matmul (TensorFlow 2.21).

    Args:
      bags: float32 [batch, n], sparse, of `TermBags`: its cells are in the order of documents, and
        the weights get no gradient.
      vectors: float32 [n, dim].

    Returns:
      float32 [batch, dim].
    """

    @tf.custom_gradient
    def multiply(vectors):
        def gradient(upstream):
            result = gradient_of_vectors(bags, upstream)
            for record in _records:
                record.append(SumGradient(bags, upstream, result))
            return result

        return _product(bags, lambda: _matrix(bags), vectors, bags.dense_shape[0]), gradient

    return multiply(vectors)


def gradient_of_vectors(bags: tf.SparseTensor, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient float32 [n, dim] of `sum_bags`'s vectors, from that of its sums [batch, dim]."""

    def transposed_matrix() -> tf.Tensor:
        # Not by the multiplication's own `transpose_a`: with it, each thread sums into a matrix of
        # its own, which takes four times as long.
        return tf.raw_ops.SparseMatrixTranspose(input=_matrix(bags), type=tf.float32)

    return _product(bags, transposed_matrix, upstream, bags.dense_shape[1])


def _matrix(bags: tf.SparseTensor) -> tf.Tensor:
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=bags.indices, values=bags.values, dense_shape=bags.dense_shape
    )


def _product(
    bags: tf.SparseTensor, left: Callable[[], tf.Tensor], right: tf.Tensor, num_rows: tf.Tensor
) -> tf.Tensor:
    # The multiplication of a matrix without cells divides by zero, which ends the process.
    shape = tf.stack([num_rows, tf.shape(right, tf.int64)[1]])
    result = tf.cond(
        tf.size(bags.values) > 0,
        lambda: tf.raw_ops.SparseMatrixMatMul(a=left(), b=right),
        lambda: tf.zeros(shape),
    )
    return tf.ensure_shape(result, [None, right.shape[1]])
