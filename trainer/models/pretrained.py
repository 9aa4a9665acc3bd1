"""A pretrained encoder, one vector a document, and dense layers on it."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.encoder_tokenizer import EncoderTokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.models.attributions import integrated_gradients
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
from trainer.models.low_rank import add_updates, merge_updates
from trainer.models.recomputation import recompute
from trainer.models.windows import Windows

_SPECIAL_PIECES = 2  # before and after a document
_PART_DOCUMENTS = 64


class PretrainedEncoder(keras.Model):
    """Dense layers on a vector: the mean of an encoder's states, or the first one.

    Each layer is dense(dropout(x)); all but the last have GELU (Hendrycks & Gimpel 2016). With
    `pooling: label_attention`, `StateAttention` takes their place.

    The states are those of a document's pieces between the encoder's pieces for start and end, as
    it was trained with; the mean is over all of them (Reimers & Gurevych 2019, Sentence-BERT,
    section 3). A document without tokens has these two alone. Of several texts, each has a vector
    of its own by the same encoder, and the dense layer reads all of them. A document longer than
    `window` is read in windows: its vector is the mean of theirs, each by the number of its pieces,
    or their maximum, and an attention is over the states of all.

    Args:
      config: what is trained, and how vectors come about.
      inputs: the vocabulary, its tokens and the number of labels.
      encoder: loaded, or built to be restored.
      tokenizer: the encoder's, whose pieces are the vocabulary's tokens.

    Raises:
      UserError: the encoder has fewer layers or positions than the config asks for, or fewer
        embeddings than the tokenizer has pieces.
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
        _check_positions(config, encoder)
        if config.label_descriptions and (config.hidden_units or self.pooling == "label_attention"):
            raise UserError(
                "model.label_descriptions: expected neither hidden_units nor `pooling: "
                "label_attention`, since the last layer has to stand on the document's vector"
            )
        self._max_pieces = config.max_tokens - _SPECIAL_PIECES
        self._windows = None
        self._part_documents = _PART_DOCUMENTS
        if config.window is not None:
            size = config.window - _SPECIAL_PIECES
            stride = config.stride or size
            self._windows = functools.partial(Windows.of, size=size, stride=stride)
            self._window_pooling = config.window_pooling
            of_longest = 1 + max(-((size - self._max_pieces) // stride), 0)
            self._part_documents = max(_PART_DOCUMENTS // of_longest, 1)
        self._is_frozen = config.trainable_layers == 0
        self._network, self._embeddings = encoder.network, encoder.embeddings
        self._has_segments = "segment_ids" in encoder.network.input
        _check_pieces(tokenizer, encoder)
        ids = {piece: number for number, piece in enumerate(tokenizer.pieces)}
        self._start, self._end = ids[tokenizer.start], ids[tokenizer.end]
        self._unknown = ids[tokenizer.unknown]
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
        _set_trainable(config, encoder, seed=seed)
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
            return self._in_parts(
                lambda texts: self._attended(texts, training, label_ids), tokens, training
            )
        is_encoded = isinstance(tokens, tf.Tensor)
        x = tokens if is_encoded else self.encode(tokens, training=training)
        return self._head(x, training, label_ids)

    def _head(self, x: tf.Tensor, training: bool, label_ids: tf.Tensor | None) -> tf.Tensor:
        """Logits of vectors float32 [batch, vector_size]."""
        for dropout, hidden in zip(self._dropouts, self._hidden, strict=False):
            x = hidden(dropout(x, training=training))
        return self._dense(self._dropouts[-1](x, training=training), label_ids)

    def encode(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...], training: bool = False
    ) -> tf.Tensor:
        """Vectors float32 [batch, vector_size] of each text's token ids int64 [batch, None]."""

        def vectors(texts: Sequence[tf.RaggedTensor]) -> tf.Tensor:
            return tf.concat([self._vectors(text, training) for text in texts], 1)

        return tf.ensure_shape(self._in_parts(vectors, tokens, training), [None, self.vector_size])

    def _in_parts(
        self,
        function: Callable[[Sequence[tf.RaggedTensor]], tf.Tensor],
        tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...],
        training: bool,
    ) -> tf.Tensor:
        return _in_parts(function, tokens, None if training else self._part_documents)

    @property
    def token_variables(self) -> list[keras.Variable]:
        """The variables with a row for each token after the reserved ones."""
        return [self._piece_ids]

    @property
    def label_variables(self) -> list[keras.Variable]:
        """The variables with a row for each label."""
        layer = self._attention if self.pooling == "label_attention" else self._dense
        return layer.variables

    def head(self) -> list[np.ndarray]:
        """The last layer, where it stands on the vectors: [labels, vector_size], [labels]."""
        return self._dense.get_weights()

    def set_head(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Sets what `head` gives."""
        self._dense.set_weights([kernel, bias])

    def attributions(
        self, tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...], label_id: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """What each token of one document adds to a label's logit, by integrated gradients.

        Args:
          tokens: int64 [1, None], token ids of each text.
          label_id: int64.

        Returns:
          Of each text, float32 [tokens]; 0 for tokens that are not read.
        """
        texts = tokens if isinstance(tokens, tuple) else (tokens,)

        def logit(copies: int) -> tf.Tensor:
            rows = tf.zeros([copies], tf.int32)
            repeated = [tf.gather(text, rows) for text in texts]
            if self.pooling == "label_attention":
                return self._attended(repeated, False, label_id[None])
            vectors = tf.concat([self._vectors(text, False) for text in repeated], axis=1)
            return self._head(vectors, False, label_id[None])

        def without_pieces(ids: tf.Tensor) -> tf.Tensor:
            return tf.where((ids == self._start) | (ids == self._end), ids, self._unknown)

        effects = integrated_gradients(
            self._embeddings, logit, without_pieces=without_pieces, num_calls=len(texts)
        )
        return tuple(map(self._by_token, effects, texts))

    def _by_token(self, effects: tf.Tensor, tokens: tf.RaggedTensor) -> tf.Tensor:
        """float32 [tokens] of effects [windows, longest] of the pieces of a document's windows."""
        places = tf.ragged.range(tokens.row_lengths())[:, : self._max_pieces]
        if self._windows is not None:
            places = self._windows(places).tokens
        pieces = effects[:, 1:]  # without the start
        is_token = tf.sequence_mask(places.row_lengths(), tf.shape(pieces)[1])
        return tf.math.unsorted_segment_sum(
            pieces[is_token], places.flat_values, tf.size(tokens.flat_values)
        )

    def merge_updates(self) -> None:
        """Adds the low-rank updates of `model.lora_rank` to the weights, as an export has them."""
        merge_updates(self._network)

    def _attended(
        self, texts: Sequence[tf.RaggedTensor], training: bool, label_ids: tf.Tensor | None
    ) -> tf.Tensor:
        """Logits by attention over the states of all texts, one text after the other."""
        parts = [self._states_of_all_windows(text, training) for text in texts]
        states, mask = (tf.concat(part, axis=1) for part in zip(*parts, strict=True))
        return self._attention(self._dropouts[0](states, training=training), mask, label_ids)

    def _vectors(self, tokens: tf.RaggedTensor, training: bool) -> tf.Tensor:
        """float32 [batch, dim]: the vectors of one text, by all of its windows."""
        if self._windows is None:
            return self._pooled(*self._states(tokens[:, : self._max_pieces], training))
        windows = self._windows(tokens[:, : self._max_pieces])
        vectors = self._pooled(*self._states(windows.tokens, training))
        if self._window_pooling == "max":
            return windows.max(vectors)
        pieces = windows.tokens.row_lengths() + _SPECIAL_PIECES
        return windows.mean(vectors, tf.cast(pieces, tf.float32))

    def _states_of_all_windows(
        self, tokens: tf.RaggedTensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 [batch, m, dim], and bool [batch, m], true where a piece is."""
        if self._windows is None:
            return self._states(tokens[:, : self._max_pieces], training)
        windows = self._windows(tokens[:, : self._max_pieces])
        states, mask = self._states(windows.tokens, training)
        mask = windows.side_by_side(tf.cast(mask, tf.float32)[:, :, None])[:, :, 0] > 0
        return windows.side_by_side(states), mask

    def _states(self, tokens: tf.RaggedTensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 [n, longest, dim], and bool [n, longest], true where a piece is.

        Args:
          tokens: int64 [n, None], token ids of documents or windows.
          training: whether units are dropped.
        """
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
    part_documents: int | None,
) -> tf.Tensor:
    """What a function makes of a batch, float32 [batch, n], a part of the documents at a time.

    A part has documents of like length, so that little is padded, and memory is that of a part: a
    batch of an evaluation has a thousand documents. Those of training are sorted already, and are
    one part (None).
    """
    texts = tokens if isinstance(tokens, tuple) else (tokens,)
    if part_documents is None:
        return function(texts)
    lengths = tf.reduce_max(tf.stack([text.row_lengths() for text in texts]), axis=0)
    order = tf.argsort(lengths, stable=True)
    texts = [tf.gather(text, order) for text in texts]
    number = tf.maximum(-(-tf.size(order) // part_documents), 1)

    def add(i: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = slice(i * part_documents, (i + 1) * part_documents)
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


def _check_pieces(tokenizer: EncoderTokenizer, encoder: Encoder) -> None:
    rows, pieces = encoder.num_pieces, len(tokenizer.pieces)
    if pieces > rows:
        raise UserError(
            f"model.backbone: the encoder has embeddings of {rows:,} pieces, and its tokenizer has "
            f"{pieces:,}; expected the tokenizer that it was trained with"
        )


def _check_positions(config: PretrainedConfig, encoder: Encoder) -> None:
    longest = encoder.max_tokens
    key = "max_tokens" if config.window is None else "window"
    read = getattr(config, key)
    if longest is not None and read > longest:
        hint = "" if config.window else ", or model.window to read longer documents in windows"
        raise UserError(
            f"model.{key}: received {read}, and the encoder has positions for {longest}; expected "
            f"no more{hint}"
        )


def _set_trainable(config: PretrainedConfig, encoder: Encoder, *, seed: Iterator[int]) -> None:
    wanted, layers = config.trainable_layers, encoder.layers
    if wanted != "all" and wanted > len(layers):
        raise UserError(
            f"model.trainable_layers: received {wanted}, and the encoder has {len(layers)} layers; "
            "expected at most so many, or `all` for these and the embeddings"
        )
    trained = layers if wanted == "all" else layers[len(layers) - wanted :]
    if wanted != "all" or config.lora_rank is not None:
        for layer in encoder.network.layers:
            layer.trainable = layer in trained
    if config.lora_rank is not None:
        add_updates(
            trained,
            rank=config.lora_rank,
            targets=config.lora_targets,
            dim=encoder.dim,
            seed=seed,
        )
    if config.gradient_checkpointing:
        for layer in trained:
            recompute(layer)


def _piece_ids(tokens: Sequence[str], ids: Mapping[str, int], unknown: str) -> np.ndarray:
    """int32 [NUM_SPECIAL_IDS + tokens]: the encoder's id of each token id."""
    return np.array(
        [ids[unknown]] * NUM_SPECIAL_IDS + [ids.get(token, ids[unknown]) for token in tokens],
        np.int32,
    )
