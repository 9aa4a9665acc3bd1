"""The sum of gradients over workers, with as few bytes and exchanges as there may be."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.distribution.collectives import Collectives
from trainer.distribution.strategy import num_workers, uses_gpus
from trainer.models.weighted_sums import SumGradient, gradient_of_vectors
from trainer.training.sparse_gradients import source_of, with_distinct_rows

_PADDING = -1


def exchanges(strategy: tf.distribute.Strategy) -> bool:
    """Whether gradients are summed by a GradientExchange: among workers of one CPU each.

    GPUs have NCCL, and replicas of one process exchange nothing by a network.
    """
    workers = num_workers(strategy)
    return 1 < workers == strategy.num_replicas_in_sync and not uses_gpus(strategy)


class GradientExchange:
    """Sums gradients over workers of one replica each.

    - Dense gradients are summed in one exchange, whatever the number of variables.
    - The gradient of an embedding table that documents' weighted sums are made of is the product of
      two parts: the weights of their terms, and the gradients of the sums. Each worker sends these,
      not their product, and multiplies those of all workers (Xie et al. 2016, sufficient factor
      broadcasting). A document then costs one vector and its terms' weights, where its rows would
      be as many vectors as it has terms that no other document has.
    - Of other tf.IndexedSlices, each worker sends its distinct rows.

    What is sent of terms and rows is known before the gradients are, so it is sent meanwhile.
    The sums are the same on all workers, bit for bit, since all add in the order of the workers.

    Args:
      workers: how many there are.
      documents: of a worker in a step.
    """

    def __init__(self, workers: int, *, documents: int):
        self._workers, self._documents = workers, documents

    def sum(
        self,
        gradients: Sequence[Any],
        sums: Sequence[SumGradient],
        further: tf.Tensor,
        *,
        shapes: Sequence[tf.TensorShape],
    ) -> tuple[list[Any], tf.Tensor, tf.Tensor]:
        """The sums of gradients, and of further numbers, over the workers.

        Args:
          gradients: None, tensors or tf.IndexedSlices, of equal kinds and shapes on all workers.
          sums: what `recorded_gradients` has recorded of them.
          further: float32, of static shape.
          shapes: of the gradients' variables.

        Returns:
          (the gradients' sums, with distinct rows; the sum of `further`; float32 [], the bytes that
          a worker has sent).
        """
        collectives = Collectives(self._workers)
        sparse, dense = {}, {}
        for index, gradient in enumerate(gradients):
            if isinstance(gradient, tf.IndexedSlices):
                sparse[index] = self._parts_of(gradient, sums, tf.TensorShape(shapes[index]))
            elif gradient is not None:
                dense[index] = gradient
        totals: list[Any] = [None] * len(gradients)
        for index, total in self._sum_sparse(sparse, collectives).items():
            totals[index] = total
        *dense_totals, further = _sum_dense([*dense.values(), further], collectives)
        for index, total in zip(dense, dense_totals, strict=True):
            totals[index] = total
        return totals, further, collectives.sent_bytes

    def _parts_of(
        self, gradient: tf.IndexedSlices, sums: Sequence[SumGradient], shape: tf.TensorShape
    ) -> "_Parts":
        if self._documents >= shape[0]:  # a vector of each document is more than the table
            sums = ()
        values = source_of(gradient.values)
        for record in sums:
            if values is record.vectors:
                upstream = tf.ensure_shape(record.upstream, [self._documents, None])
                return _Factors(gradient, record.bags, upstream)
        return _Rows(with_distinct_rows(gradient), shape[1:])

    def _sum_sparse(self, sparse: dict[int, "_Parts"], collectives: Collectives) -> dict[int, Any]:
        if not sparse:
            return {}
        # What each worker sends must be of one size: that of the one that has most.
        known = {index: parts.known_early() for index, parts in sparse.items()}
        columns = [column for own in known.values() for column in own]
        sizes = collectives.gather(tf.stack([tf.size(column) for column in columns]))
        longest = tf.unstack(tf.reduce_max(sizes, axis=0))
        padded = [_pad(column, size) for column, size in zip(columns, longest, strict=True)]
        gathered = collectives.gather_padded(tf.concat(padded, 0), tf.add_n(longest))
        ends = tf.unstack(tf.cumsum(longest))
        of_all = (gathered[:, end - size : end] for end, size in zip(ends, longest, strict=True))
        return {
            index: parts.total([next(of_all) for _ in known[index]], collectives)
            for index, parts in sparse.items()
        }


class _Rows:
    """A gradient that is exchanged row by row."""

    def __init__(self, gradient: tf.IndexedSlices, row_shape: tf.TensorShape):
        self._gradient, self._row_shape = gradient, row_shape

    def known_early(self) -> list[tf.Tensor]:
        """Columns int32 [any size] that are known before the gradient is."""
        return [tf.cast(self._gradient.indices, tf.int32)]

    def total(self, columns: list[tf.Tensor], collectives: Collectives) -> tf.IndexedSlices:
        """The sum over workers, of the columns int32 [workers, size] of all of them."""
        [rows] = columns
        size = tf.shape(rows)[1]
        own = tf.ensure_shape(self._gradient.values, [None, *self._row_shape])
        values = collectives.gather_padded(own, size)
        values = tf.reshape(values[:, :size], [-1, *self._row_shape])
        # What is padding adds 0 to a row that is there anyway.
        rows = tf.reshape(tf.where(rows == _PADDING, tf.reduce_max(rows), rows), [-1])
        rows, positions = tf.unique(rows)
        values = tf.math.unsorted_segment_sum(values, positions, tf.size(rows))
        return tf.IndexedSlices(
            tf.ensure_shape(values, [None, *self._row_shape]),
            rows,
            self._gradient.dense_shape,
        )


class _Factors:
    """A gradient that is exchanged as the factors that it is the product of."""

    def __init__(self, gradient: tf.IndexedSlices, bags: tf.SparseTensor, upstream: tf.Tensor):
        self._gradient, self._bags, self._upstream = gradient, bags, upstream

    def known_early(self) -> list[tf.Tensor]:
        """The distinct rows; of each cell, its document, its row's position and its weight."""
        documents, positions = tf.unstack(tf.cast(self._bags.indices, tf.int32), axis=1)
        weights = tf.bitcast(self._bags.values, tf.int32)
        return [tf.cast(self._gradient.indices, tf.int32), documents, positions, weights]

    def total(self, columns: list[tf.Tensor], collectives: Collectives) -> tf.IndexedSlices:
        """The sum over workers, of the columns int32 [workers, size] of all of them."""
        rows, documents, positions, weights = columns
        share = self._upstream.shape[0]
        upstream = collectives.gather(self._upstream)
        upstream = tf.reshape(upstream, [-1, upstream.shape[2]])
        num_own_rows = tf.shape(rows)[1]
        rows = tf.reshape(tf.where(rows == _PADDING, tf.reduce_max(rows), rows), [-1])
        rows, row_positions = tf.unique(rows)
        # Padding is a cell of weight 0 at the end of its worker's last document, so that cells stay
        # in the order of documents.
        is_padding = documents == _PADDING
        workers = tf.range(collectives.workers)[:, None]
        documents = tf.where(is_padding, share - 1, documents) + workers * share
        positions = tf.where(is_padding, 0, positions) + workers * num_own_rows
        positions = tf.gather(row_positions, tf.reshape(positions, [-1]))
        weights = tf.where(is_padding, 0.0, tf.bitcast(weights, tf.float32))
        cells = tf.stack([tf.reshape(documents, [-1]), positions], axis=1)
        shape = tf.stack([tf.constant(collectives.workers * share), tf.size(rows)])
        bags = tf.SparseTensor(
            tf.cast(cells, tf.int64), tf.reshape(weights, [-1]), tf.cast(shape, tf.int64)
        )
        values = gradient_of_vectors(bags, upstream)
        return tf.IndexedSlices(values, rows, self._gradient.dense_shape)


_Parts = _Rows | _Factors


def _sum_dense(values: list[tf.Tensor], collectives: Collectives) -> list[tf.Tensor]:
    """The sums of tensors over the workers, with one exchange for each dtype."""
    totals: dict[int, tf.Tensor] = {}
    for dtype in {value.dtype: None for value in values}:
        own = {i: value for i, value in enumerate(values) if value.dtype == dtype}
        flat = [tf.reshape(value, [-1]) for value in own.values()]
        total = collectives.sum(tf.concat(flat, 0))
        parts = tf.split(total, [tf.size(part) for part in flat], num=len(flat))
        for (index, value), part in zip(own.items(), parts, strict=True):
            totals[index] = tf.reshape(part, tf.shape(value))
    return [tf.ensure_shape(totals[i], values[i].shape) for i in range(len(values))]


def _pad(column: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.pad(column, [[0, size - tf.size(column)]], constant_values=_PADDING)
