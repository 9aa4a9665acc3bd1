"""LSTM layers over the tokens, read forwards or both ways."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import LstmConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import LogitsLayer, TokenSequences, padding_bias, seeds


class LstmNetwork(keras.Model):
    """Stacked LSTMs (Hochreiter & Schmidhuber 1997), whose states are pooled to a vector.

    Whole channels are dropped before each layer (Tompson et al. 2015, section 3.2). The vector of a
    document without tokens is 0.
    """

    def __init__(self, config: LstmConfig, inputs: ModelInputs):
        super().__init__(name="lstm")
        seed = seeds(inputs.seed)
        self._sequences = TokenSequences(config, inputs, seed=next(seed))
        self._units, self._pooling = config.units, config.pooling
        self._forward, self._backward, self._spatial_dropouts = [], [], []
        num_inputs = config.embedding_dim
        for i in range(config.layers):
            self._spatial_dropouts.append(
                keras.layers.SpatialDropout1D(config.spatial_dropout, seed=next(seed))
            )
            self._forward.append(_lstm(num_inputs, config.units, seed=seed, name=f"forward_{i}"))
            if config.bidirectional:
                self._backward.append(
                    _lstm(num_inputs, config.units, seed=seed, name=f"backward_{i}")
                )
            num_inputs = config.units * (2 if config.bidirectional else 1)
        self._dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self._dense = LogitsLayer(num_inputs, inputs.output_bias, seed=next(seed))
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        x, mask = self._sequences(tokens)
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        # Padding comes after the tokens, in a document and in its reverse, so it changes no state
        # of a token and needs no mask.
        for i, dropout in enumerate(self._spatial_dropouts):
            x = dropout(x, training=training)
            readings = [self._forward[i](x, training=training)]
            if self._backward:
                backward = self._backward[i](
                    tf.reverse_sequence(x, lengths, seq_axis=1), training=training
                )
                readings.append(tf.reverse_sequence(backward, lengths, seq_axis=1))
            x = tf.concat(readings, axis=2)
        has_tokens = lengths[:, None] > 0
        if self._pooling == "max":
            vectors = tf.reduce_max(x + tf.cast(padding_bias(mask), x.dtype)[:, :, None], axis=1)
        else:
            last = tf.gather(x[:, :, : self._units], tf.maximum(lengths - 1, 0), batch_dims=1)
            vectors = tf.concat([last, x[:, 0, self._units :]], axis=1)
        vectors = tf.where(has_tokens, vectors, tf.zeros_like(vectors))
        return self._dense(self._dropout(vectors, training=training), label_ids)


def _lstm(num_inputs: int, units: int, *, seed: Iterator[int], name: str) -> keras.layers.LSTM:
    layer = keras.layers.LSTM(
        units,
        return_sequences=True,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seed)),
        recurrent_initializer=keras.initializers.Orthogonal(seed=next(seed)),
        name=name,
    )
    layer.build((None, None, num_inputs))
    return layer
