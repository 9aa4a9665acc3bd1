"""Bag of embeddings: a TF-IDF weighted sum of the embeddings of tokens and bigrams, then one dense layer."""

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.config import BowConfig

NUM_SPECIAL_IDS = 2  # TextVectorization's ids before the vocabulary: 0 pads, 1 is out of vocabulary
# Multipliers of the bigram hash, odd and below 2**32: with ids below 2**31 int64 cannot overflow.
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = 2_654_435_761, 2_246_822_519
_TINY = 1e-12


def build(
    config: BowConfig, *, document_counts: np.ndarray, num_documents: int, num_labels: int, output_bias: np.ndarray, seed: int
) -> "BagOfEmbeddings":
    """Builds the model; see `trainer.models.build_model`."""
    return BagOfEmbeddings(config, idf=smooth_idf(document_counts, num_documents), num_labels=num_labels, output_bias=output_bias, seed=seed)


def smooth_idf(document_counts: np.ndarray, num_documents: int) -> np.ndarray:
    """Inverse document frequencies ln((1 + n) / (1 + df)) + 1, float32 [size], as scikit-learn's TfidfTransformer smooths them."""
    return (np.log((1 + num_documents) / (1 + np.asarray(document_counts, np.float64))) + 1).astype(np.float32)


class BagOfEmbeddings(keras.Model):
    """Logits = dense(dropout(sum over terms of weight * embedding)).

    A term is a distinct token of a document or, with `bigram_buckets`, a distinct hashed pair of
    neighbouring tokens. Its weight is (1 + ln(count in the document)) * IDF, and each
    document's weights have L2 norm 1 (Manning et al. 2008, Introduction to Information Retrieval,
    section 6.4.1 and table 6.1). A bigram's IDF is the mean of its two tokens'. Tokens out of the
    vocabulary weigh nothing, nor do bigrams with one; a document of nothing else has the bias as its logits.
    """

    def __init__(self, config: BowConfig, *, idf: np.ndarray, num_labels: int, output_bias: np.ndarray, seed: int):
        super().__init__(name="bow")
        self._num_token_rows = NUM_SPECIAL_IDS + len(idf)
        self._num_bigram_rows = config.bigram_buckets
        if config.token_weights == "uniform":
            idf = np.ones_like(idf)
        token_idf = np.concatenate([np.zeros(NUM_SPECIAL_IDS, np.float32), idf])
        # A weight, and not a constant, so that a checkpoint and the SavedModel hold it.
        self._token_idf = self.add_weight(
            name="token_idf", shape=token_idf.shape, dtype="float32", trainable=False, initializer=lambda shape, dtype: tf.constant(token_idf, dtype)
        )
        self._embeddings = self.add_weight(
            name="embeddings",
            shape=(self._num_token_rows + self._num_bigram_rows, config.embedding_dim),
            initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
        )
        self._dropout = keras.layers.Dropout(config.dropout, seed=seed)
        self._dense = keras.layers.Dense(
            num_labels,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1),
            bias_initializer=lambda shape, dtype: tf.constant(output_bias, dtype),
            dtype="float32",
            name="logits",
        )
        self._dense.build((None, config.embedding_dim))
        self.built = True

    def call(self, tokens: tf.RaggedTensor, training: bool = False) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None]."""
        documents, rows, weights = self._terms(tokens)
        # Each row that the batch uses is gathered once, so its gradient is one row of an
        # IndexedSlices, and no tensor of terms x embedding_dim is ever made.
        rows, positions = tf.unique(rows, out_idx=tf.int64)
        bags = tf.SparseTensor(tf.stack([documents, positions], axis=1), weights, [tokens.nrows(), tf.size(rows, tf.int64)])
        vectors = tf.sparse.sparse_dense_matmul(bags, tf.gather(self._embeddings.value, rows))
        return self._dense(self._dropout(vectors, training=training))

    def _terms(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct terms of each document: its number, the embedding's row and the normalised weight, all [terms]."""
        documents, rows = tokens.value_rowids(), tokens.flat_values
        idf = tf.gather(self._token_idf.value, rows)
        if self._num_bigram_rows:
            rows, documents, idf = self._with_bigrams(rows, documents, idf)
        known = idf > 0
        rows, documents, idf = (tf.boolean_mask(x, known) for x in (rows, documents, idf))
        num_rows = self._num_token_rows + self._num_bigram_rows
        keys, position, counts = tf.unique_with_counts(documents * num_rows + rows, out_idx=tf.int64)
        documents, rows = keys // num_rows, keys % num_rows
        # Bigrams that share a bucket differ in IDF: the rarest counts.
        idf = tf.math.unsorted_segment_max(idf, position, tf.size(keys))
        weights = (1 + tf.math.log(tf.cast(counts, tf.float32))) * idf
        norms = tf.sqrt(tf.math.unsorted_segment_sum(tf.square(weights), documents, tokens.nrows()))
        return documents, rows, weights / tf.maximum(tf.gather(norms, documents), _TINY)

    def _with_bigrams(self, ids: tf.Tensor, documents: tf.Tensor, idf: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first, second = ids[:-1], ids[1:]
        mixed = first * _FIRST_MULTIPLIER + second * _SECOND_MULTIPLIER
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 17))
        buckets = self._num_token_rows + mixed % self._num_bigram_rows
        joined = (documents[:-1] == documents[1:]) & (idf[:-1] > 0) & (idf[1:] > 0)
        joined_idf = tf.where(joined, (idf[:-1] + idf[1:]) / 2, 0.0)
        return tf.concat([ids, buckets], 0), tf.concat([documents, documents[1:]], 0), tf.concat([idf, joined_idf], 0)
