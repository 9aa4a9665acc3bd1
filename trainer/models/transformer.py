"""Transformer encoder with the norm before each layer, from scratch."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.sections.network_models import TransformerConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import LogitsLayer, TokenSequences, dense_layer, padding_bias, seeds


class TransformerEncoder(keras.Model):
    """Embeddings * sqrt(dim) + positions, encoder layers, norm, mean over tokens, dense.

    Vaswani et al. 2017, Attention Is All You Need, with the norm before each layer (Xiong et al.
    2020, On Layer Normalization in the Transformer Architecture, figure 1b), which needs no warm-up
    to be stable. The mean of a document without tokens is 0.
    """

    def __init__(self, config: TransformerConfig, inputs: ModelInputs):
        super().__init__(name="transformer")
        seed = seeds(inputs.seed)
        self._sequences = TokenSequences(config, inputs, seed=next(seed))
        self._scale = float(config.embedding_dim) ** 0.5
        if config.positions == "learned":
            initializer = keras.initializers.RandomNormal(stddev=0.02, seed=next(seed))
            self._positions = self.add_weight(
                name="positions",
                shape=(config.max_tokens, config.embedding_dim),
                initializer=initializer,
            )
        else:
            self._positions = tf.constant(
                sinusoidal_positions(config.max_tokens, config.embedding_dim)
            )
        self._encoders = [
            EncoderLayer(config, seed=seed, name=f"encoder_{i}") for i in range(config.layers)
        ]
        self._norm = _norm(config.embedding_dim, "norm")
        self._first_dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self._last_dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self._dense = LogitsLayer(config.embedding_dim, inputs.output_bias, seed=next(seed))
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        vectors, mask = self._sequences(tokens)
        positions = tf.convert_to_tensor(self._positions)[: tf.shape(vectors)[1]]
        x = self._first_dropout(
            vectors * self._scale + tf.cast(positions, vectors.dtype), training=training
        )
        for encoder in self._encoders:
            x = encoder(x, mask, training=training)
        weights = tf.cast(mask, tf.float32)[:, :, None]
        sums = tf.reduce_sum(tf.cast(self._norm(x), tf.float32) * weights, axis=1)
        means = sums / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)

        return self._dense(self._last_dropout(means, training=training), label_ids)


class EncoderLayer(keras.layers.Layer):
    """x + dropout(attention(norm(x))), then x + dropout(dense(ReLU(dense(norm(x)))))."""

    def __init__(self, config: TransformerConfig, *, seed: Iterator[int], name: str):
        super().__init__(name=name)
        dim, self._heads = config.embedding_dim, config.heads
        self._attention_norm = _norm(dim, f"{name}_attention_norm")
        self._feed_forward_norm = _norm(dim, f"{name}_feed_forward_norm")

        self._projection = dense_layer(
            dim, 3 * dim, activation=None, seed=next(seed), name=f"{name}_query_key_value"
        )
        self._output = dense_layer(
            dim, dim, activation=None, seed=next(seed), name=f"{name}_attention_output"
        )
        self._wider = dense_layer(
            dim,
            config.feed_forward_dim,
            activation="relu",
            seed=next(seed),
            name=f"{name}_feed_forward_in",
        )
        self._narrower = dense_layer(
            config.feed_forward_dim,
            dim,
            activation=None,
            seed=next(seed),
            name=f"{name}_feed_forward_out",
        )
        self._attention_dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self._feed_forward_dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self.built = True

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[batch, tokens, dim] -> [batch, tokens, dim].

        Only tokens where the mask, bool [batch, tokens], is true are attended to.
        """
        x += self._attention_dropout(self._attend(self._attention_norm(x), mask), training=training)
        return x + self._feed_forward_dropout(
            self._narrower(self._wider(self._feed_forward_norm(x))), training=training
        )

    def _attend(self, x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        batch, length, dim = tf.shape(x)[0], tf.shape(x)[1], x.shape[2]
        heads = tf.reshape(self._projection(x), [batch, length, 3, self._heads, dim // self._heads])
        # Each [batch, heads, tokens, dim of a head].
        query, key, value = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]), num=3)
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        scores *= (dim // self._heads) ** -0.5

        weights = tf.nn.softmax(scores + padding_bias(mask)[:, None, None, :])
        attended = tf.matmul(tf.cast(weights, value.dtype), value)
        return self._output(tf.reshape(tf.transpose(attended, [0, 2, 1, 3]), [batch, length, dim]))


def sinusoidal_positions(length: int, dim: int) -> np.ndarray:
    """Position encodings, float32 [length, dim].

    Sines at even and cosines at odd indices, of wavelengths 2 pi to 20,000 pi (Vaswani et al. 2017,
    section 3.5).
    """
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(dim) // 2 * 2 / dim)
    return np.where(np.arange(dim) % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)


def _norm(dim: int, name: str) -> keras.layers.LayerNormalization:
    layer = keras.layers.LayerNormalization(epsilon=1e-6, name=name)
    layer.build((None, None, dim))
    return layer
