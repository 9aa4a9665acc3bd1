"""Bags of terms: the tokens, exact n-grams and hashed bigrams of a document, with their weights."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.ragged import row_ids
from trainer.distribution.variables import gather_rows
from trainer.models.inputs import VocabularyStatistics
from trainer.models.layers import NUM_SPECIAL_IDS, constant_weight

# Multipliers of the bigram hash, odd and below 2**32: with ids below 2**31 int64 cannot overflow.
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = 2_654_435_761, 2_246_822_519
# tf.unique uses one core, so a batch is divided into this many chunks of documents, whose distinct
# terms are found in parallel.
_NUM_CHUNKS = 4
# The code of no term, and the row that it gets: no token has the id 0.
_NO_TERM = 0
# Bits of a batch's document in the keys of distinct terms.
_DOCUMENT_BITS = 20
TINY = 1e-12  # keeps the division by the norm of a document without terms finite


def smooth_idf(document_counts: np.ndarray, num_documents: int) -> np.ndarray:
    """Inverse document frequencies ln((1 + n) / (1 + df)) + 1, float32 [size].

    They are smoothed as by scikit-learn's TfidfTransformer.
    """
    document_counts = np.asarray(document_counts, np.float64)
    return (np.log((1 + num_documents) / (1 + document_counts)) + 1).astype(np.float32)


def term_bags(
    vocabulary: VocabularyStatistics, *, token_weights: str, bigram_buckets: int
) -> "TermBags":
    """The terms of a vocabulary, with IDF if `token_weights` is `tfidf`, else all with IDF 1."""
    idf = smooth_idf(vocabulary.document_counts, vocabulary.num_documents)
    ngrams = vocabulary_ngrams(vocabulary)
    if token_weights != "tfidf":
        idf, ngrams = np.ones_like(idf), ngrams._replace(idf=np.ones_like(ngrams.idf))
    return TermBags(idf, bigram_buckets=bigram_buckets, ngrams=ngrams)


class Ngrams(NamedTuple):
    """Exact n-grams by their codes, see `ngram_code`.

    Attributes:
      codes: int64 [n-grams], rising.
      idf: float32 [n-grams], their IDF.
      max_size: tokens of the longest; 1: there are none.
    """

    codes: np.ndarray
    idf: np.ndarray
    max_size: int


def vocabulary_ngrams(vocabulary: VocabularyStatistics) -> Ngrams:
    """The n-grams of a vocabulary.

    Raises:
      ValueError: their codes do not fit int64.
    """
    num_token_rows = NUM_SPECIAL_IDS + vocabulary.size
    max_size = max(map(len, vocabulary.ngrams), default=1)
    if num_token_rows**max_size > np.iinfo(np.int64).max:
        raise ValueError(
            f"received n-grams of {max_size} tokens over {vocabulary.size:,} tokens, "
            "expected fewer: their codes do not fit int64"
        )
    code = functools.partial(ngram_code, num_token_rows=num_token_rows)
    ids = ([NUM_SPECIAL_IDS + index for index in ngram] for ngram in vocabulary.ngrams)
    codes = np.array([functools.reduce(code, ngram) for ngram in ids], np.int64)
    order = np.argsort(codes)
    idf = smooth_idf(vocabulary.ngram_document_counts, vocabulary.num_documents)
    return Ngrams(codes[order], idf[order], max_size)


def ngram_code(ngram, token, *, num_token_rows: int):
    """The code of an n-gram that is extended by a token id; that of a token is its id.

    Different n-grams of one size have different codes.
    """
    return ngram * num_token_rows + token


def are_pairs(ids: tf.Tensor, documents: tf.Tensor) -> tf.Tensor:
    """bool [tokens - 1]: whether a token and the next are of the vocabulary and one document."""
    is_known = ids >= NUM_SPECIAL_IDS
    return (documents[:-1] == documents[1:]) & is_known[:-1] & is_known[1:]


def hash_pairs(first: tf.Tensor, second: tf.Tensor, num_buckets: int) -> tf.Tensor:
    """The buckets int64 [n] of pairs of token ids int64 [n]; several pairs may share one."""
    mixed = first * _FIRST_MULTIPLIER + second * _SECOND_MULTIPLIER
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, _int64(17)))
    return mixed % num_buckets


class _Occurrences(NamedTuple):
    """The terms of one kind, such as bigrams or n-grams of one size, that end at each token.

    Attributes:
      size: how many tokens such a term spans.
      codes: int64 [tokens], see `TermBags`; _NO_TERM where none ends.
    """

    size: int
    codes: tf.Tensor


class _DistinctTerms(NamedTuple):
    """The distinct pairs of a document and a term among occurrences.

    Attributes:
      documents: int64 [pairs], the document's index in the batch, in rising order.
      codes: int64 [pairs], the term's code.
      counts: int64 [pairs], how often the term occurs in the document.
      pair_of_occurrence: int64 [occurrences], the pair that each occurrence belongs to.
    """

    documents: tf.Tensor
    codes: tf.Tensor
    counts: tf.Tensor
    pair_of_occurrence: tf.Tensor


class TermBags(keras.layers.Layer):
    """Token ids -> each document's terms with their weights.

    A term is a distinct token of a document, a distinct n-gram of the vocabulary or, with
    `bigram_buckets`, a distinct hashed pair of neighbouring tokens. Its weight is (1 + ln(count in
    the document)) * IDF, and each document's weights have L2 norm 1 (Manning et al. 2008,
    Introduction to Information Retrieval, section 6.4.1 and table 6.1). A bigram's IDF is the mean
    of its two tokens', and bigrams that share a row are terms of their own. Tokens out of the
    vocabulary have weight 0, and so have bigrams that contain one.

    In the graph a term is an int64 code: a token's is its id, a bigram's the ids of both side by
    side, and those of n-grams come after them. So occurrences are counted before rows and IDF are
    looked up, once for each distinct term.

    Args:
      idf: float32 [vocabulary], the tokens' IDF; all 1 for no weighting.
      bigram_buckets: rows that bigrams share; 0: no bigrams.
      ngrams: the exact n-grams, over the same tokens.
    """

    def __init__(self, idf: np.ndarray, *, bigram_buckets: int, ngrams: Ngrams):
        super().__init__(name="terms", dtype="float32")
        self._num_token_rows = NUM_SPECIAL_IDS + len(idf)
        self._num_bigram_rows = bigram_buckets
        token_idf = np.concatenate([np.zeros(NUM_SPECIAL_IDS, np.float32), idf])
        self._token_idf = constant_weight(self, "token_idf", token_idf, "float32")
        self._id_bits = max(1, (self._num_token_rows - 1).bit_length())
        self._max_ngram_size, self._num_ngrams = ngrams.max_size, len(ngrams.codes)
        self._ngram_code = functools.partial(ngram_code, num_token_rows=self._num_token_rows)
        self._first_ngram_code = 1 << 2 * self._id_bits
        has_pairs = bigram_buckets or self._num_ngrams
        last_code = self._first_ngram_code + self._num_ngrams
        self._code_bits = last_code.bit_length() if has_pairs else self._id_bits
        if self._code_bits + _DOCUMENT_BITS > 63:
            raise ValueError(
                f"received a vocabulary of {len(idf):,} tokens, expected fewer: the codes of its "
                "bigrams do not fit int64"
            )
        if self._num_ngrams:
            self._ngram_codes = constant_weight(self, "ngram_codes", ngrams.codes, "int64")
            self._ngram_idf = constant_weight(self, "ngram_idf", ngrams.idf, "float32")
        self.built = True

    @property
    def num_rows(self) -> int:
        """Rows that an embedding table needs: special ids, tokens, bigram buckets, n-grams."""
        return self._num_token_rows + self._num_bigram_rows + self._num_ngrams

    def call(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.SparseTensor]:
        """The terms of each document, by the rows of the embedding table that the batch uses.

        Args:
          tokens: int64 [batch, None], token ids.

        Returns:
          (int64 [n], the distinct rows; float32 [batch, n], sparse, their weights in each
          document). A row that terms of one document share has several cells there.
        """
        terms, term_rows, weights = self._weighted_terms(tokens, self._occurrences(tokens))
        # Each row that the batch uses is gathered once, so its gradient is one row of an
        # IndexedSlices, and no tensor of terms x embedding_dim is ever made.
        rows, positions = tf.unique(term_rows, out_idx=tf.int64)
        cells = tf.stack([terms.documents, positions], axis=1)
        return rows, tf.SparseTensor(cells, weights, [tokens.nrows(), tf.size(rows, tf.int64)])

    def weighted_terms(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct terms of each document.

        Returns:
          (int64, documents, rising; int64, rows of the embedding table; float32, normalised
          weights), all [terms]. Terms of weight 0 are among them.
        """
        terms, rows, weights = self._weighted_terms(tokens, self._occurrences(tokens))
        return terms.documents, rows, weights

    def unscaled_terms(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`weighted_terms` before weights are divided by their document's norm."""
        terms, rows, weights = self._counted_terms(tokens, self._occurrences(tokens))
        return terms.documents, rows, weights

    def _weighted_terms(
        self, tokens: tf.RaggedTensor, kinds: list[_Occurrences]
    ) -> tuple[_DistinctTerms, tf.Tensor, tf.Tensor]:
        """The distinct terms of each document.

        Terms of weight 0 stay: to remove them costs more.

        Returns:
          (the terms; their rows in the embedding table, int64 [terms]; normalised weights, float32
          [terms]).
        """
        terms, rows, weights = self._counted_terms(tokens, kinds)
        norms = tf.sqrt(
            tf.math.unsorted_segment_sum(tf.square(weights), terms.documents, tokens.nrows())
        )
        weights = weights / tf.maximum(tf.gather(norms, terms.documents), TINY)
        return terms, rows, weights

    def _counted_terms(
        self, tokens: tf.RaggedTensor, kinds: list[_Occurrences]
    ) -> tuple[_DistinctTerms, tf.Tensor, tf.Tensor]:
        """`_weighted_terms` before weights are divided by their document's norm."""
        documents = row_ids(tokens)
        if len(kinds) == 1:
            codes = kinds[0].codes
        else:
            codes = tf.reshape(tf.stack([kind.codes for kind in kinds], axis=1), [-1])
            documents = tf.repeat(documents, len(kinds))
        terms = self._distinct(documents, codes, tokens.nrows())
        rows, idf = self._look_up(terms.codes)
        return terms, rows, (1 + tf.math.log(tf.cast(terms.counts, tf.float32))) * idf

    def _distinct(
        self, documents: tf.Tensor, codes: tf.Tensor, num_documents: tf.Tensor
    ) -> _DistinctTerms:
        """The distinct pairs among occurrences [n] of a document, in rising order, and a code."""
        keys = tf.bitwise.left_shift(documents, _int64(self._code_bits)) + codes
        first_documents = num_documents * tf.range(_NUM_CHUNKS + 1, dtype=tf.int64) // _NUM_CHUNKS
        ends = tf.searchsorted(documents, first_documents, out_type=tf.int64)
        chunks = [
            tf.unique_with_counts(keys[ends[i] : ends[i + 1]], out_idx=tf.int64)
            for i in range(_NUM_CHUNKS)
        ]
        keys = tf.concat([chunk.y for chunk in chunks], axis=0)
        counts = tf.concat([chunk.count for chunk in chunks], axis=0)
        first_pairs = tf.cumsum([tf.size(chunk.y, tf.int64) for chunk in chunks], exclusive=True)
        pairs = tf.concat([chunk.idx + first_pairs[i] for i, chunk in enumerate(chunks)], axis=0)
        return _DistinctTerms(
            tf.bitwise.right_shift(keys, _int64(self._code_bits)),
            _lowest_bits(keys, self._code_bits),
            counts,
            pairs,
        )

    def idf_of(self, ids: tf.Tensor) -> tf.Tensor:
        """The IDF float32 [n] of token ids int64 [n]; 0 of a token out of the vocabulary."""
        return gather_rows(self._token_idf, ids)

    def _look_up(self, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows int64 [terms] and the IDF float32 [terms] of codes int64 [terms]."""
        if self._code_bits == self._id_bits:
            return codes, gather_rows(self._token_idf, codes)
        is_ngram = codes >= self._first_ngram_code
        indices = tf.maximum(codes - self._first_ngram_code, 0)
        # The lowest bits of an n-gram's code are no id.
        codes = tf.where(is_ngram, _int64(_NO_TERM), codes)
        first = _lowest_bits(tf.bitwise.right_shift(codes, _int64(self._id_bits)), self._id_bits)
        second = _lowest_bits(codes, self._id_bits)
        # An id 0 has IDF 0, so that a token's code is that of a bigram whose first id is 0.
        is_token = codes < 1 << self._id_bits
        rows, idf = second, gather_rows(self._token_idf, second)
        if self._num_bigram_rows:
            rows = tf.where(is_token, rows, self._bigram_rows(first, second))
            sums = idf + gather_rows(self._token_idf, first)
            idf = tf.where(is_token, idf, sums / 2)
        if self._num_ngrams:
            first_row = self._num_token_rows + self._num_bigram_rows
            rows = tf.where(is_ngram, first_row + indices, rows)
            idf = tf.where(is_ngram, gather_rows(self._ngram_idf, indices), idf)
        return rows, idf

    def _bigram_rows(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """The rows of hashed bigrams; several may share one."""
        return self._num_token_rows + hash_pairs(first, second, self._num_bigram_rows)

    # --- the kinds of terms ------------------------------------------------------------

    def _occurrences(self, tokens: tf.RaggedTensor) -> list[_Occurrences]:
        """The occurrences of each kind of term, the tokens first."""
        documents, ids = row_ids(tokens), tokens.flat_values
        kinds = [_Occurrences(1, ids)]
        if self._num_bigram_rows:
            kinds.append(self._bigrams(ids, documents))
        for size in range(2, self._max_ngram_size + 1):
            kinds.append(self._ngrams(ids, documents, size))
        return kinds

    def _ngrams(self, ids: tf.Tensor, documents: tf.Tensor, size: int) -> _Occurrences:
        """The n-grams of the vocabulary that have `size` tokens."""
        num_runs = tf.maximum(tf.size(ids) - size + 1, 0)
        runs = [ids[start : start + num_runs] for start in range(size)]
        codes = functools.reduce(self._ngram_code, runs)
        indices = tf.searchsorted(self._ngram_codes.value, codes)
        indices = tf.minimum(indices, self._num_ngrams - 1)
        # A code that begins with an id below NUM_SPECIAL_IDS may be that of a shorter n-gram.
        is_known = (
            (gather_rows(self._ngram_codes, indices) == codes)
            & (documents[:num_runs] == documents[size - 1 :])
            & (ids[:num_runs] >= NUM_SPECIAL_IDS)
        )
        ngrams = self._first_ngram_code + tf.cast(indices, tf.int64)
        return _Occurrences(size, _at_last_tokens(tf.where(is_known, ngrams, _NO_TERM), ids))

    def _bigrams(self, ids: tf.Tensor, documents: tf.Tensor) -> _Occurrences:
        """The pairs of neighbouring tokens of the vocabulary."""
        first, second = ids[:-1], ids[1:]
        is_known = are_pairs(ids, documents)
        codes = tf.bitwise.left_shift(first, _int64(self._id_bits)) + second
        return _Occurrences(2, _at_last_tokens(tf.where(is_known, codes, _NO_TERM), ids))

    # --- attribution -------------------------------------------------------------------

    def shares(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.SparseTensor]:
        """The share that each token of one document has in the weights of its terms.

        A term's weight is divided evenly among its occurrences, and there among the tokens that it
        spans.

        Returns:
          (int64 [n], the rows of the terms; float32 [tokens, n], sparse, in which a cell may occur
          twice). Summed over the tokens, the shares are the weights of `call`.
        """
        kinds = self._occurrences(tokens)
        terms, term_rows, weights = self._weighted_terms(tokens, kinds)
        rows, columns = tf.unique(term_rows, out_idx=tf.int64)
        weight_per_occurrence = weights / tf.cast(terms.counts, tf.float32)
        occurring = tf.reshape(terms.pair_of_occurrence, [-1, len(kinds)])
        cells, shares = [], []
        for index, kind in enumerate(kinds):
            last_tokens = tf.where(kind.codes != _NO_TERM)[:, 0]
            occurring_there = tf.gather(occurring[:, index], last_tokens)
            for offset in range(kind.size):
                cells.append(
                    tf.stack([last_tokens - offset, tf.gather(columns, occurring_there)], axis=1)
                )
                shares.append(tf.gather(weight_per_occurrence, occurring_there) / kind.size)
        shape = [tf.size(tokens.flat_values, tf.int64), tf.size(rows, tf.int64)]
        return rows, tf.SparseTensor(tf.concat(cells, axis=0), tf.concat(shares, axis=0), shape)


def _at_last_tokens(values: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Values of all runs of several tokens, in order -> [tokens], each at its run's last token.

    _NO_TERM where no run ends.
    """
    # tf.pad has no kernel of int64 for GPUs (TensorFlow 2.21).
    missing = tf.fill([tf.size(ids) - tf.size(values)], tf.constant(_NO_TERM, values.dtype))
    return tf.concat([missing, values], axis=0)


def _lowest_bits(values: tf.Tensor, bits: int) -> tf.Tensor:
    """int64 values of 0 and above, modulo 2**bits."""
    return tf.bitwise.bitwise_and(values, _int64((1 << bits) - 1))


def _int64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)
