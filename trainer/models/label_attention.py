"""Label-wise attention over a convolution of the tokens (Mullenbach et al. 2018, CAML)."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from beam_jobs.contract.sections.network_models import LabelAttentionModel
from trainer.models.inputs import ModelInputs
from trainer.models.layers import TokenSequences, padding_bias, rows_of


class LabelAttention(keras.layers.Layer):
    """h = tanh(convolution); a_l = softmax over tokens of h u_l; logit_l = b_l . (a_l h).

    Mullenbach et al. 2018, Explainable Prediction of Medical Codes from Clinical Text, equations 1
    to 5, without the bias of the labels. As b_l . (sum of a_lt h_t) = sum of a_lt (b_l . h_t), no
    tensor of batch x labels x filters is made, only two of batch x tokens x labels. The logits of a
    document without tokens are 0.

    The filters, the u_l and the b_l are variables that start with a variance of 1, divided by the
    square root of the number of products that are summed (Karras et al. 2018, Progressive Growing
    of GANs, section 4.1, equalized learning rate). An optimizer whose steps do not depend on the
    size of the gradients, such as Adam, then moves them as fast, for their size, as embeddings.

    Args:
      config: the filters, dropout, and how many tokens of a document are read.
      inputs: the vocabulary, its pretrained vectors and the number of labels.
      dim: size of an embedding.
      seed: of the embeddings, the filters, the u_l, the b_l and dropout.
    """

    def __init__(
        self, config: LabelAttentionModel, inputs: ModelInputs, *, dim: int, seed: Iterator[int]
    ):
        super().__init__(name="label_attention")
        self._sequences = TokenSequences(config, inputs, dim=dim, seed=next(seed))
        self._dropout = keras.layers.Dropout(config.dropout, seed=next(seed))
        self._filters = unit_variance_weight(
            self, "convolution_kernel", (config.filter_width, dim, config.filters), next(seed)
        )
        self._bias = self.add_weight(
            name="convolution_bias", shape=(config.filters,), initializer="zeros", autocast=False
        )
        # One row per label, so that the gradient of some labels' logits touches their rows alone.
        shape = (inputs.num_labels, config.filters)
        self._queries = unit_variance_weight(self, "queries_kernel", shape, next(seed))
        self._outputs = unit_variance_weight(self, "outputs_kernel", shape, next(seed))
        self._filter_scale = (config.filter_width * dim) ** -0.5
        self._label_scale = config.filters**-0.5
        self.built = True

    def call(
        self, tokens: tf.RaggedTensor, training: bool = False, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None].

        With distinct label ids int64 [n], only the logits of these labels, [batch, n].
        """
        queries, outputs = rows_of(self._queries, label_ids), rows_of(self._outputs, label_ids)
        return self._logits(tokens, training, queries, outputs)

    def of_candidates(
        self, tokens: tf.RaggedTensor, rows: tf.Tensor, candidates: tf.Tensor, *, training: bool
    ) -> tf.Tensor:
        """Logits float32 [batch, n] of labels that each document has of its own.

        Args:
          tokens: int64 [batch, None], token ids.
          rows: int64 [m], distinct labels: the gradient touches their rows alone.
          candidates: int [batch, n], indices into `rows`.
          training: whether units are dropped.
        """
        queries = tf.gather(rows_of(self._queries, rows), candidates)
        outputs = tf.gather(rows_of(self._outputs, rows), candidates)
        return self._logits(tokens, training, queries, outputs)

    def _logits(
        self, tokens: tf.RaggedTensor, training: bool, queries: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        """Logits of labels by their u_l and b_l: [n, filters], or [batch, n, filters]."""
        vectors, mask = self._sequences(tokens)
        vectors = self._dropout(vectors, training=training)
        filters = tf.cast(self._filters.value * self._filter_scale, vectors.dtype)
        hidden = tf.nn.conv1d(vectors, filters, stride=1, padding="SAME")
        hidden = tf.tanh(hidden + tf.cast(self._bias.value, hidden.dtype))

        return attended_logits(
            hidden, mask, queries * self._label_scale, outputs * self._label_scale
        )


def unit_variance_weight(
    layer: keras.layers.Layer, name: str, shape: tuple[int, ...], seed: int
) -> keras.Variable:
    """A weight that starts with a variance of 1, see `LabelAttention`."""
    limit = 3**0.5
    initializer = keras.initializers.RandomUniform(-limit, limit, seed=seed)
    # With autocast, mixed precision would cast all rows and make their gradient dense.
    return layer.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)


def attended_logits(
    hidden: tf.Tensor, mask: tf.Tensor, queries: tf.Tensor, outputs: tf.Tensor
) -> tf.Tensor:
    """float32 [batch, n]: b_l . sum over tokens of softmax(h u_l) h; 0 for a document of no tokens.

    Args:
      hidden: [batch, tokens, dim], the h.
      mask: bool [batch, tokens], true for tokens.
      queries: float32 [n, dim], the u_l, or [batch, n, dim], each document's own.
      outputs: the b_l, of the same shape.
    """
    scores = _products(hidden, queries) + padding_bias(mask)[:, :, None]
    values = _products(hidden, outputs)
    logits = tf.reduce_sum(tf.nn.softmax(scores, axis=1) * values, axis=1)
    # The attention of an empty document spreads over padding.
    return tf.where(tf.reduce_any(mask, axis=1)[:, None], logits, 0.0)


def _products(hidden: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """float32 [batch, tokens, n]: the product of each token with each of n vectors.

    Args:
      hidden: [batch, tokens, filters].
      vectors: float32 [n, filters], or [batch, n, filters], each document's own.
    """
    vectors = tf.cast(vectors, hidden.dtype)
    if vectors.shape.rank == 3:
        return tf.cast(tf.matmul(hidden, vectors, transpose_b=True), tf.float32)
    # As one matrix: the gradient of a broadcast product is batch x n x filters in size.
    shape = tf.shape(hidden)
    flat = tf.matmul(tf.reshape(hidden, [-1, hidden.shape[2]]), vectors, transpose_b=True)
    return tf.cast(tf.reshape(flat, [shape[0], shape[1], -1]), tf.float32)
