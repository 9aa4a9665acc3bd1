"""Model architectures, one file each. All map token ids to logits [batch, labels]."""

import dataclasses

import keras
import numpy as np

from beam_jobs.contract.config import ModelConfig
from trainer.models import bow


@dataclasses.dataclass(frozen=True)
class VocabularyStatistics:
    """What a model needs to know of the vocabulary.

    Attributes:
      size: number of tokens in the vocabulary.
      document_counts: int64 [size], in how many train documents each token stands.
      num_documents: number of train documents.
    """

    size: int
    document_counts: np.ndarray
    num_documents: int


def build_model(config: ModelConfig, *, vocabulary: VocabularyStatistics, num_labels: int, output_bias: np.ndarray, seed: int) -> keras.Model:
    """Builds the model that `config.name` names, with all its variables created.

    Args:
      config: the config section `model`.
      vocabulary: the statistics of the train split's vocabulary.
      num_labels: number of labels.
      output_bias: float32 [labels], the logits' first bias, see `losses.output_bias`.
      seed: decides every initial weight and the dropout; equal seeds give equal models.

    Returns:
      A model to be called as `model(tokens, training=bool)`. `tokens` is a tf.RaggedTensor
      [batch, None] int64 of ids: 1 is out of vocabulary, 2 is the vocabulary's first token.
      The logits are float32 [batch, labels].

    Raises:
      ValueError: document counts or bias do not fit the sizes given.
    """
    if vocabulary.document_counts.shape != (vocabulary.size,):
        raise ValueError(f"received document_counts of shape {vocabulary.document_counts.shape}, expected ({vocabulary.size},), one a token")
    if output_bias.shape != (num_labels,):
        raise ValueError(f"received output_bias of shape {output_bias.shape}, expected ({num_labels},), one a label")
    builders = {"bow": bow.build}
    return builders[config.name](
        config,
        document_counts=vocabulary.document_counts,
        num_documents=vocabulary.num_documents,
        num_labels=num_labels,
        output_bias=output_bias,
        seed=seed,
    )
