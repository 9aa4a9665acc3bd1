"""One-vs-rest linear classifiers over TF-IDF, with sparse weights."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.models.char_bags import CharBags, CharNgrams
from trainer.models.inputs import ModelInputs, VocabularyStatistics
from trainer.models.layers import NUM_SPECIAL_IDS, constant_weight
from trainer.models.sparse_rows import positions_of_rows
from trainer.models.term_bags import Ngrams, TermBags, smooth_idf

# Documents whose logits are computed at a time: it bounds the memory of their weights' products.
_CHUNK_DOCUMENTS = 64
# Of words and of characters where there are both, so that a document's weights have L2 norm 1.
SCALE_OF_BOTH = float(np.sqrt(0.5))
_OUT_OF_VOCABULARY = 1  # it parts the texts of a document, so that no n-gram spans two of them


@dataclasses.dataclass(frozen=True)
class FeatureTables:
    """What `LinearFeatures` looks terms up in, beside the vocabulary's tokens.

    Attributes:
      ngrams: exact n-grams of tokens.
      characters: n-grams of characters; None: there are none.
    """

    ngrams: Ngrams
    characters: CharNgrams | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """What `empty` needs to make tables of the same shapes."""
        sizes = {"ngrams": len(self.ngrams.codes), "max_ngram_size": self.ngrams.max_size}
        if self.characters is not None:
            sizes |= {
                "char_ngrams": len(self.characters.idf),
                "char_cells": len(self.characters.ids),
            }
        return sizes

    @classmethod
    def empty(cls, sizes: Mapping[str, int], vocabulary: VocabularyStatistics) -> "FeatureTables":
        """Tables of zeros, whose values a checkpoint sets."""
        num_ngrams, characters = sizes.get("ngrams", 0), None
        ngrams = Ngrams(
            np.zeros(num_ngrams, np.int64),
            np.zeros(num_ngrams, np.float32),
            sizes.get("max_ngram_size", 1),
        )
        if "char_ngrams" in sizes:
            characters = CharNgrams(
                np.zeros(NUM_SPECIAL_IDS + vocabulary.size + 1, np.int64),
                np.zeros(sizes["char_cells"], np.int32),
                np.zeros(sizes["char_cells"], np.float32),
                np.zeros(sizes["char_ngrams"], np.float32),
            )
        return cls(ngrams, characters)


class LinearFeatures(keras.layers.Layer):
    """Token ids -> the weighted terms of each document: tokens, n-grams and character n-grams.

    The weights of the terms of words (`TermBags`) have L2 norm 1, those of character n-grams
    (`CharBags`) too; where there are both, all are divided by the root of 2.
    """

    def __init__(self, vocabulary: VocabularyStatistics, tables: FeatureTables):
        super().__init__(name="features", dtype="float32")
        idf = smooth_idf(vocabulary.document_counts, vocabulary.num_documents)
        self._words = TermBags(idf, bigram_buckets=0, ngrams=tables.ngrams)
        self._characters = None if tables.characters is None else CharBags(tables.characters)
        self._scale = 1.0 if self._characters is None else SCALE_OF_BOTH
        self.num_rows = self._words.num_rows
        if self._characters is not None:
            self.num_rows += self._characters.num_rows
        self.built = True

    def call(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct terms of each document.

        Args:
          tokens: int64 [batch, None], token ids.

        Returns:
          (int64, documents; int64, the terms' rows; float32, their weights), all [terms]. Those of
          words come first, then those of characters, each by document.
        """
        kinds = [self._words.weighted_terms(tokens)]
        if self._characters is not None:
            documents, ids, weights = self._characters.weighted_terms(tokens)
            kinds.append((documents, self._words.num_rows + ids, weights))
        documents, rows, weights = (tf.concat(parts, axis=0) for parts in zip(*kinds, strict=True))
        return documents, rows, weights * self._scale

    def shares(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The share that each token of one document has in the weights of its terms.

        Returns:
          (int64, tokens; int64, the terms' rows; float32, shares), all [cells]. Summed over the
          tokens, the shares are the weights of `call`.
        """
        rows, shares = self._words.shares(tokens)
        kinds = [(shares.indices[:, 0], tf.gather(rows, shares.indices[:, 1]), shares.values)]
        if self._characters is not None:
            owners, ids, values = self._characters.shares(tokens)
            kinds.append((owners, self._words.num_rows + ids, values))
        owners, rows, values = (tf.concat(parts, axis=0) for parts in zip(*kinds, strict=True))
        return owners, rows, values * self._scale


@dataclasses.dataclass(frozen=True)
class SparseWeights:
    """The weights of terms and labels, CSR by term, and the labels' biases.

    Attributes:
      row_splits: int64 [terms + 1].
      label_ids: int32 [weights].
      values: float32 [weights].
      bias: float32 [labels].
    """

    row_splits: np.ndarray
    label_ids: np.ndarray
    values: np.ndarray
    bias: np.ndarray


class LinearClassifier(keras.Model):
    """Logits = b + sum over terms of weight * w(term, label), see `LinearFeatures`.

    Most w are 0 and not stored. `trainer.linear` fits them; nothing is trained by steps. Before
    that, and for a document without a known term, the logits are the bias. The texts of a document
    are read as one.

    Args:
      inputs: `sizes` are those of the fitted tables, see `FeatureTables.sizes`, with `weights`,
        how many weights are stored; without them there are only tokens and no weights.
      tables: what terms are looked up in; None: tables of zeros, for a checkpoint to set.
      weights: None: zeros, likewise.
    """

    def __init__(
        self,
        inputs: ModelInputs,
        tables: FeatureTables | None = None,
        weights: SparseWeights | None = None,
    ):
        super().__init__(name="linear")
        if tables is None:
            tables = FeatureTables.empty(inputs.sizes, inputs.vocabulary)
        self.features = LinearFeatures(inputs.vocabulary, tables)
        if weights is None:
            num_weights = inputs.sizes.get("weights", 0)
            weights = SparseWeights(
                np.zeros(self.features.num_rows + 1, np.int64),
                np.zeros(num_weights, np.int32),
                np.zeros(num_weights, np.float32),
                inputs.output_bias,
            )
        self.sizes = tables.sizes | {"weights": len(weights.values)}
        if not len(weights.values):
            # One that no row refers to: broadcasting an empty variable to other workers ends the
            # process (TensorFlow 2.21).
            weights = dataclasses.replace(
                weights, label_ids=np.zeros(1, np.int32), values=np.zeros(1, np.float32)
            )
        self._num_labels = len(weights.bias)
        self._row_splits = constant_weight(self, "row_splits", weights.row_splits)
        self._label_ids = constant_weight(self, "label_ids", weights.label_ids)
        # A matrix of one column, because matrices are what `export.weights` stores in half.
        self._values = constant_weight(self, "values", weights.values[:, np.newaxis])
        self._bias = constant_weight(self, "bias", weights.bias)
        self.built = True

    def call(
        self,
        tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...],
        training: bool = False,
        label_ids: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, None], see `ModelInputs`."""
        tokens = one_text(tokens)
        chunks = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)
        num_documents = tokens.nrows()
        num_chunks = tf.cast(tf.maximum(-(-num_documents // _CHUNK_DOCUMENTS), 1), tf.int32)

        def chunk(i, chunks):
            first = tf.cast(i, tf.int64) * _CHUNK_DOCUMENTS
            part = tokens[first : tf.minimum(first + _CHUNK_DOCUMENTS, num_documents)]
            return i + 1, chunks.write(i, self._logits(part))

        _, chunks = tf.while_loop(lambda i, _: i < num_chunks, chunk, (0, chunks))
        logits = tf.ensure_shape(chunks.concat(), [None, self._num_labels])
        return logits if label_ids is None else tf.gather(logits, label_ids, axis=1)

    def _logits(self, tokens: tf.RaggedTensor) -> tf.Tensor:
        documents, rows, weights = self.features(tokens)
        return self._sums(documents, rows, weights, tokens.nrows()) + self._bias.value

    def _sums(
        self, owners: tf.Tensor, rows: tf.Tensor, factors: tf.Tensor, num_owners: tf.Tensor
    ) -> tf.Tensor:
        """Each owner's sum of factor * weight by label, float32 [owners, labels].

        Args:
          owners: int64 [n], of documents or of tokens.
          rows: int64 [n], terms.
          factors: float32 [n].
          num_owners: int64 [].
        """
        index, positions = positions_of_rows(self._row_splits.value, rows)
        products = tf.gather(factors, index) * tf.gather(self._values.value, positions)[:, 0]
        labels = tf.cast(tf.gather(self._label_ids.value, positions), tf.int64)
        cells = tf.gather(owners, index) * self._num_labels + labels
        sums = tf.math.unsorted_segment_sum(products, cells, num_owners * self._num_labels)
        return tf.reshape(sums, [num_owners, self._num_labels])

    def contributions(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What each token of one document adds to the logits.

        Returns:
          (float32 [tokens, labels], float32 [labels], the bias). Their sum is the logits.
        """
        owners, rows, shares = self.features.shares(tokens)
        num_tokens = tf.size(tokens.flat_values, tf.int64)
        return self._sums(owners, rows, shares, num_tokens), self._bias.value + 0.0


def one_text(tokens: tf.RaggedTensor | tuple[tf.RaggedTensor, ...]) -> tf.RaggedTensor:
    """The token ids of all texts of each document, with an unknown token between two texts."""
    if isinstance(tokens, tf.RaggedTensor):
        return tokens
    parts = [tokens[0]]
    for text in tokens[1:]:
        gap = tf.fill([text.nrows(), 1], tf.constant(_OUT_OF_VOCABULARY, tf.int64))
        parts += [tf.RaggedTensor.from_tensor(gap, row_splits_dtype=tf.int64), text]
    return tf.concat(parts, axis=1)
