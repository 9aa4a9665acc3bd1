"""Bag of embeddings: a TF-IDF weighted sum of the embeddings of terms, then one dense layer."""

from typing import NamedTuple

import keras
import tensorflow as tf

from beam_jobs.contract.training_config import BowConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import EmbeddingTable, LogitsLayer
from trainer.models.term_bags import term_bags
from trainer.models.weighted_sums import sum_bags


class EncodedBags(NamedTuple):
    """Documents as `BagOfEmbeddings` sees them.

    Attributes:
      rows: int64 [n], the distinct terms of all documents.
      bags: float32 [batch, n], sparse, the weights of each document's terms.
      vectors: float32 [batch, dim], the weighted sums of their embeddings, after dropout.
    """

    rows: tf.Tensor
    bags: tf.SparseTensor
    vectors: tf.Tensor


class BagOfEmbeddings(keras.Model):
    """Logits = dense(dropout(sum over terms of weight * embedding)), see `TermBags`.

    With `wide`, the weighted sum of a weight for each term and label is added: a linear model on
    TF-IDF beside the embeddings (Cheng et al. 2016, Wide & Deep Learning). These weights start at
    0. The logits of a document without a known token are the bias.
    """

    def __init__(self, config: BowConfig, inputs: ModelInputs):
        super().__init__(name="bow")
        self._terms = term_bags(
            inputs.vocabulary,
            token_weights=config.token_weights,
            bigram_buckets=config.bigram_buckets,
        )
        self._table = EmbeddingTable(
            self._terms.num_rows,
            config.embedding_dim,
            vectors=inputs.vectors,
            freeze=config.freeze_pretrained_vectors,
            seed=inputs.seed,
        )
        self._wide = None
        if config.wide:
            self._wide = self.add_weight(
                name="wide_embeddings",
                shape=(self._terms.num_rows, inputs.num_labels),
                initializer="zeros",
                autocast=False,
            )
        self._dropout = keras.layers.Dropout(config.dropout, seed=inputs.seed)
        self._dense = LogitsLayer(config.embedding_dim, inputs.output_bias, seed=inputs.seed + 1)
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        return self.logits(self.encode(tokens, training=training), label_ids)

    def encode(self, tokens: tf.RaggedTensor, *, training: bool) -> EncodedBags:
        """What the logits of documents, token ids int64 [batch, None], are computed from."""
        rows, bags = self._terms(tokens)
        vectors = sum_bags(bags, tf.cast(self._table(rows), tf.float32))
        return EncodedBags(rows, bags, self._dropout(vectors, training=training))

    def logits(self, documents: EncodedBags, label_ids: tf.Tensor | None = None) -> tf.Tensor:
        """Logits float32 [batch, labels], or [batch, n] of distinct label ids int64 [n]."""
        logits = self._dense(documents.vectors, label_ids)
        if self._wide is not None:
            wide = tf.gather(self._wide.value, documents.rows)
            logits += sum_bags(
                documents.bags, wide if label_ids is None else tf.gather(wide, label_ids, axis=1)
            )
        return logits

    def contributions(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What each token of one document adds to the logits.

        Returns:
          (float32 [tokens, labels], float32 [labels], the bias). Their sum is the logits.
        """
        rows, shares = self._terms.shares(tokens)
        vectors = tf.cast(self._table(rows), tf.float32)
        bias = self._dense(tf.zeros([1, tf.shape(vectors)[1]]))
        of_terms = self._dense(vectors) - bias
        if self._wide is not None:
            of_terms += tf.gather(self._wide.value, rows)
        return tf.sparse.sparse_dense_matmul(shares, of_terms), bias[0]
