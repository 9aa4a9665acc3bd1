"""A pretrained encoder, one vector a document, and dense layers on it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.encoder_tokenizer import EncoderTokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.training_config import PretrainedConfig
from trainer.models.backbones import Encoder
from trainer.models.inputs import ModelInputs
from trainer.models.label_attention import attended_logits, unit_variance_weight
from trainer.models.layers import (
    HEAD_LAYER,
    NUM_SPECIAL_IDS,
    LogitsLayer,
    constant_weight,
    dense_layer,
    rows_of,
    seeds,
)

_SPECIAL_PIECES = 2  # before and after a document
_PART_DOCUMENTS = 64


class PretrainedEncoder(keras.Model):
    """Dense layers on a vector: the mean of an encoder's states, or the first one.

    Each layer is dense(dropout(x)); all but the last have GELU (Hendrycks & Gimpel 2016). With
    `pooling: label_attention`, `StateAttention` takes their place.

    The states are those of a document's pieces between the encoder's pieces for start and end, as
    it was trained with; the mean is over all of them (Reimers & Gurevych 2019, Sentence-BERT,
    section 3). A document without tokens has these two alone. Of several texts, each has a vector
    of its own by the same encoder, and the dense layer reads all of them.

    Args:
      config: what is trained, and how vectors come about.
      inputs: the vocabulary, its tokens and the number of labels.
      encoder: loaded, or built to be restored.
      tokenizer: the encoder's, whose pieces are the vocabulary's tokens.

    Raises:
      UserError: the encoder has fewer layers, or fewer positions, than the config asks for.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        inputs: ModelInputs,
        *,
        encoder: Encoder,
        tokenizer: EncoderTokenizer,
    ):
        super().__init__(name="pretrained")
        seed = seeds(inputs.seed)
        self.pooling = _pooling(config, encoder)
        self.encoder_description: Mapping[str, Any] = encoder.description
        self.vector_size = inputs.num_texts * encoder.dim
        self._max_pieces = _max_pieces(config, encoder)
        self._is_frozen = config.trainable_layers == 0
        _set_trainable(config, encoder)
        self._network = encoder.network
        self._has_segments = "segment_ids" in encoder.network.input
        ids = {piece: number for number, piece in enumerate(tokenizer.pieces)}
        self._start, self._end = ids[tokenizer.start], ids[tokenizer.end]
        self._piece_ids = constant_weight(
            self, "piece_ids", _piece_ids(inputs.vocabulary.tokens, ids, tokenizer.unknown)
        )
        self._hidden, sizes = [], (self.vector_size, *config.hidden_units)
        self._dropouts = [keras.layers.Dropout(config.dropout, seed=next(seed)) for _ in sizes]
        if self.pooling == "label_attention":
            self._attention = StateAttention(encoder.dim, inputs.output_bias, seed=seed)
        else:
            self._hidden = [
                dense_layer(
                    before, units, activation="gelu", seed=next(seed), name=f"{HEAD_LAYER}_{i}"
                )
                for i, (before, units) in enumerate(itertools.pairwise(sizes))
            ]
            self._dense = LogitsLayer(sizes[-1], inputs.output_bias, seed=next(seed))
        self.built = True

    def call(
        self,
        tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...] | tf.Tensor,
        training: bool = False,
        label_ids: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`.

        In place of token ids, it takes what `encode` has made of them.
        """
        if self.pooling == "label_attention":
            return _in_parts(
                lambda texts: self._attended(texts, training, label_ids), tokens, training
            )
        is_encoded = isinstance(tokens, tf.Tensor)
        x = tokens if is_encoded else self.encode(tokens, training=training)
        for dropout, hidden in zip(self._dropouts, self._hidden, strict=False):
            x = hidden(dropout(x, training=training))
        return self._dense(self._dropouts[-1](x, training=training), label_ids)

    def encode(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...], training: bool = False
    ) -> tf.Tensor:
        """Vectors float32 [batch, vector_size] of each text's token ids int64 [batch, None]."""

        def vectors(texts: Sequence[tf.RaggedTensor]) -> tf.Tensor:
            return tf.concat([self._pooled(*self._states(text, training)) for text in texts], 1)

        return tf.ensure_shape(_in_parts(vectors, tokens, training), [None, self.vector_size])

    def _attended(
        self, texts: Sequence[tf.RaggedTensor], training: bool, label_ids: tf.Tensor | None
    ) -> tf.Tensor:
        """Logits by attention over the states of all texts, one text after the other."""
        parts = [self._states(text, training) for text in texts]
        states, mask = (tf.concat(part, axis=1) for part in zip(*parts, strict=True))
        return self._attention(self._dropouts[0](states, training=training), mask, label_ids)

    def _states(self, tokens: tf.RaggedTensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 [batch, longest, dim], and bool [batch, longest], true where a piece is."""
        tokens = tokens[:, : self._max_pieces]
        pieces = tokens.with_values(tf.gather(self._piece_ids.value, tokens.flat_values))
        ends = tf.ones([pieces.nrows(), 1], pieces.dtype)
        pieces = tf.concat([self._start * ends, pieces, self._end * ends], axis=1)
        ids = pieces.to_tensor()
        mask = tf.sequence_mask(pieces.row_lengths(), tf.shape(ids)[1])
        inputs = {"token_ids": ids, "padding_mask": tf.cast(mask, tf.int32)}
        if self._has_segments:
            inputs["segment_ids"] = tf.zeros_like(ids)
        states = self._network(inputs, training=training and not self._is_frozen)
        return tf.cast(states, tf.float32), mask

    def _pooled(self, states: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        weights = tf.cast(mask, tf.float32)[:, :, None]
        return tf.reduce_sum(states * weights, axis=1) / tf.reduce_sum(weights, axis=1)


class StateAttention(keras.layers.Layer):
    """logit_l = b_l . (sum of a_lt h_t) + c_l, with a_l = softmax over the states h of h u_l.

    The attention of `LabelAttention`, whose weights start in the same way, on an encoder's states.

    Args:
      dim: size of a state.
      output_bias: float32 [labels], the first c.
      seed: of the u_l and the b_l.
    """

    def __init__(self, dim: int, output_bias: np.ndarray, *, seed: Iterator[int]):
        super().__init__(name=f"{HEAD_LAYER}_attention")
        shape = (len(output_bias), dim)
        self._queries = unit_variance_weight(self, "queries_kernel", shape, next(seed))
        self._outputs = unit_variance_weight(self, "outputs_kernel", shape, next(seed))
        self._bias = self.add_weight(
            name="labels_bias",
            shape=shape[:1],
            autocast=False,
            initializer=lambda shape, dtype: tf.constant(output_bias, dtype),
        )
        self._scale = dim**-0.5
        self.built = True

    def call(
        self, states: tf.Tensor, mask: tf.Tensor, label_ids: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits float32 [batch, labels], or of `label_ids` alone, of states [batch, n, dim]."""
        queries, outputs, bias = (
            rows_of(weight, label_ids) for weight in (self._queries, self._outputs, self._bias)
        )
        logits = attended_logits(states, mask, queries * self._scale, outputs * self._scale)
        return logits + tf.cast(bias, tf.float32)


def _in_parts(
    function: Callable[[Sequence[tf.RaggedTensor]], tf.Tensor],
    tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...],
    training: bool,
) -> tf.Tensor:
    """What a function makes of a batch, float32 [batch, n], a part of the documents at a time.

    A part has documents of like length, so that little is padded, and memory is that of a part: a
    batch of an evaluation has a thousand documents. Those of training are sorted already.
    """
    texts = tokens if isinstance(tokens, tuple) else (tokens,)
    if training:
        return function(texts)
    lengths = tf.reduce_max(tf.stack([text.row_lengths() for text in texts]), axis=0)
    order = tf.argsort(lengths, stable=True)
    texts = [tf.gather(text, order) for text in texts]
    number = tf.maximum(-(-tf.size(order) // _PART_DOCUMENTS), 1)

    def add(i: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = slice(i * _PART_DOCUMENTS, (i + 1) * _PART_DOCUMENTS)
        return i + 1, results.write(i, function([text[rows] for text in texts]))

    results = tf.TensorArray(tf.float32, size=number, infer_shape=False)
    start = (tf.constant(0), results)
    _, results = tf.while_loop(lambda i, _: i < number, add, start, parallel_iterations=1)
    return tf.gather(results.concat(), tf.argsort(order))


def _pooling(config: PretrainedConfig, encoder: Encoder) -> str:
    pooling = config.pooling or encoder.description["pooling"] or "mean"
    if pooling not in ("mean", "cls", "label_attention"):
        raise UserError(
            f"model.backbone: the encoder pools by {pooling}; expected model.pooling: mean, cls or "
            "label_attention to take its place"
        )
    return pooling


def _max_pieces(config: PretrainedConfig, encoder: Encoder) -> int:
    longest = encoder.max_tokens
    if longest is not None and config.max_tokens > longest:
        raise UserError(
            f"model.max_tokens: received {config.max_tokens}, and the encoder has positions for "
            f"{longest}; expected no more"
        )
    return config.max_tokens - _SPECIAL_PIECES


def _set_trainable(config: PretrainedConfig, encoder: Encoder) -> None:
    wanted, layers = config.trainable_layers, encoder.layers
    if wanted == "all":
        return
    if wanted > len(layers):
        raise UserError(
            f"model.trainable_layers: received {wanted}, and the encoder has {len(layers)} layers; "
            "expected at most so many, or `all` for these and the embeddings"
        )
    for layer in encoder.network.layers:
        layer.trainable = layer in layers[len(layers) - wanted :]


def _piece_ids(tokens: Sequence[str], ids: Mapping[str, int], unknown: str) -> np.ndarray:
    """int32 [NUM_SPECIAL_IDS + tokens]: the encoder's id of each token id."""
    return np.array(
        [ids[unknown]] * NUM_SPECIAL_IDS + [ids.get(token, ids[unknown]) for token in tokens],
        np.int32,
    )
