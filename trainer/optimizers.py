"""Optimizers by name, with clipping, weight decay and averages of the weights."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contract.training_config import OptimizerConfig
from trainer import schedules

# Parts of the names of weights that do not decay. Embeddings do not: rows that a batch does not use would.
_NO_WEIGHT_DECAY = ["bias", "gamma", "beta", "embeddings", "positions"]
_ADAMW_WEIGHT_DECAY = 0.004  # that of Keras


def build(config: OptimizerConfig, *, total_steps: int | None = None) -> keras.optimizers.Optimizer:
    """The optimizer that the config section `optimizer` describes.

    Args:
      config: the section.
      total_steps: steps of the whole run; None only where the learning rate does not change.

    Raises:
      ValueError: total_steps is missing.
    """
    kind = _OPTIMIZERS[config.name]
    decay = _ADAMW_WEIGHT_DECAY if config.weight_decay is None and config.name == "adamw" else config.weight_decay
    options: dict[str, Any] = {"learning_rate": schedules.build(config, total_steps=total_steps), "weight_decay": decay or None}
    if config.name == "adamw":
        options["weight_decay"] = decay  # Keras refuses None there
    if config.ema_momentum is not None:
        options |= {"use_ema": True, "ema_momentum": config.ema_momentum}
    if config.clip_norm is not None:
        kind = type(f"Clipped{kind.__name__}", (_ClippingGlobalNorm, kind), {})
        options["clip_norm"] = config.clip_norm
    optimizer = kind(**options)
    optimizer.exclude_from_weight_decay(var_names=_NO_WEIGHT_DECAY)
    return optimizer


@contextlib.contextmanager
def averaged_weights(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Gives the weights their moving averages while it is entered, and then takes the weights back; without averages it does nothing.

    Args:
      optimizer: built with the variables; its steps keep the averages (`ema_momentum`).
      variables: the model's trainable variables.
    """
    if not optimizer.use_ema or not optimizer.iterations.numpy():
        yield
        return
    weights = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, optimizer._model_variables_moving_average, strict=True):
        variable.assign(average.numpy())
    try:
        yield
    finally:
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)


class _ClippingGlobalNorm:
    """Scales an optimizer's gradients down to a global norm (Pascanu et al. 2013, algorithm 1).

    Keras clips what one replica has computed, before the replicas' gradients are summed, and takes no tf.IndexedSlices. Here the norm is
    that of the sum, in which a row that occurs several times counts as one, so it is the same on any number of replicas.
    """

    def __init__(self, *, clip_norm: float, **options):
        super().__init__(**options)
        self._clip_norm = clip_norm

    def _all_reduce_sum_gradients(self, grads_and_vars):
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients = [_with_distinct_rows(gradient) for gradient, _ in pairs]
        norm = tf.linalg.global_norm(gradients)
        scale = self._clip_norm / tf.maximum(norm, self._clip_norm)
        return [(_scaled(gradient, scale), variable) for gradient, (_, variable) in zip(gradients, pairs, strict=True)]


def _with_distinct_rows(gradient):
    """Sums the rows of tf.IndexedSlices that occur several times, as they do with several replicas; other gradients stay as they are."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, positions = tf.unique(gradient.indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(rows)), rows, gradient.dense_shape)


def _scaled(gradient, scale: tf.Tensor):
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * tf.cast(scale, gradient.values.dtype), gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(scale, gradient.dtype)


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
        gradient = _with_distinct_rows(gradient)  # a scatter needs each row once
        rows, values = gradient.indices, gradient.values
        step = tf.cast(self.iterations + 1, values.dtype)
        rate = tf.cast(learning_rate, values.dtype) * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        m = self.beta_1 * tf.gather(momentum.value, rows) + (1 - self.beta_1) * values
        v = self.beta_2 * tf.gather(velocity.value, rows) + (1 - self.beta_2) * tf.square(values)
        self.assign(momentum, tf.IndexedSlices(m, rows))
        self.assign(velocity, tf.IndexedSlices(v, rows))
        self.assign_sub(variable, tf.IndexedSlices(rate * m / (tf.sqrt(v) + self.epsilon), rows))


class RowWiseAdagrad(keras.optimizers.Adagrad):
    """Adagrad with one accumulator for each row of an embedding, of which only the rows that the batch used are touched.

    A row's accumulator sums the mean of its squared gradients (as in torchrec and FBGEMM, `EXACT_ROWWISE_ADAGRAD`), so its state
    is 1 / dim of Adagrad's. Embeddings are the matrices that have `embeddings` in their names; all else is treated as by Adagrad.
    """

    def build(self, variables):
        if self.built:
            return
        super(keras.optimizers.Adagrad, self).build(variables)
        initializer = keras.initializers.Constant(self.initial_accumulator_value)
        self._accumulators = []
        for variable in variables:
            shape = variable.shape[:1] if "embeddings" in variable.name and len(variable.shape) == 2 else variable.shape
            with self._distribution_strategy.extended.colocate_vars_with(variable.value):
                self._accumulators.append(self.add_variable(shape, initializer=initializer, dtype=variable.dtype, name="accumulator"))

    def update_step(self, gradient, variable, learning_rate):
        accumulator = self._accumulators[self._get_variable_index(variable)]
        by_row = len(accumulator.shape) < len(variable.shape)
        if not by_row and not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        if not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.IndexedSlices(gradient, tf.range(tf.shape(gradient)[0]))
        gradient = _with_distinct_rows(gradient)
        rows, values = gradient.indices, gradient.values
        squares = tf.reduce_mean(tf.square(values), axis=1) if by_row else tf.square(values)
        sums = tf.gather(accumulator.value, rows) + squares
        scale = tf.cast(learning_rate, values.dtype) / tf.sqrt(sums + self.epsilon)
        self.assign(accumulator, tf.IndexedSlices(sums, rows))
        self.assign_sub(variable, tf.IndexedSlices((scale[:, None] if by_row else scale) * values, rows))


_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "lazy_adam": LazyAdam,
    "row_adagrad": RowWiseAdagrad,
}
