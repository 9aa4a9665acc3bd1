import numpy as np
import pytest
import tensorflow as tf

from tests.pair_matrices import matrix_of
from trainer.metrics.columns import Columns, of_labels, of_pairs
from trainer.metrics.pairs import Pairs


@pytest.fixture
def matrices():
    random = np.random.default_rng(0)
    return random.random((7, 5)) < 0.4, random.random((7, 5)) < 0.4


def test_what_is_counted_of_pairs_is_what_their_matrix_has(matrices):
    left, right = matrices
    pairs, values = Pairs.of(left), np.random.default_rng(1).random((7, 5)).astype(np.float32)
    assert (matrix_of(pairs) == left).all() and Pairs.of(pairs) is pairs
    assert pairs.count_by_column().numpy().tolist() == left.sum(axis=0).tolist()
    assert pairs.count_by_document().numpy().tolist() == left.sum(axis=1).tolist()
    np.testing.assert_array_equal(pairs.values_of(values), values[left])
    np.testing.assert_array_equal(pairs.are_in(Pairs.of(right)), right[left])
    assert (matrix_of(pairs.where(pairs.are_in(Pairs.of(right)))) == (left & right)).all()
    mask = np.float32([1, 0, 1, 1, 0, 1, 1])
    assert (matrix_of(pairs.without_padding(mask)) == left & (mask > 0)[:, None]).all()


def test_no_pairs_are_in_none():
    nothing, some = Pairs.of(np.zeros((2, 3))), Pairs.of(np.ones((2, 3)))
    assert not some.are_in(nothing).numpy().any() and not nothing.are_in(some).shape[0]
    assert nothing.count_by_document().numpy().tolist() == [0, 0]


def test_rows_of_columns_are_pairs_of_their_documents():
    pairs = Pairs.of_rows(tf.constant([[2, 0], [1, 2]]), num_columns=tf.constant(4, tf.int64))
    assert pairs.cells.numpy().tolist() == [[0, 2], [0, 0], [1, 1], [1, 2]]
    assert matrix_of(pairs).sum() == 4


def test_columns_stand_for_their_labels():
    columns = Columns(tf.constant([1, 4, 6], tf.int64), num_labels=8)
    pairs = Pairs.of(np.array([[1, 0, 1], [0, 0, 1]]))
    assert of_pairs(pairs, columns).numpy().tolist() == [1, 6, 6]
    counts = of_labels(pairs.count_by_column(), columns)
    assert counts.numpy().tolist() == [0, 1, 0, 0, 0, 0, 2, 0]
    assert of_labels(tf.ones([3, 2]), columns).numpy().sum(axis=1).tolist() == [
        *(0, 2, 0, 0, 2, 0, 2, 0)
    ]
