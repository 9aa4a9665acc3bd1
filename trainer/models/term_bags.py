"""Bags of terms: tokens, exact n-grams and hashed bigrams of a document, weighted and summed."""

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.models.inputs import VocabularyStatistics
from trainer.models.layers import (
    _TINY,
    NUM_SPECIAL_IDS,
    smooth_idf,
)

# Multipliers of the bigram hash, odd and below 2**32: with ids below 2**31 int64 cannot overflow.
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = 2_654_435_761, 2_246_822_519
_PARTS = 4  # of a batch, whose terms are found side by side


def term_bags(
    vocabulary: VocabularyStatistics, *, token_weights: str, bigram_buckets: int
) -> "TermBags":
    """The terms of a vocabulary, with their IDF where `token_weights` is `tfidf`, else with equal weights."""
    idf, ngram_idf = (
        smooth_idf(counts, vocabulary.num_documents)
        for counts in (vocabulary.document_counts, vocabulary.ngram_document_counts)
    )
    if token_weights != "tfidf":
        idf, ngram_idf = np.ones_like(idf), np.ones_like(ngram_idf)
    return TermBags(
        idf, bigram_buckets=bigram_buckets, ngrams=vocabulary.ngrams, ngram_idf=ngram_idf
    )


class TermBags(keras.layers.Layer):
    """Token ids -> each document's terms with their weights.

    A term is a distinct token of a document, a distinct n-gram of the vocabulary or, with `bigram_buckets`, a
    distinct hashed pair of neighbouring tokens. Its weight is (1 + ln(count in the document)) * IDF, and each
    document's weights have L2 norm 1 (Manning et al. 2008, Introduction to Information Retrieval,
    section 6.4.1 and table 6.1). A bigram's IDF is the mean of its two tokens'. Tokens out of the
    vocabulary weigh nothing, nor do bigrams with one.

    Args:
      idf: float32 [vocabulary], the tokens' IDF; all 1 for no weighting.
      bigram_buckets: rows that bigrams share; 0: no bigrams.
      ngrams: places in the vocabulary of each n-gram's tokens.
      ngram_idf: float32 [n-grams], their IDF.
    """

    def __init__(
        self,
        idf: np.ndarray,
        *,
        bigram_buckets: int,
        ngrams: Sequence[tuple[int, ...]] = (),
        ngram_idf: np.ndarray | None = None,
    ):
        super().__init__(name="terms", dtype="float32")
        self._num_token_rows = NUM_SPECIAL_IDS + len(idf)
        self._num_bigram_rows = bigram_buckets
        token_idf = np.concatenate([np.zeros(NUM_SPECIAL_IDS, np.float32), idf])
        # A weight, and not a constant, so that a checkpoint and the SavedModel hold it.
        self._token_idf = self.add_weight(
            name="token_idf",
            shape=token_idf.shape,
            dtype="float32",
            trainable=False,
            initializer=lambda shape, dtype: tf.constant(token_idf, dtype),
        )
        self._longest_ngram, self._num_ngrams = max(map(len, ngrams), default=1), len(ngrams)
        if self._num_token_rows**self._longest_ngram > np.iinfo(np.int64).max:
            raise ValueError(
                f"received n-grams of {self._longest_ngram} tokens over {len(idf):,} tokens, expected fewer: their codes do not fit int64"
            )
        if ngrams:
            codes = np.array(
                [
                    functools.reduce(self._code, (NUM_SPECIAL_IDS + place for place in ngram))
                    for ngram in ngrams
                ],
                np.int64,
            )
            order = np.argsort(codes)
            self._ngram_codes = self._fixed("ngram_codes", codes[order], "int64")
            self._ngram_idf = self._fixed("ngram_idf", ngram_idf[order], "float32")
        self.built = True

    def _fixed(self, name: str, values: np.ndarray, dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=values.shape,
            dtype=dtype,
            trainable=False,
            initializer=lambda shape, dtype: tf.constant(values, dtype),
        )

    def _code(self, ngram, token):
        """The number of an n-gram with one token more; different n-grams have different ones, as tokens' ids begin at NUM_SPECIAL_IDS."""
        return ngram * self._num_token_rows + token

    @property
    def num_rows(self) -> int:
        """Rows that a table needs: special ids, tokens, bigram buckets, n-grams."""
        return self._num_token_rows + self._num_bigram_rows + self._num_ngrams

    def call(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.SparseTensor]:
        """(rows int64 [n] that the batch uses, weights float32 [batch, n] of them, sparse) of token ids int64 [batch, None]."""
        documents, rows, weights = self._terms(tokens)
        # Each row that the batch uses is gathered once, so its gradient is one row of an
        # IndexedSlices, and no tensor of terms x embedding_dim is ever made.
        rows, positions = tf.unique(rows, out_idx=tf.int64)
        return rows, tf.SparseTensor(
            tf.stack([documents, positions], axis=1),
            weights,
            [tokens.nrows(), tf.size(rows, tf.int64)],
        )

    def _terms(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct terms of each document: its number, which does not fall, the embedding's row and the normalised weight, all [terms]."""
        kinds, documents = self._occurrences(tokens), tokens.value_rowids()
        if len(kinds) == 1:
            # Tokens out of the vocabulary stay, with the weight 0: to take them out costs more.
            documents, rows, counts, _ = self._distinct(
                documents, tokens.flat_values, tokens.nrows()
            )
            idf = tf.gather(self._token_idf.value, rows)
        else:
            rows, idf = (
                tf.reshape(tf.stack(parts, axis=1), [-1])
                for parts in zip(*(terms for _, terms in kinds), strict=True)
            )
            known = tf.where(idf > 0)[:, 0]
            rows, documents, idf = (
                tf.gather(x, known) for x in (rows, tf.repeat(documents, len(kinds)), idf)
            )
            documents, rows, counts, places = self._distinct(documents, rows, tokens.nrows())
            # Bigrams that share a bucket differ in IDF: the rarest counts.
            idf = tf.math.unsorted_segment_max(idf, places, tf.size(rows))
        weights = (1 + tf.math.log(tf.cast(counts, tf.float32))) * idf
        norms = tf.sqrt(tf.math.unsorted_segment_sum(tf.square(weights), documents, tokens.nrows()))
        return documents, rows, weights / tf.maximum(tf.gather(norms, documents), _TINY)

    def _distinct(
        self, documents: tf.Tensor, rows: tf.Tensor, num_documents: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct pairs of occurrences [n]: documents, rows, how often each occurs, all [terms], and which pair each occurrence is [n]."""
        keys = documents * self.num_rows + rows
        # Some documents at a time, side by side: tf.unique uses one core.
        cuts = tf.searchsorted(
            documents,
            num_documents * tf.range(_PARTS + 1, dtype=tf.int64) // _PARTS,
            out_type=tf.int64,
        )
        parts = [
            tf.unique_with_counts(keys[cuts[i] : cuts[i + 1]], out_idx=tf.int64)
            for i in range(_PARTS)
        ]
        firsts = tf.cumsum([tf.size(part.y, tf.int64) for part in parts], exclusive=True)
        keys, counts = (
            tf.concat([getattr(part, name) for part in parts], axis=0) for name in ("y", "count")
        )
        places = tf.concat([part.idx + firsts[i] for i, part in enumerate(parts)], axis=0)
        return keys // self.num_rows, keys % self.num_rows, counts, places

    def _occurrences(
        self, tokens: tf.RaggedTensor
    ) -> list[tuple[int, tuple[tf.Tensor, tf.Tensor]]]:
        """Of each kind of term: how many tokens it spans, and the row and IDF of the term that ends at each token; IDF 0: there is none."""
        documents, ids = tokens.value_rowids(), tokens.flat_values
        idf = tf.gather(self._token_idf.value, ids)
        found = [(1, (ids, idf))]
        if self._num_bigram_rows:
            found.append((2, self._bigrams(ids, documents, idf)))
        return found + [
            (size, self._ngrams(ids, documents, size)) for size in range(2, self._longest_ngram + 1)
        ]

    def shares(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.SparseTensor]:
        """What each token of one document has of the weights of its terms.

        A term's weight is shared out evenly to its occurrences, and there to the tokens that it spans.

        Returns:
          (rows int64 [n] of the terms, float32 [tokens, n], sparse; cells may stand twice): summed over the tokens, the weights of `call`.
        """
        rows, bags = self(tokens)
        weights, order = tf.sparse.to_dense(bags)[0], tf.argsort(rows)
        cells, sizes = [], []
        for size, (occurring, idf) in self._occurrences(tokens):
            ends = tf.where(idf > 0)[:, 0]
            places = tf.gather(
                order, tf.searchsorted(tf.gather(rows, order), tf.gather(occurring, ends))
            )
            for offset in range(size):
                cells.append(tf.stack([ends - offset, tf.cast(places, tf.int64)], axis=1))
                sizes.append(tf.fill(tf.shape(places), float(size)))
        cells, sizes = tf.concat(cells, axis=0), tf.concat(sizes, axis=0)
        counts = tf.math.unsorted_segment_sum(
            1 / sizes, cells[:, 1], tf.size(rows)
        )  # occurrences of each term
        shares = tf.gather(weights / tf.maximum(counts, _TINY), cells[:, 1]) / sizes
        return rows, tf.SparseTensor(
            cells, shares, [tf.size(tokens.flat_values, tf.int64), tf.size(rows, tf.int64)]
        )

    def _ngrams(
        self, ids: tf.Tensor, documents: tf.Tensor, size: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Row and IDF of the run of `size` tokens that ends at each token; the IDF is 0 where it is no n-gram of the vocabulary."""
        runs = tf.maximum(tf.size(ids) - size + 1, 0)
        codes = functools.reduce(self._code, [ids[start : start + runs] for start in range(size)])
        places = tf.minimum(tf.searchsorted(self._ngram_codes.value, codes), self._num_ngrams - 1)
        # A code with an id below NUM_SPECIAL_IDS may be that of a shorter n-gram.
        is_known = (
            (tf.gather(self._ngram_codes.value, places) == codes)
            & (documents[:runs] == documents[size - 1 :])
            & (ids[:runs] >= NUM_SPECIAL_IDS)
        )
        rows = self._num_token_rows + self._num_bigram_rows + tf.cast(places, tf.int64)
        return _at_ends(rows, ids), _at_ends(
            tf.where(is_known, tf.gather(self._ngram_idf.value, places), 0.0), ids
        )

    def _bigrams(
        self, ids: tf.Tensor, documents: tf.Tensor, idf: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        first, second = ids[:-1], ids[1:]
        mixed = first * _FIRST_MULTIPLIER + second * _SECOND_MULTIPLIER
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 17))
        buckets = self._num_token_rows + mixed % self._num_bigram_rows
        joined = (documents[:-1] == documents[1:]) & (idf[:-1] > 0) & (idf[1:] > 0)
        joined_idf = tf.where(joined, (idf[:-1] + idf[1:]) / 2, 0.0)
        return _at_ends(buckets, ids), _at_ends(joined_idf, ids)


def _at_ends(values: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Values of the runs of several tokens, in order -> [tokens], each at its run's last token; 0 where none ends."""
    return tf.pad(values, [[tf.size(ids) - tf.size(values), 0]])


def sum_bags(bags: tf.SparseTensor, vectors: tf.Tensor) -> tf.Tensor:
    """Each document's weighted sum of vectors.

    In the CSR format: on a CPU it and its gradient take half the time of tf.sparse.sparse_dense_matmul (TensorFlow 2.21).

    Args:
      bags: float32 [batch, n], sparse, of `TermBags`: documents do not fall from cell to cell, and the weights get no gradient.
      vectors: float32 [n, dim].

    Returns:
      float32 [batch, dim].
    """

    def matrix() -> tf.Tensor:
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=bags.indices, values=bags.values, dense_shape=bags.dense_shape
        )

    def transposed() -> tf.Tensor:
        # Not the multiplication's own `transpose_a`: with that, each thread sums into a matrix of its own, which takes four times as long.
        return tf.raw_ops.SparseMatrixTranspose(input=matrix(), type=tf.float32)

    def product(left: Callable[[], tf.Tensor], right: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        # The multiplication of a matrix without cells divides by zero, and ends the process.
        nothing = tf.stack([rows, tf.shape(right, tf.int64)[1]])
        result = tf.cond(
            tf.size(bags.values) > 0,
            lambda: tf.raw_ops.SparseMatrixMatMul(a=left(), b=right),
            lambda: tf.zeros(nothing),
        )
        return tf.ensure_shape(result, [None, right.shape[1]])

    @tf.custom_gradient
    def multiply(vectors):
        return product(matrix, vectors, bags.dense_shape[0]), lambda upstream: product(
            transposed, upstream, bags.dense_shape[1]
        )

    return multiply(vectors)
