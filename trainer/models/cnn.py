"""Convolutions of several widths, each filter's highest value over the document (Kim 2014)."""

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import CnnConfig
from trainer.models.inputs import ModelInputs
from trainer.models.layers import LogitsLayer, TokenSequences, seeds


class ConvolutionalNetwork(keras.Model):
    """Logits = dense(dropout(max over tokens of ReLU(convolution of width w), for each w)).

    A window starts at each token; after the document's end it sees zeros, so short documents have
    windows too. The maxima of a document without tokens are 0. Yoon Kim 2014, Convolutional
    Neural Networks for Sentence Classification.
    """

    def __init__(self, config: CnnConfig, inputs: ModelInputs):
        super().__init__(name="cnn")
        seed = seeds(inputs.seed)
        self._sequences = TokenSequences(config, inputs, seed=next(seed))
        self._widths = config.filter_widths
        self._convolutions = []
        for width in config.filter_widths:
            initializer = keras.initializers.GlorotUniform(seed=next(seed))
            layer = keras.layers.Conv1D(
                config.filters,
                width,
                activation="relu",
                kernel_initializer=initializer,
                name=f"width_{width}",
            )
            layer.build((None, None, config.embedding_dim))
            self._convolutions.append(layer)
        self._dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self._dense = LogitsLayer(
            config.filters * len(config.filter_widths), inputs.output_bias, seed=next(seed)
        )
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        vectors, mask = self._sequences(tokens)
        highest = []
        for width, convolution in zip(self._widths, self._convolutions, strict=True):
            values = convolution(tf.pad(vectors, [[0, 0], [0, width - 1], [0, 0]]))
            # ReLU's values are 0 or more, so padding set to 0 is no maximum.
            values *= tf.cast(mask, values.dtype)[:, :, None]
            highest.append(tf.reduce_max(values, axis=1))

        return self._dense(self._dropout(tf.concat(highest, axis=1), training=training), label_ids)
