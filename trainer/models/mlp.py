"""Bag of embeddings, then hidden layers."""

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import MlpConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import EmbeddingTable, LogitsLayer, dense_layer, seeds
from trainer.models.term_bags import term_bags
from trainer.models.weighted_sums import sum_bags


class MultilayerPerceptron(keras.Model):
    """The document vector of `bow`, then dense layers with ReLU and dropout, then the logits."""

    def __init__(self, config: MlpConfig, inputs: ModelInputs):
        super().__init__(name="mlp")
        seed = seeds(inputs.seed)
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
            seed=next(seed),
        )
        sizes = (config.embedding_dim, *config.hidden_units)
        self._hidden = [
            dense_layer(before, units, activation="relu", seed=next(seed), name=f"hidden_{i}")
            for i, (before, units) in enumerate(zip(sizes, sizes[1:], strict=False))
        ]
        self._dropouts = [keras.layers.Dropout(config.dropout, seed=next(seed)) for _ in sizes]
        self._dense = LogitsLayer(sizes[-1], inputs.output_bias, seed=next(seed))
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        rows, bags = self._terms(tokens)
        x = sum_bags(bags, tf.cast(self._table(rows), tf.float32))
        for dropout, hidden in zip(self._dropouts, self._hidden, strict=False):
            x = hidden(dropout(x, training=training))
        return self._dense(self._dropouts[-1](x, training=training), label_ids)
