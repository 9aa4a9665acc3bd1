"""Averages of the weights, on a variable that each step moves by its gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.training.optimizers import build_optimizer
from trainer.training.weight_averages import averaged_weights


def _run(steps, *, average_epochs, epoch_steps):
    """The optimizer, its variable, the weights after each step and the average after each step."""
    config = OptimizerConfig(name="sgd", learning_rate=1.0, average_epochs=average_epochs)
    optimizer = build_optimizer(config, epoch_steps=epoch_steps)
    variable = keras.Variable(np.full(1, 100, np.float32))
    optimizer.build([variable])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    weights, averages = [], []
    for gradient in np.random.default_rng(0).normal(size=(steps, 1)).astype(np.float32):
        step(tf.constant(gradient))
        weights.append(variable.numpy()[0])
        with averaged_weights(optimizer, [variable]):
            averages.append(variable.numpy()[0])
        assert variable.numpy()[0] == weights[-1]
    return optimizer, variable, weights, averages


def test_the_average_covers_the_last_quarter_at_first_and_then_the_last_epochs():
    # 4 steps an epoch: every step is a sample, and 8 samples are 2 epochs.
    *_, weights, averages = _run(60, average_epochs=2, epoch_steps=4)
    assert averages[0] == weights[0]  # nothing is left of the initial 100
    expected = 0.0
    for n, (weight, average) in enumerate(zip(weights, averages, strict=True), 1):
        expected += max(4 / (n + 3), 1 / 8) * (weight - expected)
        assert average == pytest.approx(expected, rel=1e-6)


def test_long_epochs_are_sampled_sixteen_times():
    *_, weights, averages = _run(12, average_epochs=1, epoch_steps=64)
    # Before the first sample there is no average.
    np.testing.assert_array_equal(averages[:3], weights[:3])
    np.testing.assert_allclose(averages[3:7], [weights[3]] * 4, rtol=1e-6)
    second = 0.2 * weights[3] + 0.8 * weights[7]
    np.testing.assert_allclose(averages[7:11], [second] * 4, rtol=1e-6)


def test_the_average_is_taken_back_after_an_error():
    optimizer, variable, weights, averages = _run(3, average_epochs=1, epoch_steps=4)
    with pytest.raises(RuntimeError), averaged_weights(optimizer, [variable]):
        assert variable.numpy()[0] == averages[-1] != weights[-1]
        raise RuntimeError
    assert variable.numpy()[0] == weights[-1]


def test_checkpoints_hold_the_average():
    optimizer, *_ = _run(2, average_epochs=1, epoch_steps=4)
    assert sum(variable is optimizer.averages[0] for variable in optimizer.variables) == 1


def test_without_averages_the_weights_stay():
    *_, weights, averages = _run(2, average_epochs=None, epoch_steps=None)
    assert weights == averages


def test_averages_need_the_length_of_an_epoch():
    with pytest.raises(ValueError, match="received no epoch_steps"):
        build_optimizer(OptimizerConfig(average_epochs=1.0))
