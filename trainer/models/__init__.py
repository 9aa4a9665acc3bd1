"""Model architectures, one file each, that map token ids to logits [batch, labels].

A custom model is the return value of a function `build(options, inputs)`, which the config names:
`options` is the dict `model.options`, `inputs` a `ModelInputs`, which also says how a model is
called:

    def build(options: dict, inputs: ModelInputs) -> keras.Model: ...
"""

import dataclasses
import functools
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract import user_code
from beam_jobs.contract.encoder_tokenizer import EncoderTokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.model import CustomConfig, ModelConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.models.backbones import Encoder
from trainer.models.bow import BagOfEmbeddings
from trainer.models.bow_lwan import BagWithLabelAttention
from trainer.models.bow_tree import BagWithLabelTree
from trainer.models.cnn import ConvolutionalNetwork
from trainer.models.cnn_lwan import LabelAttentionNetwork
from trainer.models.inputs import ModelInputs, VocabularyStatistics
from trainer.models.linear import LinearClassifier
from trainer.models.lstm import LstmNetwork
from trainer.models.mlp import MultilayerPerceptron
from trainer.models.pretrained import PretrainedEncoder
from trainer.models.pretrained_vectors import PretrainedVectors, coverage_text, load_vectors
from trainer.models.towers import Towers
from trainer.models.transformer import TransformerEncoder

__all__ = ["ModelInputs", "VocabularyStatistics", "build_model"]

_ARCHITECTURES = {
    "bow": BagOfEmbeddings,
    "mlp": MultilayerPerceptron,
    "cnn": ConvolutionalNetwork,
    "lstm": LstmNetwork,
    "cnn_lwan": LabelAttentionNetwork,
    "bow_lwan": BagWithLabelAttention,
    "bow_tree": BagWithLabelTree,
    "transformer": TransformerEncoder,
}
# They take all texts of a document themselves; of the others there is a tower for each text.
_OF_SEVERAL_TEXTS = {"bow_lwan", "bow_tree"}


def build_model(
    config: ModelConfig,
    *,
    vocabulary: VocabularyStatistics,
    num_labels: int,
    output_bias: np.ndarray,
    seed: int,
    num_texts: int = 1,
    with_pretrained: bool = True,
    sizes: Mapping[str, int] | None = None,
    encoder: Encoder | None = None,
    tokenizer: EncoderTokenizer | None = None,
) -> keras.Model:
    """Builds the model that `config.name` names, with all its variables.

    Args:
      config: the config section `model`.
      vocabulary: the statistics of the train split's vocabulary.
      num_labels: number of labels.
      output_bias: float32 [labels], the initial bias of the logits, see `losses.output_bias`.
      seed: of every initial weight and of dropout; equal seeds give equal models.
      num_texts: texts of a document.
      with_pretrained: read `config.pretrained_vectors` and print how much of the vocabulary they
        cover; False where a checkpoint is to be restored, which holds them.
      sizes: `ModelInputs.sizes`.
      encoder: of `pretrained`.
      tokenizer: the encoder's.

    Returns:
      The model, see `ModelInputs`.

    Raises:
      ValueError: document counts, tokens or bias do not fit the sizes given.
      UserError: the file of vectors cannot be used, or a custom model cannot be built or gives no
        such logits.
    """
    _check_sizes(vocabulary, num_labels, output_bias)
    inputs = ModelInputs(vocabulary, num_labels, output_bias, seed, num_texts=num_texts)
    if isinstance(config, CustomConfig):
        return _build_custom(config, inputs)
    if isinstance(config, LinearConfig):
        return LinearClassifier(dataclasses.replace(inputs, sizes=sizes or {}))
    if isinstance(config, PretrainedConfig):
        return PretrainedEncoder(config, inputs, encoder=encoder, tokenizer=tokenizer)
    if config.pretrained_vectors is not None:
        vectors = _vectors(config, vocabulary, with_pretrained)
        inputs = dataclasses.replace(inputs, vectors=vectors)
    architecture = functools.partial(_ARCHITECTURES[config.name], config)
    if num_texts == 1 or config.name in _OF_SEVERAL_TEXTS:
        return architecture(inputs)
    return Towers(architecture, inputs)


def _check_sizes(
    vocabulary: VocabularyStatistics, num_labels: int, output_bias: np.ndarray
) -> None:
    if vocabulary.document_counts.shape != (vocabulary.size,):
        raise ValueError(
            f"received document_counts of shape {vocabulary.document_counts.shape}, expected "
            f"({vocabulary.size},), one a token"
        )
    if output_bias.shape != (num_labels,):
        raise ValueError(
            f"received output_bias of shape {output_bias.shape}, expected ({num_labels},), one a "
            "label"
        )


def _vectors(
    config: ModelConfig, vocabulary: VocabularyStatistics, with_pretrained: bool
) -> PretrainedVectors:
    if not with_pretrained:
        # The model must have the same variables as one with vectors; a checkpoint sets their
        # values.

        return PretrainedVectors(
            np.zeros((vocabulary.size, config.embedding_dim), np.float32),
            np.zeros(vocabulary.size, bool),
            [],
        )
    if len(vocabulary.tokens) != vocabulary.size:
        raise ValueError(
            f"received {len(vocabulary.tokens)} tokens, expected {vocabulary.size}: pretrained "
            "vectors need the vocabulary itself"
        )
    vectors = load_vectors(config.pretrained_vectors, vocabulary.tokens, dim=config.embedding_dim)
    print(coverage_text(config.pretrained_vectors, vectors, vocabulary.document_counts), flush=True)
    return vectors


def _build_custom(config: CustomConfig, inputs: ModelInputs) -> keras.Model:
    """Calls `build(options, inputs)`, and tries the model on two documents, one of them empty."""
    model = user_code.load(config.build, key="model.build")(config.options, inputs)
    if not isinstance(model, keras.Model):
        raise UserError(
            f"model.build: {config.build} returned {type(model).__name__}, expected a keras.Model"
        )
    tokens = tf.RaggedTensor.from_row_lengths(
        tf.constant([1, 2], tf.int64), tf.constant([2, 0], tf.int64)
    )
    logits = model(
        tokens if inputs.num_texts == 1 else (tokens,) * inputs.num_texts, training=False
    )
    expected = f"tf.float32 [2, {inputs.num_labels}]"
    if not tf.is_tensor(logits) or f"{logits.dtype!r} {logits.shape.as_list()}" != expected:
        received = (
            f"{logits.dtype!r} {logits.shape.as_list()}"
            if tf.is_tensor(logits)
            else type(logits).__name__
        )
        raise UserError(
            f"model.build: the model of {config.build} gives {received} for two documents and "
            f"{inputs.num_labels} labels, expected {expected}"
        )
    if not np.isfinite(logits).all():
        raise UserError(
            f"model.build: the model of {config.build} gives {logits.numpy().tolist()} for [1, 2] "
            "and an empty document, expected finite logits"
        )
    return model
