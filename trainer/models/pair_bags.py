"""Bags of words and bags of pairs of words, for embedding tables of their own."""

from typing import NamedTuple

import keras
import tensorflow as tf

from beam_jobs.contract.ragged import row_ids
from trainer.models.inputs import VocabularyStatistics
from trainer.models.term_bags import TINY, are_pairs, hash_pairs, term_bags


class Bags(NamedTuple):
    """The terms of one table in several documents, or in several tokens.

    Attributes:
      rows: int64 [n], the distinct rows of the table.
      weights: float32 [documents or tokens, n], sparse; a cell may occur several times.
    """

    rows: tf.Tensor
    weights: tf.SparseTensor


class WordAndPairBags(keras.layers.Layer):
    """Token ids -> each document's tokens and n-grams, and its hashed pairs of neighbouring tokens.

    Words and n-grams are those of `TermBags`. A pair weighs the mean of its two tokens' IDF each
    time that it occurs: few pairs of a document occur twice, and to count them would take more time
    than all else that pairs need before their embeddings are looked up. The weights of both
    together have L2 norm 1.

    Args:
      vocabulary: the train split's.
      token_weights: `tfidf` or `uniform`.
      num_pair_rows: rows that pairs share.
    """

    def __init__(self, vocabulary: VocabularyStatistics, *, token_weights: str, num_pair_rows: int):
        super().__init__(name="words_and_pairs", dtype="float32")
        self._words = term_bags(vocabulary, token_weights=token_weights, bigram_buckets=0)
        self._num_pair_rows = num_pair_rows
        self.built = True

    @property
    def num_rows(self) -> int:
        """Rows that the table of tokens and n-grams needs."""
        return self._words.num_rows

    def call(self, tokens: tf.RaggedTensor) -> tuple[Bags, Bags]:
        """The words and the pairs of each document, of token ids int64 [batch, None]."""
        documents, rows, weights = self._words.unscaled_terms(tokens)
        pair_documents, pair_rows, pair_weights = self._pairs(tokens)
        scales = self._scales(tokens, (documents, weights), (pair_documents, pair_weights))
        return (
            _bags(documents, rows, weights * tf.gather(scales, documents), tokens.nrows()),
            _bags(
                pair_documents,
                pair_rows,
                pair_weights * tf.gather(scales, pair_documents),
                tokens.nrows(),
            ),
        )

    def shares(self, tokens: tf.RaggedTensor) -> tuple[Bags, Bags]:
        """The share that each token of one document has in the weights of `call`.

        A word's weight is divided among its occurrences, a pair's among its two tokens.
        """
        documents, _, weights = self._words.unscaled_terms(tokens)
        pair_documents, pair_rows, pair_weights = self._pairs(tokens)
        scale = self._scales(tokens, (documents, weights), (pair_documents, pair_weights))[0]
        rows, shares = self._words.shares(tokens)  # of words alone they have norm 1
        shares = shares.with_values(shares.values * scale * tf.norm(weights))
        last = tf.range(1, tf.size(pair_rows, tf.int64) + 1)
        halves = tf.tile(pair_weights * scale / 2, [2])
        num_tokens = tf.size(tokens.flat_values, tf.int64)
        pairs = _bags(tf.concat([last - 1, last], 0), tf.tile(pair_rows, [2]), halves, num_tokens)
        return Bags(rows, shares), pairs

    def _pairs(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(documents, rows, weights), all [tokens - 1]: the pairs that begin at each token.

        Where none begins, row and weight are 0.
        """
        documents, ids = row_ids(tokens), tokens.flat_values
        idf = self._words.idf_of(ids)
        begins = are_pairs(ids, documents)
        rows = tf.where(begins, hash_pairs(ids[:-1], ids[1:], self._num_pair_rows), 0)
        weights = tf.where(begins, (idf[:-1] + idf[1:]) / 2, 0.0)
        return documents[:-1], rows, weights

    def _scales(self, tokens: tf.RaggedTensor, *terms: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """float32 [documents], the inverse norms of (documents, weights)."""
        squares = [
            tf.math.unsorted_segment_sum(tf.square(weights), documents, tokens.nrows())
            for documents, weights in terms
        ]
        return 1 / tf.maximum(tf.sqrt(tf.add_n(squares)), TINY)


def _bags(owners: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor, num_owners: tf.Tensor) -> Bags:
    """Bags of terms [n], each of a document or token; no order of the owners is needed."""
    distinct, positions = tf.unique(rows, out_idx=tf.int64)
    cells = tf.stack([owners, positions], axis=1)
    shape = [num_owners, tf.size(distinct, tf.int64)]
    return Bags(distinct, tf.SparseTensor(cells, weights, shape))
