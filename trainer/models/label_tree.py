"""A tree of labels: balanced clusters of labels whose documents are alike."""

import numpy as np

NO_LABEL = -1  # in a slot of a cluster that has fewer labels than others

_MAX_ROUNDS = 20  # of one division in two


def tree_shape(num_labels: int, cluster_labels: int) -> tuple[int, int]:
    """The number of clusters, a power of two, and how many labels the largest of them has.

    Args:
      num_labels: 1 or more.
      cluster_labels: the most labels that a cluster may have.
    """
    num_clusters = 1
    while -(-num_labels // num_clusters) > cluster_labels:
        num_clusters *= 2
    return num_clusters, -(-num_labels // num_clusters)


def cluster_labels(vectors: np.ndarray, *, num_clusters: int, seed: int) -> np.ndarray:
    """Divides labels in two again and again, so that labels with like vectors stay together.

    Each division is a 2-means whose two sides have equal sizes (Prabhu et al. 2018, Parabel,
    section 3.1), on vectors of norm 1. So clusters differ by one label at most.

    Args:
      vectors: float32 [labels, dim], of the labels' documents; 0 for a label without any.
      num_clusters: a power of two.
      seed: of the labels that divisions start from.

    Returns:
      int64 [clusters, slots], label ids in rising order, then NO_LABEL. Each label is in one slot.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    parts, level = [np.arange(len(vectors))], 0
    while len(parts) < num_clusters:
        halves = []
        for index, part in enumerate(parts):
            rng = np.random.default_rng([seed, level, index])
            halves += [part[side] for side in _halves(vectors[part], rng)]
        parts, level = halves, level + 1
    slots = np.full((num_clusters, -(-len(vectors) // num_clusters)), NO_LABEL, np.int64)
    for row, part in zip(slots, parts, strict=True):
        row[: len(part)] = np.sort(part)
    return slots


def _halves(vectors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two halves of vectors [n, dim]; the first has one more if n is odd."""
    size = len(vectors)
    half = (size + 1) // 2
    if size < 2:
        return np.arange(half), np.arange(half, size)
    first, second = vectors[rng.choice(size, 2, replace=False)]
    order = None
    for _ in range(_MAX_ROUNDS):
        previous, order = order, np.argsort(vectors @ (second - first), kind="stable")
        if previous is not None and np.array_equal(np.sort(order[:half]), np.sort(previous[:half])):
            break
        first, second = (_mean_direction(vectors[side]) for side in (order[:half], order[half:]))
    return order[:half], order[half:]


def _mean_direction(vectors: np.ndarray) -> np.ndarray:
    mean = vectors.sum(axis=0)
    return mean / max(np.linalg.norm(mean), np.finfo(np.float32).tiny)
