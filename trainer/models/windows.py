"""Documents that are longer than an encoder reads at once: windows of them."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of the documents of a batch, in their order; each document has at least one.

    Attributes:
      tokens: int64 [n, None], the tokens of each window.
      numbers: int64 [batch], windows of each document.
      documents: int64 [n], the document that each is of.
    """

    tokens: tf.RaggedTensor
    numbers: tf.Tensor
    documents: tf.Tensor

    @classmethod
    def of(cls, tokens: tf.RaggedTensor, *, size: int, stride: int) -> "Windows":
        """Cuts documents, int64 [batch, None], in windows of `size` tokens, the last one shorter.

        Each begins `stride` tokens after the one before it. A document without tokens has one, that
        is empty.
        """
        numbers = 1 + tf.maximum(-((size - tokens.row_lengths()) // stride), 0)
        documents = tf.repeat(tf.range(tokens.nrows()), numbers)
        before = tf.gather(tf.cumsum(numbers, exclusive=True), documents)
        places = tf.range(tf.size(documents, tf.int64)) - before
        starts = tf.gather(tokens.row_starts(), documents) + places * stride
        limits = tf.minimum(starts + size, tf.gather(tokens.row_limits(), documents))
        rows = tf.ragged.range(starts, limits)
        tokens = rows.with_flat_values(tf.gather(tokens.flat_values, rows.flat_values))
        return cls(tokens, numbers, documents)

    def mean(self, vectors: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """float32 [batch, dim]: the mean of each document's vectors [n, dim] by weights [n]."""
        weights = weights[:, None]
        sums = tf.math.segment_sum(vectors * weights, self.documents)
        return sums / tf.math.segment_sum(weights, self.documents)

    def max(self, vectors: tf.Tensor) -> tf.Tensor:
        """float32 [batch, dim]: the maximum of each document's vectors [n, dim]."""
        return tf.math.segment_max(vectors, self.documents)

    def side_by_side(self, states: tf.Tensor) -> tf.Tensor:
        """[batch, m, dim]: the states [n, longest, dim] of each document's windows, then zeros."""
        is_window = tf.sequence_mask(self.numbers)
        places = tf.cumsum(self.numbers, exclusive=True)[:, None]
        places += tf.range(tf.shape(is_window, tf.int64)[1])
        places = tf.where(is_window, places, tf.shape(states, tf.int64)[0])
        states = tf.gather(tf.concat([states, tf.zeros_like(states[:1])], axis=0), places)
        shape = tf.shape(states)
        return tf.reshape(states, [shape[0], shape[1] * shape[2], states.shape[3]])
