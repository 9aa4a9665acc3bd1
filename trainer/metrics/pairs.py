"""Pairs of a document and a label: those that the documents of a batch have, or are given.

They are few among all cells of documents x labels, so that what is counted of pairs alone costs
next to nothing.
"""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

_AFTER_ALL_KEYS = 2**63 - 1


def _kept(method):
    """A method that keeps its results, so that a graph which asks again gets no more operations.

    To make and to optimize an operation takes longer than to count the pairs of many a batch.
    """

    @functools.wraps(method)
    def of_same_arguments(self, *arguments):
        key = (method.__name__, *map(id, arguments))
        if key not in self._results:
            # The arguments too: as long as they are there, nothing else has their ids.
            self._results[key] = arguments, method(self, *arguments)
        return self._results[key][1]

    return of_same_arguments


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Some cells of a matrix [documents, labels] of a batch, each at most once.

    Attributes:
      documents: int64 [n], the rows.
      columns: int64 [n], see `trainer.metrics.columns`.
      num_documents, num_columns: int64 [], the shape of the matrix.
    """

    documents: tf.Tensor
    columns: tf.Tensor
    num_documents: tf.Tensor
    num_columns: tf.Tensor
    _results: dict[tuple, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, matrix: "Pairs | tf.Tensor") -> "Pairs":
        """The cells of a matrix that are not 0, row by row; pairs are returned as they are."""
        if isinstance(matrix, Pairs):
            return matrix
        cells = tf.where(tf.cast(matrix, tf.bool))
        return cls(*tf.unstack(cells, axis=1), *shape_of(matrix))

    @classmethod
    def of_rows(cls, columns: tf.Tensor, *, num_columns: tf.Tensor) -> "Pairs":
        """The pairs of each document with its columns, integers [batch, n]."""
        num_documents, each = shape_of(columns)
        documents = tf.range(num_documents * each) // tf.maximum(each, 1)
        columns = tf.cast(tf.reshape(columns, [-1]), tf.int64)
        return cls(documents, columns, num_documents, num_columns)

    @property
    @_kept
    def cells(self) -> tf.Tensor:
        """int64 [n, 2]."""
        return tf.stack([self.documents, self.columns], axis=1)

    @property
    @_kept
    def keys(self) -> tf.Tensor:
        """int64 [n], a number for each cell, which rises row by row."""
        return self.documents * self.num_columns + self.columns

    def where(self, is_kept: tf.Tensor) -> "Pairs":
        """Those for which bool [n] is true."""
        kept = tf.squeeze(tf.where(is_kept), axis=1)
        documents, columns = tf.gather(self.documents, kept), tf.gather(self.columns, kept)
        return Pairs(documents, columns, self.num_documents, self.num_columns)

    @_kept
    def without_padding(self, mask: tf.Tensor) -> "Pairs":
        """Those of the documents that are 1 in a mask [batch]."""
        return self.where(tf.gather(tf.cast(mask, tf.bool), self.documents))

    @_kept
    def are_in(self, others: "Pairs") -> tf.Tensor:
        """bool [n]: which of them are among others, whose keys rise as those of a matrix do."""
        keys = tf.concat([others.keys, tf.constant([_AFTER_ALL_KEYS], tf.int64)], axis=0)
        places = tf.raw_ops.LowerBound(
            sorted_inputs=tf.expand_dims(keys, 0), values=tf.expand_dims(self.keys, 0)
        )
        return tf.gather(keys, tf.squeeze(places, 0)) == self.keys

    @_kept
    def which_are_in(self, others: "Pairs") -> "Pairs":
        """Those that are among others, see `are_in`."""
        return self.where(self.are_in(others))

    @_kept
    def which_are_not_in(self, others: "Pairs") -> "Pairs":
        """Those that are not among others, see `are_in`."""
        return self.where(~self.are_in(others))

    @_kept
    def values_of(self, matrix: tf.Tensor) -> tf.Tensor:
        """What a matrix has in their cells, [n]."""
        return tf.gather_nd(matrix, self.cells)

    @_kept
    def count_by_document(self) -> tf.Tensor:
        """How many there are of each document, float32 [batch]."""
        ones = tf.ones_like(self.documents, tf.float32)
        return tf.math.unsorted_segment_sum(ones, self.documents, self.num_documents)

    @_kept
    def count_by_column(self) -> tf.Tensor:
        """How many there are in each column, int64 [columns]."""
        counts = tf.raw_ops.DenseBincount(
            input=tf.cast(self.columns, tf.int32),
            size=tf.cast(self.num_columns, tf.int32),
            weights=tf.zeros([0], tf.int32),
        )
        return tf.cast(counts, tf.int64)


def shape_of(matrix: tf.Tensor) -> list[tf.Tensor]:
    """The rows and the columns of a matrix, int64 [] each."""
    return tf.unstack(tf.shape(matrix, tf.int64), num=2)
