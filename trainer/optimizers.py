"""Optimizers by name."""

import keras
import tensorflow as tf

from beam_jobs.contract.config import OptimizerConfig


def build(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """The optimizer that the config section `optimizer` describes."""
    return _OPTIMIZERS[config.name](learning_rate=config.learning_rate)


class LazyAdam(keras.optimizers.Adam):
    """Adam that updates only the rows of an embedding that the batch used.

    Where a gradient is a tf.IndexedSlices, the moments and weights of the rows it names change as in
    Adam and the others stay as they are; Adam itself decays the moments of every row at each step and moves
    rows that no document used. Other gradients are treated as by Adam.
    """

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        # A row comes once from each replica, and a scatter needs each row once.
        rows, positions = tf.unique(gradient.indices)
        values = tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(rows))
        step = tf.cast(self.iterations + 1, values.dtype)
        rate = tf.cast(learning_rate, values.dtype) * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        m = self.beta_1 * tf.gather(momentum.value, rows) + (1 - self.beta_1) * values
        v = self.beta_2 * tf.gather(velocity.value, rows) + (1 - self.beta_2) * tf.square(values)
        self.assign(momentum, tf.IndexedSlices(m, rows))
        self.assign(velocity, tf.IndexedSlices(v, rows))
        self.assign_sub(variable, tf.IndexedSlices(rate * m / (tf.sqrt(v) + self.epsilon), rows))


_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "lazy_adam": LazyAdam,
}
