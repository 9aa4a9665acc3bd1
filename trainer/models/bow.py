"""Bag of embeddings: a TF-IDF weighted sum of the embeddings of terms, then one dense layer."""

from typing import NamedTuple

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import BowConfig, BowTreeConfig
from trainer.distribution.variables import gather_rows
from trainer.models.inputs import ModelInputs
from trainer.models.layers import EmbeddingTable, LogitsLayer
from trainer.models.pair_bags import Bags, WordAndPairBags
from trainer.models.term_bags import term_bags
from trainer.models.weighted_sums import sum_bags


class EncodedBags(NamedTuple):
    """Documents as the sums of their embeddings.

    Attributes:
      bags: the terms of each table, with their weights in each document.
      vectors: float32 [batch, dim], the weighted sums of their embeddings, after dropout.
    """

    bags: tuple[Bags, ...]
    vectors: tf.Tensor


class BagEncoder(keras.layers.Layer):
    """Documents' vectors = dropout(sum over terms of weight * embedding), see `TermBags`.

    With `bigram_dim`, pairs have a table of their own (`WordAndPairBags`), of fewer dimensions. Its
    sum is added to the first units of the document's vector, times embedding_dim / bigram_dim: a
    step of an optimizer that moves each number alike, such as Adam, then moves a logit as far by a
    pair's embedding as by a word's.

    Attributes:
      num_rows: rows of the tables.
    """

    def __init__(self, config: BowConfig | BowTreeConfig, inputs: ModelInputs):
        super().__init__(name="bag")
        weighting, self._pair_table = {"token_weights": config.token_weights}, None
        if config.bigram_dim is None:
            self._terms = term_bags(
                inputs.vocabulary, bigram_buckets=config.bigram_buckets, **weighting
            )
        else:
            self._terms = WordAndPairBags(
                inputs.vocabulary, num_pair_rows=config.bigram_buckets, **weighting
            )
            self._pair_table = EmbeddingTable(
                config.bigram_buckets,
                config.bigram_dim,
                seed=inputs.seed + 2,
                name="pairs",
            )
        num_rows = self._terms.num_rows
        self._table = EmbeddingTable(
            num_rows,
            config.embedding_dim,
            vectors=inputs.vectors,
            freeze=config.freeze_pretrained_vectors,
            seed=inputs.seed,
        )
        self.num_rows = (num_rows,)
        if config.bigram_dim is not None:
            self.num_rows += (config.bigram_buckets,)
        self._dim = config.embedding_dim
        self._dropout = keras.layers.Dropout(config.dropout, seed=inputs.seed)
        self.built = True

    def call(self, tokens: tf.RaggedTensor, training: bool = False) -> EncodedBags:
        """What is computed of documents, token ids int64 [batch, None]."""
        bags = self._by_table(self._terms(tokens))
        sums = [
            self._widened(sum_bags(bag.weights, vectors))
            for bag, vectors in zip(bags, self._embeddings(bags), strict=True)
        ]
        return EncodedBags(bags, self._dropout(tf.add_n(sums), training=training))

    def shares(self, tokens: tf.RaggedTensor) -> tuple[tuple[Bags, ...], list[tf.Tensor]]:
        """The parts that the tokens of one document have in its vector, without dropout.

        Returns:
          Of each table, the terms with float32 [tokens, n] as weights, and what these are weights
          of, float32 [n, dim].
        """
        bags = self._by_table(self._terms.shares(tokens))
        return bags, [self._widened(vectors) for vectors in self._embeddings(bags)]

    def _by_table(self, bags: tuple) -> tuple[Bags, ...]:
        """Bags of one table or of two -> those of each table."""
        return (Bags(*bags),) if self._pair_table is None else bags

    def _embeddings(self, bags: tuple[Bags, ...]) -> list[tf.Tensor]:
        """Of each table, the embeddings float32 [n, its dim] of the rows that are used."""
        tables = [self._table, self._pair_table][: len(bags)]
        return [
            tf.cast(table(bag.rows), tf.float32) for table, bag in zip(tables, bags, strict=True)
        ]

    def _widened(self, vectors: tf.Tensor) -> tf.Tensor:
        """Vectors float32 [n, dim of a table] -> parts of documents' vectors [n, embedding_dim]."""
        dim = vectors.shape[1]
        if dim == self._dim:
            return vectors
        return tf.pad(vectors * (self._dim / dim), [[0, 0], [0, self._dim - dim]])


class BagOfEmbeddings(keras.Model):
    """Logits = dense(a document's vector), see `BagEncoder`.

    With `wide`, the weighted sum of a weight for each term and label is added: a linear model on
    TF-IDF beside the embeddings (Cheng et al. 2016, Wide & Deep Learning). These weights start at
    0. The logits of a document without a known token are the bias.
    """

    def __init__(self, config: BowConfig, inputs: ModelInputs):
        super().__init__(name="bow")
        self._bag = BagEncoder(config, inputs)
        self._wide = None
        if config.wide:
            self._wide = self.add_weight(
                name="wide_embeddings",
                shape=(sum(self._bag.num_rows), inputs.num_labels),
                initializer="zeros",
                autocast=False,
            )
        self._dense = LogitsLayer(config.embedding_dim, inputs.output_bias, seed=inputs.seed + 1)
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        return self.logits(self.encode(tokens, training=training), label_ids)

    def encode(self, tokens: tf.RaggedTensor, *, training: bool) -> EncodedBags:
        """What the logits of documents, token ids int64 [batch, None], are computed from."""
        return self._bag(tokens, training=training)

    def logits(self, documents: EncodedBags, label_ids: tf.Tensor | None = None) -> tf.Tensor:
        """Logits float32 [batch, labels], or [batch, n] of distinct label ids int64 [n]."""
        logits = self._dense(documents.vectors, label_ids)
        if self._wide is not None:
            for bag, wide in zip(documents.bags, self._wide_rows(documents.bags), strict=True):
                logits += sum_bags(
                    bag.weights, wide if label_ids is None else tf.gather(wide, label_ids, axis=1)
                )
        return logits

    def contributions(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What each token of one document adds to the logits.

        Returns:
          (float32 [tokens, labels], float32 [labels], the bias). Their sum is the logits.
        """
        bags, vectors = self._bag.shares(tokens)
        bias = self._dense(tf.zeros([1, vectors[0].shape[1]]))
        of_terms = [self._dense(part) - bias for part in vectors]
        if self._wide is not None:
            of_terms = map(tf.add, of_terms, self._wide_rows(bags))
        of_tokens = [
            tf.sparse.sparse_dense_matmul(bag.weights, values)
            for bag, values in zip(bags, of_terms, strict=True)
        ]
        return tf.add_n(of_tokens), bias[0]

    def _wide_rows(self, bags: tuple[Bags, ...]) -> list[tf.Tensor]:
        """Of each table, the wide weights float32 [n, labels] of the rows that are used."""
        first_rows = (0, self._bag.num_rows[0])
        return [
            gather_rows(self._wide, bag.rows + first_row if first_row else bag.rows)
            for bag, first_row in zip(bags, first_rows, strict=False)
        ]
