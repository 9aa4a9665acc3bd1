"""What every architecture is built from."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.models.pretrained_vectors import PretrainedVectors


@dataclasses.dataclass(frozen=True)
class VocabularyStatistics:
    """What a model needs to know of the vocabulary.

    Attributes:
      size: number of tokens in the vocabulary.
      document_counts: int64 [size], in how many train documents each token stands.
      num_documents: number of train documents.
      tokens: the vocabulary itself; only pretrained vectors need it.
      ngrams: the n-grams of the vocabulary: places of their tokens in it.
      ngram_document_counts: int64 [n-grams], in how many train documents each stands.
    """

    size: int
    document_counts: np.ndarray
    num_documents: int
    tokens: Sequence[str] = ()
    ngrams: Sequence[tuple[int, ...]] = ()
    ngram_document_counts: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int64)
    )


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """What the data and the run decide of a model.

    Attributes:
      vocabulary: the train split's vocabulary. Token id 1 is out of vocabulary, 2 is the vocabulary's first token.
      num_labels: number of labels.
      output_bias: float32 [labels], the logits' first bias.
      seed: decides every initial weight and the dropout.
      vectors: pretrained vectors of the vocabulary's tokens, if there are any.
      num_texts: texts of a document; a model is called with a tuple of as many token ids where there are several.
    """

    vocabulary: VocabularyStatistics
    num_labels: int
    output_bias: np.ndarray
    seed: int
    vectors: PretrainedVectors | None = None
    num_texts: int = 1
