"""Which row each value of a ragged tensor is in."""

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.ragged import row_ids


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [3], [0, 2, 0, 0, 3, 1, 0]])
def test_the_rows_of_values_are_those_of_tensorflow(lengths, dtype):
    values = tf.zeros([sum(lengths)])
    ragged = tf.RaggedTensor.from_row_lengths(values, np.array(lengths, dtype))
    expected = np.repeat(np.arange(len(lengths)), lengths)
    for function in (row_ids, tf.function(row_ids)):
        assert function(ragged).numpy().tolist() == expected.tolist()
        assert function(ragged).dtype == ragged.value_rowids().dtype
