"""A split in memory: the token ids and labels of its documents."""

from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import token_ids
from trainer.data.records import read_records
from trainer.models.linear import one_text


class Documents(NamedTuple):
    """The documents of a split, their texts read as one.

    Attributes:
      tokens: int32 [tokens], the token ids of all documents, one after the other.
      row_splits: int64 [documents + 1], where each document's begin.
      labels: float32 CSR [documents, labels], of ones.
      weights: float32 [documents], the documents' weights in the loss.
    """

    tokens: np.ndarray
    row_splits: np.ndarray
    labels: scipy.sparse.csr_matrix
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    def batch(self, first: int, last: int) -> tf.RaggedTensor:
        """The token ids of some documents, int64 [documents, None]."""
        splits = self.row_splits[first : last + 1]
        tokens = self.tokens[splits[0] : splits[-1]].astype(np.int64)
        return tf.RaggedTensor.from_row_splits(tokens, splits - splits[0], validate=False)

    @property
    def document_of_token(self) -> np.ndarray:
        """int64 [tokens]."""
        return np.repeat(np.arange(len(self)), np.diff(self.row_splits))


def read_documents(
    dataset: Dataset,
    split: str,
    vectorizer: keras.layers.TextVectorization,
    *,
    skip_corrupt: bool = False,
) -> Documents:
    """Reads a split in its own order.

    Args:
      dataset: the dataset.
      split: the split.
      vectorizer: analyzed strings -> token ids.
      skip_corrupt: leave out what follows a corrupt record in its shard.

    Raises:
      UserError: a shard is corrupt.
    """
    names = dataset.record_spec.text_names
    tokens, lengths = [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    label_ids, label_lengths = [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    weights = [np.zeros(0, np.float32)]
    for records in read_records(
        dataset, split, [*names, "labels", "weight"], skip_corrupt=skip_corrupt
    ):
        texts = one_text(token_ids(vectorizer, [tf.constant(records[name]) for name in names]))
        tokens.append(texts.flat_values.numpy().astype(np.int32))
        lengths.append(texts.row_lengths().numpy())
        label_ids.append(records["labels"].values.numpy().astype(np.int32))
        label_lengths.append(records["labels"].row_lengths().numpy())
        weights.append(records["weight"])
    label_ids, row_splits = np.concatenate(label_ids), np.cumsum(np.concatenate(label_lengths))
    labels = scipy.sparse.csr_matrix(
        (np.ones(len(label_ids), np.float32), label_ids, row_splits),
        shape=(len(row_splits) - 1, dataset.num_labels),
    )
    return Documents(
        np.concatenate(tokens),
        np.cumsum(np.concatenate(lengths)),
        labels,
        np.concatenate(weights),
    )
