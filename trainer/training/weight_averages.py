"""Averages of the weights over the last epochs, which are validated, kept and exported."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from trainer.distribution.variables import on_device_of

# How often an epoch the weights are added to their average. Each time costs a pass over all of
# them; after every step, as with Keras's `use_ema`, `bow` takes 2.8 times as long on the bills.
_SAMPLES_PER_EPOCH = 16
_ETA = 3


class AveragedWeights:
    """Keeps an average of the weights, for an optimizer that it is mixed into.

    The weights after every `interval`-th step are samples. At first the n-th weighs 4 / (n + 3) in
    the average and the earlier ones the rest: the average covers about the last quarter of the run
    so far, and nothing of the initial weights (polynomial-decay averaging, Shamir and Zhang 2013,
    Stochastic gradient descent for non-smooth optimization, section 4, with eta = 3). Once that is
    less than 1 / `samples`, it is an exponential average over about the last `samples`.

    Args:
      average_epochs: epochs that the average covers.
      epoch_steps: steps of an epoch.

    Attributes:
      averages: one variable for each of the model's; they are the optimizer's too, so checkpoints
        hold them.
    """

    def __init__(self, *, average_epochs: float, epoch_steps: int, **options):
        super().__init__(**options)
        self._interval = max(1, epoch_steps // _SAMPLES_PER_EPOCH)
        self._samples = max(1.0, average_epochs * epoch_steps / self._interval)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.averages = self.add_optimizer_variables(variables, "average")

    @property
    def has_averages(self) -> bool:
        """Whether there was a sample."""
        return bool(self.iterations.numpy() >= self._interval)

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate):
        super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)
        steps = tf.convert_to_tensor(self.iterations.value) + 1
        number = tf.cast(steps // self._interval, tf.float32)
        rate = tf.maximum((1 + _ETA) / (number + _ETA), 1 / self._samples)

        def move(average, weights, rate):
            with on_device_of(average):
                average.assign_add(tf.cast(rate, weights.dtype) * (weights - average))

        def add_sample():
            for average, variable in zip(self.averages, self._trainable_variables, strict=True):
                distribution.extended.update(
                    average.value, move, args=(variable.value, rate), group=False
                )
            return tf.constant(True)

        tf.cond(steps % self._interval == 0, add_sample, lambda: tf.constant(False))


@contextlib.contextmanager
def averaged_weights(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> Iterator[None]:
    """While entered, the variables hold their averages; afterwards their own values again.

    It does nothing if the optimizer keeps no averages, or has none yet.

    Args:
      optimizer: built with the variables.
      variables: the model's trainable variables.
    """
    if not isinstance(optimizer, AveragedWeights) or not optimizer.has_averages:
        yield
        return
    weights = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, optimizer.averages, strict=True):
        variable.assign(average.numpy())
    try:
        yield
    finally:
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)
