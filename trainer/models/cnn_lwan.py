"""CAML: a convolution, then attention over the document, per label (Mullenbach et al. 2018)."""

import keras
import tensorflow as tf

from beam_jobs.contract.training_config import CnnLwanConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import TokenSequences, padding_bias, rows_of, seeds


class LabelWiseAttention(keras.Model):
    """h = tanh(convolution); a_l = softmax over tokens of h u_l; logit_l = b_l . (a_l h) + bias_l.

    Mullenbach et al. 2018, Explainable Prediction of Medical Codes from Clinical Text, equations 1
    to 5. As b_l . (sum of a_lt h_t) = sum of a_lt (b_l . h_t), no tensor of batch x labels x
    filters is made, only two of batch x tokens x labels. A document without tokens has the bias as
    its logits.
    """

    def __init__(self, config: CnnLwanConfig, inputs: ModelInputs):
        super().__init__(name="cnn_lwan")
        seed = seeds(inputs.seed)
        self._sequences = TokenSequences(config, inputs, seed=next(seed))
        self._convolution = keras.layers.Conv1D(
            config.filters,
            config.filter_width,
            padding="same",
            activation="tanh",
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seed)),
            name="convolution",
        )
        self._convolution.build((None, None, config.embedding_dim))
        self._dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        # One row per label, so that the gradient of some labels' logits touches their rows alone.
        shape = (inputs.num_labels, config.filters)

        self._queries = self.add_weight(
            name="queries_kernel",
            shape=shape,
            initializer=keras.initializers.GlorotUniform(seed=next(seed)),
        )
        self._outputs = self.add_weight(
            name="outputs_kernel",
            shape=shape,
            initializer=keras.initializers.GlorotUniform(seed=next(seed)),
        )
        self._bias = self.add_weight(
            name="bias",
            shape=(inputs.num_labels,),
            initializer=lambda shape, dtype: tf.constant(inputs.output_bias, dtype),
        )
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        vectors, mask = self._sequences(tokens)
        hidden = self._convolution(self._dropout(vectors, training=training))
        queries = tf.cast(rows_of(self._queries, label_ids), hidden.dtype)
        scores = tf.cast(tf.matmul(hidden, queries, transpose_b=True), tf.float32)

        attention = tf.nn.softmax(scores + padding_bias(mask)[:, :, None], axis=1)
        outputs = tf.cast(rows_of(self._outputs, label_ids), hidden.dtype)
        values = tf.cast(tf.matmul(hidden, outputs, transpose_b=True), tf.float32)

        logits = tf.reduce_sum(attention * values, axis=1)
        # The attention of an empty document spreads over padding.
        logits = tf.where(tf.reduce_any(mask, axis=1)[:, None], logits, 0.0)
        return logits + tf.cast(rows_of(self._bias, label_ids), tf.float32)
