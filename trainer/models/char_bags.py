"""Bags of character n-grams: those of a document's tokens, each with its weight."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from beam_jobs.contract.ragged import row_ids
from trainer.models.layers import constant_weight
from trainer.models.sparse_rows import positions_of_rows

SIZES = range(2, 6)  # characters of an n-gram
_TINY = 1e-12  # keeps the division by the norm of a document without n-grams finite


class CharNgrams(NamedTuple):
    """The character n-grams of the tokens, as a sparse table with a row for each token id.

    Attributes:
      row_splits: int64 [token ids + 1].
      ids: int32 [cells], the n-gram of each cell.
      counts: float32 [cells], how often the token has it.
      idf: float32 [n-grams], their IDF.
    """

    row_splits: np.ndarray
    ids: np.ndarray
    counts: np.ndarray
    idf: np.ndarray


def char_ngrams_of(token: str) -> list[str]:
    """The n-grams of 2 to 5 characters of a token between two spaces.

    They are those of scikit-learn's `analyzer="char_wb"`: a token that is shorter than an n-gram
    counts once as a whole.
    """
    padded, ngrams = f" {token} ", []
    for size in SIZES:
        ngrams += [padded[i : i + size] for i in range(max(len(padded) - size, 0) + 1)]
        if len(padded) <= size:
            break
    return ngrams


def count_char_ngrams(tokens: Sequence[str]) -> tuple[scipy.sparse.csr_matrix, list[str]]:
    """How often each token has each n-gram.

    Returns:
      (float32 [tokens, n-grams], the n-grams in the order in which they first occur).
    """
    index: dict[str, int] = {}
    columns, lengths = [], [0]
    for token in tokens:
        ngrams = char_ngrams_of(token)
        columns += [index.setdefault(ngram, len(index)) for ngram in ngrams]
        lengths.append(len(ngrams))
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(columns), np.float32), np.array(columns, np.int32), np.cumsum(lengths)),
        shape=(len(tokens), len(index)),
    )
    counts.sum_duplicates()
    return counts, list(index)


class CharBags(keras.layers.Layer):
    """Token ids -> each document's character n-grams with their weights.

    An n-gram's weight is (1 + ln(count in the document)) * IDF, and each document's weights have L2
    norm 1, as in `trainer.models.term_bags.TermBags`. A token out of the vocabulary has none.
    """

    def __init__(self, ngrams: CharNgrams):
        super().__init__(name="characters", dtype="float32")
        self._num_ngrams = len(ngrams.idf)
        self._row_splits, self._ids, self._counts, self._idf = (
            constant_weight(self, name, values) for name, values in ngrams._asdict().items()
        )
        self.built = True

    @property
    def num_rows(self) -> int:
        """The number of n-grams."""
        return self._num_ngrams

    def weighted_terms(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct n-grams of each document, as `TermBags.weighted_terms`."""
        terms = self._occurrences(tokens)
        return terms.documents, terms.ids, terms.weights

    def shares(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The share that each token of one document has in the weights of its n-grams.

        An n-gram's weight is divided by how often each token has it.

        Returns:
          (int64, tokens; int64, n-grams; float32, shares), all [cells]. Summed over the tokens,
          the shares are the weights of `weighted_terms`.
        """
        terms = self._occurrences(tokens)
        weights = tf.gather(terms.weights / terms.counts, terms.term_of_cell)
        return (
            terms.token_of_cell,
            tf.gather(terms.ids, terms.term_of_cell),
            (weights * terms.cell_counts),
        )

    def _occurrences(self, tokens: tf.RaggedTensor) -> "_Terms":
        token_of_cell, positions = positions_of_rows(self._row_splits.value, tokens.flat_values)
        ids = tf.cast(tf.gather(self._ids.value, positions), tf.int64)
        cell_counts = tf.gather(self._counts.value, positions)
        documents = tf.gather(row_ids(tokens), token_of_cell)
        keys, term_of_cell = tf.unique(documents * self._num_ngrams + ids, out_idx=tf.int64)
        counts = tf.math.unsorted_segment_sum(cell_counts, term_of_cell, tf.size(keys))
        documents, ids = keys // self._num_ngrams, keys % self._num_ngrams
        weights = (1 + tf.math.log(counts)) * tf.gather(self._idf.value, ids)
        norms = tf.sqrt(tf.math.unsorted_segment_sum(tf.square(weights), documents, tokens.nrows()))
        weights = weights / tf.maximum(tf.gather(norms, documents), _TINY)
        return _Terms(documents, ids, weights, counts, token_of_cell, term_of_cell, cell_counts)


class _Terms(NamedTuple):
    """The distinct n-grams of each document, and the cells, one for each token and its n-gram."""

    documents: tf.Tensor  # int64 [terms]
    ids: tf.Tensor  # int64 [terms], the n-grams
    weights: tf.Tensor  # float32 [terms], normalised
    counts: tf.Tensor  # float32 [terms], how often the document has them
    token_of_cell: tf.Tensor  # int64 [cells]
    term_of_cell: tf.Tensor  # int64 [cells]
    cell_counts: tf.Tensor  # float32 [cells], how often the token has them
