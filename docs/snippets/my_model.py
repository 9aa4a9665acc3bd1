"""A model of your own: the mean of the tokens' embeddings, then one dense layer."""

from typing import Any

import keras
import tensorflow as tf

from multihot import ModelInputs, row_ids


class MeanOfEmbeddings(keras.Model):
    """Logits = dense(mean of the tokens' embeddings)."""

    def __init__(self, inputs: ModelInputs, *, dim: int):
        super().__init__(name="mean_of_embeddings")
        # Ids: 1 is out of vocabulary, 2 the vocabulary's first token, so two rows more than tokens.
        self.embeddings = self.add_weight(
            name="embeddings",  # so named, it does not decay, and row_adagrad updates its rows
            shape=(inputs.vocabulary.size + 2, dim),
            initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=inputs.seed),
        )
        self.dense = keras.layers.Dense(
            inputs.num_labels,
            kernel_initializer=keras.initializers.GlorotUniform(seed=inputs.seed + 1),
            # The labels' log-odds in the train split: the first loss is then that of guessing.
            bias_initializer=lambda shape, dtype: tf.constant(inputs.output_bias, dtype),
        )
        self.dense.build((None, dim))
        self.built = True

    def call(self, tokens: tf.RaggedTensor, training: bool = False) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None]."""
        vectors = tf.gather(self.embeddings.value, tokens.values)
        sums = tf.math.unsorted_segment_sum(vectors, row_ids(tokens), tokens.nrows())
        lengths = tf.cast(tf.maximum(tokens.row_lengths(), 1), sums.dtype)
        return self.dense(sums / lengths[:, None])  # an empty document has the bias as its logits


def build(options: dict[str, Any], inputs: ModelInputs) -> keras.Model:
    """What `model.build` names: further keys of the config section `model` are the options."""
    return MeanOfEmbeddings(inputs, dim=options.get("dim", 64))
