"""How much more the positives of rare labels may weigh. Nothing here imports TensorFlow."""

import numpy as np

# A label without positives, or without negatives, counts as if it had half a document of them.
MIN_COUNT = 0.5


def fourth_root_weights(positives: np.ndarray | int, num_documents: int) -> np.ndarray:
    """The fourth root of negatives / positives, at least 1; float64, of the shape of `positives`.

    Args:
      positives: train documents with a label.
      num_documents: number of train documents.
    """
    ratio = (num_documents - positives) / np.maximum(positives, MIN_COUNT)
    return np.maximum(ratio**0.25, 1)
