"""Balanced clusters of labels."""

import numpy as np
import pytest

from trainer.models.label_tree import NO_LABEL, cluster_labels, tree_shape


@pytest.mark.parametrize(
    ("labels", "at_most", "shape"),
    [(1, 16, (1, 1)), (16, 16, (1, 16)), (17, 16, (2, 9)), (5153, 16, (512, 11)), (3, 1, (4, 1))],
)
def test_there_are_a_power_of_two_of_clusters_of_a_limited_size(labels, at_most, shape):
    assert tree_shape(labels, at_most) == shape


@pytest.mark.parametrize("labels", [1, 2, 3, 64, 101])
def test_every_label_is_in_one_slot_and_clusters_differ_by_one_label_at_most(labels):
    vectors = np.random.default_rng(0).normal(size=(labels, 4)).astype(np.float32)
    vectors[: labels // 3] = 0  # labels without documents
    num_clusters, size = tree_shape(labels, 5)
    slots = cluster_labels(vectors, num_clusters=num_clusters, seed=0)
    assert slots.shape == (num_clusters, size)
    assert sorted(slots[slots != NO_LABEL]) == list(range(labels))
    assert np.ptp((slots != NO_LABEL).sum(axis=1)) <= 1


def test_equal_seeds_give_equal_clusters_and_others_do_not():
    vectors = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    one, same, other = (cluster_labels(vectors, num_clusters=16, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_labels_with_like_vectors_are_together_whatever_their_length():
    generator = np.random.default_rng(0)
    kind = generator.permutation(np.repeat(np.arange(8), 8))
    centers = np.linalg.qr(generator.normal(size=(16, 16)))[0][:8]
    vectors = centers[kind] + generator.normal(0, 0.02, (64, 16))
    vectors *= generator.uniform(0.1, 1000, (64, 1))
    slots = cluster_labels(vectors.astype(np.float32), num_clusters=8, seed=0)
    assert all(len(set(kind[cluster])) == 1 for cluster in slots)
