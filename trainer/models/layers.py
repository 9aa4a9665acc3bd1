"""What the architectures share: tables of embeddings, bags of terms, padded sequences, the last layer."""

import functools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.training_config import SequenceModel
from trainer.models.inputs import ModelInputs, VocabularyStatistics
from trainer.models.pretrained_vectors import PretrainedVectors

NUM_SPECIAL_IDS = 2  # TextVectorization's ids before the vocabulary: 0 pads, 1 is out of vocabulary
# Multipliers of the bigram hash, odd and below 2**32: with ids below 2**31 int64 cannot overflow.
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = 2_654_435_761, 2_246_822_519
_TINY = 1e-12
_PARTS = 4  # of a batch, whose terms are found side by side


def seeds(seed: int) -> Iterator[int]:
    """Seeds for the initial values and the dropout of one layer after the other; without them two layers of one shape would start equal."""
    return iter((np.random.SeedSequence(seed).generate_state(1024) >> 1).tolist())


class LogitsLayer(keras.layers.Layer):
    """The last layer: float32 logits, also under mixed precision.

    Its kernel is [labels, inputs], so that the gradient of some labels' logits touches their rows alone.

    Args:
      num_inputs: size of a document's vector.
      output_bias: float32 [labels], the first bias.
      seed: of the kernel.
    """

    def __init__(self, num_inputs: int, output_bias: np.ndarray, *, seed: int):
        super().__init__(name="logits", dtype="float32")
        shape = (len(output_bias), num_inputs)
        self._kernel = self.add_weight(name="kernel", shape=shape, initializer=keras.initializers.GlorotUniform(seed=seed))
        self._bias = self.add_weight(name="bias", shape=shape[:1], initializer=lambda shape, dtype: tf.constant(output_bias, dtype))
        self.built = True

    def call(self, vectors: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """Logits float32 [batch, labels] of vectors [batch, inputs]; with label ids int64 [n], distinct, only theirs, [batch, n]."""
        kernel, bias = rows_of(self._kernel, labels), rows_of(self._bias, labels)
        return tf.matmul(tf.cast(vectors, tf.float32), kernel, transpose_b=True) + bias


def rows_of(variable: keras.Variable, rows: tf.Tensor | None) -> tf.Tensor:
    """The rows of a variable, or all of it."""
    return tf.convert_to_tensor(variable.value) if rows is None else tf.gather(variable.value, rows)


def dense_layer(num_inputs: int, units: int, *, activation: str | None, seed: int, name: str) -> keras.layers.Dense:
    """A built dense layer."""
    layer = keras.layers.Dense(units, activation=activation, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name=name)
    layer.build((None, num_inputs))
    return layer


# --- embeddings ----------------------------------------------------------------------------


class EmbeddingTable(keras.layers.Layer):
    """Rows of embeddings, of which those with pretrained vectors may be frozen.

    Args:
      num_rows: rows of the table; those of the vocabulary's tokens start at NUM_SPECIAL_IDS.
      dim: size of an embedding.
      vectors: pretrained vectors of the vocabulary's tokens; the other rows start at random.
      freeze: rows with a pretrained vector get no gradient.
      seed: of the random rows.
    """

    def __init__(self, num_rows: int, dim: int, *, vectors: PretrainedVectors | None, freeze: bool, seed: int):
        super().__init__(name="table")
        random = keras.initializers.RandomUniform(-0.05, 0.05, seed=seed)

        def initial_values(shape, dtype):
            values = random(shape, dtype)
            if vectors is None:
                return values
            rows = NUM_SPECIAL_IDS + np.flatnonzero(vectors.found)[:, None]
            return tf.tensor_scatter_nd_update(values, rows, tf.cast(vectors.values[vectors.found], dtype))

        # Mixed precision would cast the whole table at every step, and make its gradient dense.
        self._embeddings = self.add_weight(name="embeddings", shape=(num_rows, dim), initializer=initial_values, autocast=False)
        self._learned = None
        if vectors is not None and freeze:
            learned = np.ones(num_rows, np.float32)
            learned[NUM_SPECIAL_IDS : NUM_SPECIAL_IDS + len(vectors.found)] -= vectors.found
            self._learned = self.add_weight(
                name="learned_rows", shape=(num_rows,), dtype="float32", trainable=False, initializer=lambda shape, dtype: tf.constant(learned, dtype)
            )
        self.built = True

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """Embeddings [n, dim] of rows int64 [n], which should be distinct: the gradient then has each row once."""
        vectors = tf.gather(self._embeddings.value, rows)
        if self._learned is not None:
            learned = tf.gather(self._learned.value, rows)[:, None] > 0
            vectors = tf.where(learned, vectors, tf.stop_gradient(vectors))
        return tf.cast(vectors, self.compute_dtype)


class TokenSequences(keras.layers.Layer):
    """Token ids -> their embeddings, padded to the longest document of the batch.

    Args:
      config: says the size of an embedding, how many tokens of a document are read, and whether pretrained vectors are frozen.
      inputs: the vocabulary and its pretrained vectors.
      seed: of the random embeddings.
    """

    def __init__(self, config: SequenceModel, inputs: ModelInputs, *, seed: int):
        super().__init__(name="tokens")
        num_rows = NUM_SPECIAL_IDS + inputs.vocabulary.size
        self._table = EmbeddingTable(num_rows, config.embedding_dim, vectors=inputs.vectors, freeze=config.freeze_vectors, seed=seed)
        self._max_tokens = config.max_tokens
        self.built = True

    def call(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(embeddings [batch, longest, dim] with 0 as padding, bool [batch, longest]: where a token stands); longest is at least 1."""
        if self._max_tokens is not None:
            tokens = tokens[:, : self._max_tokens]
        rows, positions = tf.unique(tokens.flat_values, out_idx=tf.int64)
        vectors = tf.gather(self._table(rows), positions)
        padded = tokens.with_values(vectors).to_tensor()
        missing = tf.maximum(1 - tf.shape(padded)[1], 0)  # convolutions and maxima of nothing are not defined
        padded = tf.pad(padded, [[0, 0], [0, missing], [0, 0]])
        return padded, tf.sequence_mask(tokens.row_lengths(), tf.shape(padded)[1])


def padding_bias(mask: tf.Tensor) -> tf.Tensor:
    """float32 [batch, longest]: 0 where a token stands, else so low that a softmax gives it 0 and a maximum leaves it out.

    Adding it costs a third of a tf.where and its gradient. float16 can hold it too.
    """
    return (tf.cast(mask, tf.float32) - 1) * 30_000


# --- bags of terms -------------------------------------------------------------------------


def smooth_idf(document_counts: np.ndarray, num_documents: int) -> np.ndarray:
    """Inverse document frequencies ln((1 + n) / (1 + df)) + 1, float32 [size], as scikit-learn's TfidfTransformer smooths them."""
    return (np.log((1 + num_documents) / (1 + np.asarray(document_counts, np.float64))) + 1).astype(np.float32)


def term_bags(vocabulary: VocabularyStatistics, *, token_weights: str, bigram_buckets: int) -> "TermBags":
    """The terms of a vocabulary, with their IDF where `token_weights` is `tfidf`, else with equal weights."""
    idf, ngram_idf = (smooth_idf(counts, vocabulary.num_documents) for counts in (vocabulary.document_counts, vocabulary.ngram_document_counts))
    if token_weights != "tfidf":
        idf, ngram_idf = np.ones_like(idf), np.ones_like(ngram_idf)
    return TermBags(idf, bigram_buckets=bigram_buckets, ngrams=vocabulary.ngrams, ngram_idf=ngram_idf)


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

    def __init__(self, idf: np.ndarray, *, bigram_buckets: int, ngrams: Sequence[tuple[int, ...]] = (), ngram_idf: np.ndarray | None = None):
        super().__init__(name="terms", dtype="float32")
        self._num_token_rows = NUM_SPECIAL_IDS + len(idf)
        self._num_bigram_rows = bigram_buckets
        token_idf = np.concatenate([np.zeros(NUM_SPECIAL_IDS, np.float32), idf])
        # A weight, and not a constant, so that a checkpoint and the SavedModel hold it.
        self._token_idf = self.add_weight(
            name="token_idf", shape=token_idf.shape, dtype="float32", trainable=False, initializer=lambda shape, dtype: tf.constant(token_idf, dtype)
        )
        self._longest_ngram, self._num_ngrams = max(map(len, ngrams), default=1), len(ngrams)
        if self._num_token_rows**self._longest_ngram > np.iinfo(np.int64).max:
            raise ValueError(
                f"received n-grams of {self._longest_ngram} tokens over {len(idf):,} tokens, expected fewer: their codes do not fit int64"
            )
        if ngrams:
            codes = np.array([functools.reduce(self._code, (NUM_SPECIAL_IDS + place for place in ngram)) for ngram in ngrams], np.int64)
            order = np.argsort(codes)
            self._ngram_codes = self._fixed("ngram_codes", codes[order], "int64")
            self._ngram_idf = self._fixed("ngram_idf", ngram_idf[order], "float32")
        self.built = True

    def _fixed(self, name: str, values: np.ndarray, dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=values.shape, dtype=dtype, trainable=False, initializer=lambda shape, dtype: tf.constant(values, dtype)
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
        return rows, tf.SparseTensor(tf.stack([documents, positions], axis=1), weights, [tokens.nrows(), tf.size(rows, tf.int64)])

    def _terms(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct terms of each document: its number, which does not fall, the embedding's row and the normalised weight, all [terms]."""
        kinds, documents = self._occurrences(tokens), tokens.value_rowids()
        if len(kinds) == 1:
            # Tokens out of the vocabulary stay, with the weight 0: to take them out costs more.
            documents, rows, counts, _ = self._distinct(documents, tokens.flat_values, tokens.nrows())
            idf = tf.gather(self._token_idf.value, rows)
        else:
            rows, idf = (tf.reshape(tf.stack(parts, axis=1), [-1]) for parts in zip(*(terms for _, terms in kinds), strict=True))
            known = tf.where(idf > 0)[:, 0]
            rows, documents, idf = (tf.gather(x, known) for x in (rows, tf.repeat(documents, len(kinds)), idf))
            documents, rows, counts, places = self._distinct(documents, rows, tokens.nrows())
            # Bigrams that share a bucket differ in IDF: the rarest counts.
            idf = tf.math.unsorted_segment_max(idf, places, tf.size(rows))
        weights = (1 + tf.math.log(tf.cast(counts, tf.float32))) * idf
        norms = tf.sqrt(tf.math.unsorted_segment_sum(tf.square(weights), documents, tokens.nrows()))
        return documents, rows, weights / tf.maximum(tf.gather(norms, documents), _TINY)

    def _distinct(self, documents: tf.Tensor, rows: tf.Tensor, num_documents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct pairs of occurrences [n]: documents, rows, how often each occurs, all [terms], and which pair each occurrence is [n]."""
        keys = documents * self.num_rows + rows
        # Some documents at a time, side by side: tf.unique uses one core.
        cuts = tf.searchsorted(documents, num_documents * tf.range(_PARTS + 1, dtype=tf.int64) // _PARTS, out_type=tf.int64)
        parts = [tf.unique_with_counts(keys[cuts[i] : cuts[i + 1]], out_idx=tf.int64) for i in range(_PARTS)]
        firsts = tf.cumsum([tf.size(part.y, tf.int64) for part in parts], exclusive=True)
        keys, counts = (tf.concat([getattr(part, name) for part in parts], axis=0) for name in ("y", "count"))
        places = tf.concat([part.idx + firsts[i] for i, part in enumerate(parts)], axis=0)
        return keys // self.num_rows, keys % self.num_rows, counts, places

    def _occurrences(self, tokens: tf.RaggedTensor) -> list[tuple[int, tuple[tf.Tensor, tf.Tensor]]]:
        """Of each kind of term: how many tokens it spans, and the row and IDF of the term that ends at each token; IDF 0: there is none."""
        documents, ids = tokens.value_rowids(), tokens.flat_values
        idf = tf.gather(self._token_idf.value, ids)
        found = [(1, (ids, idf))]
        if self._num_bigram_rows:
            found.append((2, self._bigrams(ids, documents, idf)))
        return found + [(size, self._ngrams(ids, documents, size)) for size in range(2, self._longest_ngram + 1)]

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
            places = tf.gather(order, tf.searchsorted(tf.gather(rows, order), tf.gather(occurring, ends)))
            for offset in range(size):
                cells.append(tf.stack([ends - offset, tf.cast(places, tf.int64)], axis=1))
                sizes.append(tf.fill(tf.shape(places), float(size)))
        cells, sizes = tf.concat(cells, axis=0), tf.concat(sizes, axis=0)
        counts = tf.math.unsorted_segment_sum(1 / sizes, cells[:, 1], tf.size(rows))  # occurrences of each term
        shares = tf.gather(weights / tf.maximum(counts, _TINY), cells[:, 1]) / sizes
        return rows, tf.SparseTensor(cells, shares, [tf.size(tokens.flat_values, tf.int64), tf.size(rows, tf.int64)])

    def _ngrams(self, ids: tf.Tensor, documents: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Row and IDF of the run of `size` tokens that ends at each token; the IDF is 0 where it is no n-gram of the vocabulary."""
        runs = tf.maximum(tf.size(ids) - size + 1, 0)
        codes = functools.reduce(self._code, [ids[start : start + runs] for start in range(size)])
        places = tf.minimum(tf.searchsorted(self._ngram_codes.value, codes), self._num_ngrams - 1)
        # A code with an id below NUM_SPECIAL_IDS may be that of a shorter n-gram.
        is_known = (
            (tf.gather(self._ngram_codes.value, places) == codes) & (documents[:runs] == documents[size - 1 :]) & (ids[:runs] >= NUM_SPECIAL_IDS)
        )
        rows = self._num_token_rows + self._num_bigram_rows + tf.cast(places, tf.int64)
        return _at_ends(rows, ids), _at_ends(tf.where(is_known, tf.gather(self._ngram_idf.value, places), 0.0), ids)

    def _bigrams(self, ids: tf.Tensor, documents: tf.Tensor, idf: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=bags.indices, values=bags.values, dense_shape=bags.dense_shape)

    def transposed() -> tf.Tensor:
        # Not the multiplication's own `transpose_a`: with that, each thread sums into a matrix of its own, which takes four times as long.
        return tf.raw_ops.SparseMatrixTranspose(input=matrix(), type=tf.float32)

    def product(left: Callable[[], tf.Tensor], right: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        # The multiplication of a matrix without cells divides by zero, and ends the process.
        nothing = tf.stack([rows, tf.shape(right, tf.int64)[1]])
        result = tf.cond(tf.size(bags.values) > 0, lambda: tf.raw_ops.SparseMatrixMatMul(a=left(), b=right), lambda: tf.zeros(nothing))
        return tf.ensure_shape(result, [None, right.shape[1]])

    @tf.custom_gradient
    def multiply(vectors):
        return product(matrix, vectors, bags.dense_shape[0]), lambda upstream: product(transposed, upstream, bags.dense_shape[1])

    return multiply(vectors)
