import subprocess
import sys
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.config import OptimizerConfig
from trainer import optimizers

NAMES = get_args(OptimizerConfig.model_fields["name"].annotation)


def _descend(optimizer, steps=3, gradients=None):
    """Weights after some steps on gradients that differ from step to step."""
    weights = keras.Variable(np.linspace(-1, 1, 6).reshape(3, 2), dtype="float32")
    optimizer.build([weights])
    for step in range(steps):
        gradient = gradients[step] if gradients else tf.fill([3, 2], 0.1 + step) * tf.sign(weights.value)
        optimizer.apply([gradient], [weights])
    return weights.numpy()


def test_each_name_is_another_optimizer():
    results = {name: _descend(optimizers.build(OptimizerConfig(name=name, learning_rate=0.1))) for name in NAMES}
    for a in NAMES:
        for b in NAMES:
            # On dense gradients lazy Adam is Adam, by design.
            assert np.allclose(results[a], results[b], atol=1e-6) == (a.removeprefix("lazy_") == b.removeprefix("lazy_")), (a, b)


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_scales_the_first_step(name):
    steps = [_descend(optimizers.build(OptimizerConfig(name=name, learning_rate=rate)), steps=1) for rate in (1e-3, 2e-3)]
    start = np.linspace(-1, 1, 6).reshape(3, 2)
    np.testing.assert_allclose(steps[1] - start, 2 * (steps[0] - start), rtol=1e-2)


def test_lazy_adam_equals_adam_when_every_row_is_in_every_step():
    generator = np.random.default_rng(0)
    dense = [tf.constant(generator.normal(size=(3, 2)), tf.float32) for _ in range(5)]
    slices = [tf.IndexedSlices(tf.gather(g, [2, 0, 1]), tf.constant([2, 0, 1], tf.int64), dense_shape=tf.constant([3, 2])) for g in dense]
    lazy, adam = optimizers.LazyAdam(0.1), keras.optimizers.Adam(0.1)
    np.testing.assert_allclose(_descend(lazy, 5, slices), _descend(adam, 5, dense), rtol=1e-5)
    for a, b in zip(lazy.variables, adam.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_lazy_adam_leaves_rows_outside_the_batch_alone():
    gradient = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1], tf.int64), dense_shape=tf.constant([3, 2]))
    optimizer = optimizers.LazyAdam(0.1)
    before, after = np.linspace(-1, 1, 6).reshape(3, 2).astype(np.float32), _descend(optimizer, 3, [gradient] * 3)
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(after[1], before[1] - 0.3, rtol=1e-4)


def test_lazy_adam_sums_the_gradients_of_a_repeated_row():
    def slices(rows, values):
        return tf.IndexedSlices(tf.constant(values), tf.constant(rows, tf.int64), dense_shape=tf.constant([3, 2]))

    repeated = [slices([1, 0, 1], [[1.0, 2.0], [3.0, 3.0], [5.0, -4.0]]), slices([0], [[1.0, 1.0]])]
    summed = [slices([1, 0], [[6.0, -2.0], [3.0, 3.0]]), slices([0], [[1.0, 1.0]])]
    np.testing.assert_allclose(_descend(optimizers.LazyAdam(0.1), 2, repeated), _descend(optimizers.LazyAdam(0.1), 2, summed), rtol=1e-6)


def test_lazy_adam_on_two_replicas_equals_one_device_with_the_sum():
    program = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from trainer.optimizers import LazyAdam

def train(strategy, rows_of_replica):
    with strategy.scope():
        weights, optimizer = keras.Variable(np.ones((4, 2), np.float32)), LazyAdam(0.1)
        optimizer.build([weights])
    def step(rows):
        values = tf.cast(rows, tf.float32)[:, None] * [[1.0, -2.0]] + 1
        optimizer.apply([tf.IndexedSlices(values, rows, tf.constant([4, 2]))], [weights])
    run = tf.function(lambda rows: strategy.run(step, (rows,)))
    for _ in range(3):
        rows_of = lambda context: tf.constant(rows_of_replica[context.replica_id_in_sync_group], tf.int64)
        run(strategy.experimental_distribute_values_from_function(rows_of))
    return weights.numpy()

two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), [[0, 1], [1, 3]])
one = train(tf.distribute.OneDeviceStrategy("CPU:0"), [[0, 1, 1, 3]])
np.testing.assert_allclose(two, one, rtol=1e-6)
assert (one[2] == 1).all() and (one[[0, 1, 3]] != 1).all()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
