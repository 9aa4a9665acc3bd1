"""Layers that the architectures share: embeddings, padded sequences, the last layer."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.sections.network_models import SequenceModel
from trainer.distribution.variables import gather_rows
from trainer.models.inputs import ModelInputs
from trainer.models.pretrained_vectors import PretrainedVectors

HEAD_LAYER = "head"  # how layers between a pretrained encoder and the logits are called
NUM_SPECIAL_IDS = 2  # TextVectorization's ids before the vocabulary: 0 pads, 1 is out of vocabulary


def seeds(seed: int) -> Iterator[int]:
    """Seeds for the initial values and the dropout of each layer in turn.

    With one seed for all, two layers of the same shape would start equal.
    """
    return iter((np.random.SeedSequence(seed).generate_state(1024) >> 1).tolist())


def constant_weight(
    layer: keras.layers.Layer, name: str, values: np.ndarray, dtype: str | None = None
) -> keras.Variable:
    """A weight of a layer that is not trained and never cast; None as dtype: that of the values.

    It is no constant of the graph, so that checkpoints and the SavedModel hold it.
    """
    return layer.add_weight(
        name=name,
        shape=values.shape,
        dtype=dtype or values.dtype.name,
        trainable=False,
        autocast=False,
        initializer=lambda shape, dtype: tf.constant(values, dtype),
    )


class LogitsLayer(keras.layers.Layer):
    """The last layer: float32 logits, also under mixed precision.

    Its kernel is [labels, inputs], so that the gradient of some labels' logits touches their rows
    alone.

    Args:
      num_inputs: size of a document's vector.
      output_bias: float32 [labels], the first bias.
      seed: of the kernel.
    """

    def __init__(self, num_inputs: int, output_bias: np.ndarray, *, seed: int):
        super().__init__(name="logits", dtype="float32")
        self.num_inputs = num_inputs
        shape = (len(output_bias), num_inputs)
        self._kernel = self.add_weight(
            name="kernel", shape=shape, initializer=keras.initializers.GlorotUniform(seed=seed)
        )
        self._bias = self.add_weight(
            name="bias",
            shape=shape[:1],
            initializer=lambda shape, dtype: tf.constant(output_bias, dtype),
        )
        self.built = True

    def set_bias(self, bias: np.ndarray) -> None:
        """Sets the bias, float32 [labels]."""
        self._bias.assign(bias)

    def call(self, vectors: tf.Tensor, label_ids: tf.Tensor | None = None) -> tf.Tensor:
        """Logits float32 [batch, labels] of vectors [batch, inputs].

        With distinct label ids int64 [n], only the logits of these labels, [batch, n].
        """
        kernel, bias = rows_of(self._kernel, label_ids), rows_of(self._bias, label_ids)
        return tf.matmul(tf.cast(vectors, tf.float32), kernel, transpose_b=True) + bias


def rows_of(variable: keras.Variable, rows: tf.Tensor | None) -> tf.Tensor:
    """The rows of a variable, or all of it."""
    return tf.convert_to_tensor(variable.value) if rows is None else gather_rows(variable, rows)


def dense_layer(
    num_inputs: int, units: int, *, activation: str | None, seed: int, name: str
) -> keras.layers.Dense:
    """A built dense layer."""
    layer = keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        name=name,
    )
    layer.build((None, num_inputs))
    return layer


# --- embeddings ----------------------------------------------------------------------------


class EmbeddingTable(keras.layers.Layer):
    """An embedding table. Rows with pretrained vectors may be frozen.

    Args:
      num_rows: rows of the table; those of the vocabulary's tokens start at NUM_SPECIAL_IDS.
      dim: size of an embedding.
      vectors: pretrained vectors of the vocabulary's tokens; the other rows start at random.
      freeze: rows with a pretrained vector get no gradient.
      seed: of the random rows.
      name: of the layer.
    """

    def __init__(
        self,
        num_rows: int,
        dim: int,
        *,
        vectors: PretrainedVectors | None = None,
        freeze: bool = False,
        seed: int,
        name: str = "table",
    ):
        super().__init__(name=name)
        random = keras.initializers.RandomUniform(-0.05, 0.05, seed=seed)

        def initial_values(shape, dtype):
            values = random(shape, dtype)
            if vectors is None:
                return values
            rows = NUM_SPECIAL_IDS + np.flatnonzero(vectors.found)[:, None]
            return tf.tensor_scatter_nd_update(
                values, rows, tf.cast(vectors.values[vectors.found], dtype)
            )

        # With autocast, mixed precision would cast the whole table at every step and make its
        # gradient dense.
        self._embeddings = self.add_weight(
            name="embeddings", shape=(num_rows, dim), initializer=initial_values, autocast=False
        )
        self._learned = None
        if vectors is not None and freeze:
            learned = np.ones(num_rows, np.float32)
            learned[NUM_SPECIAL_IDS : NUM_SPECIAL_IDS + len(vectors.found)] -= vectors.found
            self._learned = self.add_weight(
                name="learned_rows",
                shape=(num_rows,),
                dtype="float32",
                trainable=False,
                initializer=lambda shape, dtype: tf.constant(learned, dtype),
            )
        self.built = True

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """Embeddings [n, dim] of rows int64 [n].

        The rows should be distinct: the gradient then has each row once.
        """
        vectors = gather_rows(self._embeddings, rows)
        if self._learned is not None:
            learned = gather_rows(self._learned, rows)[:, None] > 0
            vectors = tf.where(learned, vectors, tf.stop_gradient(vectors))
        return tf.cast(vectors, self.compute_dtype)


class TokenSequences(keras.layers.Layer):
    """Token ids -> their embeddings, padded to the longest document of the batch.

    Args:
      config: the size of an embedding, how many tokens of a document are read, and whether
        pretrained vectors are frozen.
      inputs: the vocabulary and its pretrained vectors.
      seed: of the random embeddings.
      dim: the size of an embedding, where it is not the config's `embedding_dim`.
    """

    def __init__(
        self, config: SequenceModel, inputs: ModelInputs, *, seed: int, dim: int | None = None
    ):
        super().__init__(name="tokens")
        num_rows = NUM_SPECIAL_IDS + inputs.vocabulary.size
        self._table = EmbeddingTable(
            num_rows,
            config.embedding_dim if dim is None else dim,
            vectors=inputs.vectors,
            freeze=config.freeze_pretrained_vectors,
            seed=seed,
        )
        self._max_tokens = config.max_tokens
        self.built = True

    def call(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Embeddings padded with 0, and a mask.

        Args:
          tokens: int64 [batch, None], token ids.

        Returns:
          ([batch, longest, dim]; bool [batch, longest], true for tokens). `longest` is at least 1.
        """
        # Ids are padded, not their embeddings: RaggedTensor.to_tensor has no kernel for GPUs
        # (TensorFlow 2.21), so that the embedded batch would go to the host and back.
        lengths = tokens.row_lengths()
        if self._max_tokens is not None:
            lengths = tf.minimum(lengths, self._max_tokens)
        # Convolutions and maxima over no position at all are not defined.
        longest = tf.maximum(tf.reduce_max(lengths), 1)
        mask = tf.sequence_mask(lengths, longest)
        # Padding repeats the batch's first token, so that no row is read that no token has.
        ids = tf.concat([tokens.flat_values, [0]], axis=0)
        places = tokens.row_starts()[:, None] + tf.range(longest)
        ids = tf.gather(ids, tf.where(mask, places, 0))

        rows, positions = tf.unique(tf.reshape(ids, [-1]), out_idx=tf.int64)
        vectors = self._table(rows)
        zero = tf.zeros([1, vectors.shape[1]], vectors.dtype)
        positions = tf.where(mask, tf.reshape(positions, tf.shape(ids)), tf.size(rows, tf.int64))
        return tf.gather(tf.concat([vectors, zero], axis=0), positions), mask


def padding_bias(mask: tf.Tensor) -> tf.Tensor:
    """float32 [batch, longest]: 0 for tokens, -30,000 for padding.

    That is low enough for a softmax to give 0 and for a maximum to ignore it, and float16 can hold
    it. Adding it costs a third of a tf.where and its gradient.
    """
    return (tf.cast(mask, tf.float32) - 1) * 30_000
