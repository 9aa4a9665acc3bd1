"""Pairs of documents and labels as the matrices that tests compare."""

import numpy as np

from trainer.metrics.pairs import Pairs


def matrix_of(pairs: Pairs) -> np.ndarray:
    """bool [documents, labels]."""
    documents, columns = pairs.documents.numpy(), pairs.columns.numpy()
    matrix = np.zeros((int(pairs.num_documents), int(pairs.num_columns)), bool)
    matrix[documents, columns] = True
    assert matrix.sum() == len(documents), "a pair occurs twice"
    return matrix
