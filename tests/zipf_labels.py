"""Labels as frequent as those of real datasets."""

import numpy as np


def made_labels(documents: int, labels: int, seed: int) -> list[list[int]]:
    """One to five labels a document, whose frequencies follow Zipf's law."""
    rng = np.random.default_rng(seed)
    probabilities = 1 / np.arange(1, labels + 1)
    sizes = rng.integers(1, 6, documents)
    flat = rng.choice(labels, sizes.sum(), p=probabilities / probabilities.sum())
    return [np.unique(row).tolist() for row in np.split(flat, np.cumsum(sizes)[:-1])]
