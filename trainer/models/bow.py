"""Bag of embeddings: a TF-IDF weighted sum of the embeddings of tokens and bigrams, then one dense layer."""

import keras
import tensorflow as tf

from beam_jobs.contract.training_config import BowConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import EmbeddingTable, TermBags, logits_layer, smooth_idf


class BagOfEmbeddings(keras.Model):
    """Logits = dense(dropout(sum over terms of weight * embedding)), see `TermBags`.

    With `wide`, the weighted sum of a weight for each term and label is added: a linear model on TF-IDF beside
    the embeddings (Cheng et al. 2016, Wide & Deep Learning). These weights start at 0.
    A document without a known token has the bias as its logits.
    """

    def __init__(self, config: BowConfig, inputs: ModelInputs):
        super().__init__(name="bow")
        idf = smooth_idf(inputs.vocabulary.document_counts, inputs.vocabulary.num_documents)
        self._terms = TermBags(idf if config.token_weights == "tfidf" else idf * 0 + 1, bigram_buckets=config.bigram_buckets)
        self._table = EmbeddingTable(
            self._terms.num_rows, config.embedding_dim, vectors=inputs.vectors, freeze=config.freeze_vectors, seed=inputs.seed
        )
        self._wide = None
        if config.wide:
            self._wide = self.add_weight(name="wide_embeddings", shape=(self._terms.num_rows, inputs.num_labels), initializer="zeros")
        self._dropout = keras.layers.Dropout(config.dropout, seed=inputs.seed)
        self._dense = logits_layer(config.embedding_dim, inputs.output_bias, seed=inputs.seed + 1)
        self.built = True

    def call(self, tokens: tf.RaggedTensor, training: bool = False) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None]."""
        rows, bags = self._terms(tokens)
        vectors = tf.sparse.sparse_dense_matmul(bags, tf.cast(self._table(rows), tf.float32))
        logits = self._dense(self._dropout(vectors, training=training))
        if self._wide is not None:
            logits += tf.sparse.sparse_dense_matmul(bags, tf.gather(self._wide.value, rows))
        return logits
