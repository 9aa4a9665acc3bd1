"""What every model is built from: statistics of the data, and the run's choices."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.models.pretrained_vectors import PretrainedVectors


@dataclasses.dataclass(frozen=True)
class VocabularyStatistics:
    """What a model depends on in the vocabulary.

    Attributes:
      size: number of tokens in the vocabulary.
      document_counts: int64 [size], the train documents that contain each token.
      num_documents: number of train documents.
      tokens: the vocabulary itself; only pretrained vectors need it.
      ngrams: of each n-gram of the vocabulary, the indices of its tokens in it.
      ngram_document_counts: int64 [n-grams], the train documents that contain each.
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
    """What a model is built from, beside its own options.

    A model is a function of the token ids that returns logits:

        model(tokens, training=False) -> float32 [batch, num_labels]

    `tokens` is a tf.RaggedTensor int64 [batch, None]; a document may be empty. Id 1 is a token out
    of the vocabulary, id 2 is the vocabulary's first token, 0 does not occur. Where documents have
    several texts, it is a tuple of `num_texts` such tensors.

    For `loss.negatives: sampled` the model's `call` has one more parameter,

        call(tokens, training=False, label_ids=None)

    in which distinct label ids, int64 [n], may be given: it then returns the logits of these labels
    alone, float32 [batch, n], in their order.

    Attributes:
      vocabulary: the train split's vocabulary.
      num_labels: number of labels.
      output_bias: float32 [labels], the initial bias of the logits: the labels' log-odds in the
        train split.
      seed: of every initial weight and of dropout.
      vectors: pretrained vectors of the vocabulary's tokens; None: there are none.
      num_texts: texts of a document.
      sizes: of a model whose fit decides the sizes of its variables (`linear`), as fitted; empty:
        it is not fitted yet.
    """

    vocabulary: VocabularyStatistics
    num_labels: int
    output_bias: np.ndarray
    seed: int
    vectors: PretrainedVectors | None = None
    num_texts: int = 1
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
