"""Optimizers by name, with clipping, weight decay, loss scaling and averages of the weights."""

from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.distribution.variables import computed_where, gather_rows, on_device_of
from trainer.training.group_rates import GroupRates, rate_factors
from trainer.training.schedules import build_schedule
from trainer.training.sparse_gradients import with_distinct_rows
from trainer.training.weight_averages import AveragedWeights

# Parts of the names of weights that do not decay. Embeddings do not, because the rows that a batch
# does not use would decay as well.
_NO_WEIGHT_DECAY = ["bias", "gamma", "beta", "embeddings", "positions"]
_ADAMW_WEIGHT_DECAY = 0.004  # Keras's default
# Both as in Keras's LossScaleOptimizer.
_INITIAL_LOSS_SCALE = 2.0**15
_LOSS_SCALE_GROWTH_STEPS = 2000


def build_optimizer(
    config: OptimizerConfig,
    *,
    total_steps: int | None = None,
    epoch_steps: int | None = None,
    scales_loss: bool = False,
) -> keras.optimizers.Optimizer:
    """The optimizer that the config section `optimizer` describes.

    Its `apply` sums the gradients of all replicas. With `schedule: plateau` it has the variable
    `rate_factor`, which multiplies the learning rate.

    Args:
      config: the section.
      total_steps: steps of the whole run; None only if the learning rate is constant.
      epoch_steps: steps of an epoch; None only if the weights are not averaged.
      scales_loss: whether the gradients are those of `scale_loss(loss)`, for float16.

    Raises:
      ValueError: total_steps or epoch_steps is missing.
    """
    options: dict[str, Any] = {
        "learning_rate": build_schedule(config, total_steps=total_steps),
        "weight_decay": _weight_decay(config),
    }
    # Each mixin extends the methods of those after it.
    mixins: list[type] = []
    if config.average_epochs is not None:
        if epoch_steps is None:
            raise ValueError("received no epoch_steps, expected a number: weights are averaged")
        mixins.append(AveragedWeights)
        options |= {"average_epochs": config.average_epochs, "epoch_steps": epoch_steps}
    if config.clip_norm is not None:
        mixins.append(_ClippingGlobalNorm)
        options["clip_norm"] = config.clip_norm
    if scales_loss:
        mixins.append(_LossScaling)
    factors = rate_factors(config)
    if factors or config.layer_decay is not None:
        mixins.append(GroupRates)
        options |= {"rate_factors": factors, "layer_decay": config.layer_decay or 1.0}
    if config.schedule == "plateau":
        mixins.append(_ReducibleRate)

    class ConfiguredOptimizer(*mixins, _WhereVariablesAre, _OPTIMIZERS[config.name]):
        """The optimizer that the config names, with what its other keys add."""

    optimizer = ConfiguredOptimizer(**options)
    optimizer.exclude_from_weight_decay(var_names=_NO_WEIGHT_DECAY)
    return optimizer


def _weight_decay(config: OptimizerConfig) -> float | None:
    if config.name == "adamw":  # which decays by default, and for which Keras refuses None
        return _ADAMW_WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
    return config.weight_decay or None


# --- mixins: what is done to gradients after those of all replicas are summed ----------------


class _DistinctRows:
    """Sums the rows of tf.IndexedSlices that occur several times.

    They do with several replicas, or several passes in a step. Keras (3.15) squares such rows one
    by one and lets one overwrite the other.

    Attributes:
      takes_sums: the gradients that `apply` is given are those of all replicas already.
    """

    takes_sums = False

    def _all_reduce_sum_gradients(self, grads_and_vars):
        pairs = list(grads_and_vars)
        if not self.takes_sums:
            pairs = super()._all_reduce_sum_gradients(pairs)
        return [(computed_where(v, with_distinct_rows, gradient), v) for gradient, v in pairs]

    def _subtract_rows(self, variable: tf.Variable, values: tf.Tensor, rows: tf.Tensor) -> None:
        """Subtracts values [n, ...] from the distinct rows [n] of a variable.

        On a CPU this takes 0.4 times as long as `scatter_sub`, which subtracts rows of 128 numbers
        one by one (TensorFlow 2.21).
        """
        self.assign(variable, tf.IndexedSlices(gather_rows(variable, rows) - values, rows))


class _WhereVariablesAre:
    """Updates each variable on its device: the parts of a divided weight are not on the first one.

    A OneDeviceStrategy computes all updates on its own, and so copies what is elsewhere.
    """

    def update_step(self, gradient, variable, learning_rate):
        with on_device_of(variable):
            super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables):
        if any(isinstance(v.value, tf.distribute.DistributedValues) for v in variables):
            super()._apply_weight_decay(variables)
        elif self.weight_decay is not None:
            for variable in (v.value for v in variables if self._use_weight_decay(v)):
                with on_device_of(variable):
                    rate = tf.cast(self.learning_rate, variable.dtype)
                    decay = tf.cast(self.weight_decay, variable.dtype)
                    variable.assign_sub(variable * decay * rate)


class _LossScaling:
    """Scales the loss so that small gradients do not vanish in float16.

    Micikevicius et al. 2018, Mixed Precision Training, section 3.2. If a gradient is not finite,
    the update is skipped (except for the weight decay) and the scale is halved; after 2,000 updates
    in a row it is doubled. At the scale 1 such a gradient is applied, so that a run that diverges
    is not mistaken for one that overflows.
    """

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        initializer = keras.initializers.Constant(_INITIAL_LOSS_SCALE)
        self._loss_scale = self.add_variable(
            (),
            initializer=initializer,
            dtype="float32",
            aggregation="only_first_replica",
            name="loss_scale",
        )
        self._finite_updates = self.add_variable(
            (), dtype="int64", aggregation="only_first_replica", name="finite_updates"
        )

    def scale_loss(self, loss):
        return loss * self._loss_scale.value

    def _all_reduce_sum_gradients(self, grads_and_vars):
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        return _all_scaled(pairs, 1 / self._loss_scale.value)

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate):
        # The sums are the same on all replicas, so it is enough to look at the first one's.
        finite = tf.reduce_all(
            [
                computed_where(v, _is_finite, distribution.experimental_local_results(gradient)[0])
                for gradient, v in grads_and_vars
                if gradient is not None
            ]
        )
        scale = tf.convert_to_tensor(self._loss_scale.value)
        updates = tf.convert_to_tensor(self._finite_updates.value)
        update_all = super()._distributed_tf_update_step

        def update():
            update_all(distribution, grads_and_vars, learning_rate)
            return tf.constant(True)

        tf.cond(finite | (scale <= 1), update, lambda: tf.constant(False))
        grows = finite & (updates + 1 >= _LOSS_SCALE_GROWTH_STEPS)
        new_scale = tf.where(finite, tf.where(grows, scale * 2, scale), tf.maximum(scale / 2, 1.0))
        new_updates = tf.where(finite & ~grows, updates + 1, 0)
        for variable, value in ((self._loss_scale, new_scale), (self._finite_updates, new_updates)):
            distribution.extended.update(
                variable.value, lambda v, new: v.assign(new), args=(value,), group=False
            )


class _ReducibleRate:
    """Multiplies the learning rate by a variable of the optimizer, so that checkpoints hold it."""

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.rate_factor = self.add_variable(
            (),
            initializer="ones",
            dtype="float32",
            aggregation="only_first_replica",
            name="rate_factor",
        )

    def _get_current_learning_rate(self):
        return super()._get_current_learning_rate() * self.rate_factor.value


class _ClippingGlobalNorm:
    """Scales an optimizer's gradients down to a global norm (Pascanu et al. 2013, algorithm 1).

    Keras clips the gradients of one replica, before those of all are summed, and refuses
    tf.IndexedSlices. Here the norm is that of the sum, in which a row that occurs several times
    counts as one, so it is the same on any number of replicas.
    """

    def __init__(self, *, clip_norm: float, **options):
        super().__init__(**options)
        self._clip_norm = clip_norm

    def _all_reduce_sum_gradients(self, grads_and_vars):
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        norm = tf.linalg.global_norm([gradient for gradient, _ in pairs])
        return _all_scaled(pairs, self._clip_norm / tf.maximum(norm, self._clip_norm))


def _is_finite(gradient) -> tf.Tensor:
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.reduce_all(tf.math.is_finite(values))


def _all_scaled(pairs, scale: tf.Tensor) -> list[tuple]:
    """Pairs of a gradient and its variable, the gradients times a scale where variables are."""
    return [(computed_where(v, _scaled, gradient, scale), v) for gradient, v in pairs]


def _scaled(gradient, scale: tf.Tensor):
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            gradient.values * tf.cast(scale, gradient.values.dtype),
            gradient.indices,
            gradient.dense_shape,
        )
    return gradient * tf.cast(scale, gradient.dtype)


# --- optimizers ----------------------------------------------------------------------------


class LazyAdam(_DistinctRows, keras.optimizers.Adam):
    """Adam that updates only the rows of an embedding that the batch used.

    If a gradient is a tf.IndexedSlices, the moments and weights of its rows change as in Adam and
    the others stay as they are. Adam itself decays the moments of every row at each step, and
    moves rows that no document used. Other gradients are treated as by Adam.

    A table of pairs of words has one second moment for each row, of the mean of its squared
    gradients (as in FBGEMM, `PARTIAL_ROWWISE_ADAM`): it has many rows and few dimensions, so that a
    step is bound by the memory that it reads.
    """

    def build(self, variables):
        if self.built:
            return
        super(keras.optimizers.Adam, self).build(variables)
        self._momentums, self._velocities = [], []
        for variable in variables:  # in Keras's order, so that checkpoints fit
            [momentum] = self.add_optimizer_variables([variable], "momentum")
            self._momentums.append(momentum)
            self._velocities.append(self._add_velocity(variable))

    def _add_velocity(self, variable):
        """Second moments of a variable: of each number, or of each row of a table of pairs."""
        if not variable.path.endswith("pairs/embeddings"):
            return self.add_optimizer_variables([variable], "velocity")[0]
        with self._distribution_strategy.extended.colocate_vars_with(variable.value):
            return self.add_variable(variable.shape[:1], dtype=variable.dtype, name="velocity")

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        by_row = len(velocity.shape) < len(variable.shape)
        if by_row and not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.IndexedSlices(gradient, tf.range(tf.shape(gradient)[0]))
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rows, values = gradient.indices, gradient.values
        step = tf.cast(self.iterations + 1, values.dtype)
        rate = (
            tf.cast(learning_rate, values.dtype)
            * tf.sqrt(1 - self.beta_2**step)
            / (1 - self.beta_1**step)
        )
        m = self.beta_1 * gather_rows(momentum, rows) + (1 - self.beta_1) * values
        squares = tf.square(values)
        if by_row:
            squares = tf.reduce_mean(squares, axis=1)
        v = self.beta_2 * gather_rows(velocity, rows) + (1 - self.beta_2) * squares
        self.assign(momentum, tf.IndexedSlices(m, rows))
        self.assign(velocity, tf.IndexedSlices(v, rows))
        roots = tf.sqrt(v) + self.epsilon
        step = m * (rate / roots)[:, None] if by_row else rate * m / roots
        self._subtract_rows(variable, step, rows)


class RowWiseAdagrad(_DistinctRows, keras.optimizers.Adagrad):
    """Adagrad with one accumulator for each row of an embedding.

    Only the rows that the batch used are updated. A row's accumulator sums the mean of its squared
    gradients (as in torchrec and FBGEMM, `EXACT_ROWWISE_ADAGRAD`), so its state is 1 / dim of
    Adagrad's. Embeddings are the matrices that have `embeddings` in their names; all else is
    treated as by Adagrad. Accumulators start at 0, as there: Keras's 0.1 is far above the squared
    gradients of a loss that is averaged over a batch, so the first epochs would learn little.
    """

    def __init__(self, *args, initial_accumulator_value: float = 0.0, **options):
        super().__init__(*args, initial_accumulator_value=initial_accumulator_value, **options)

    def build(self, variables):
        if self.built:
            return
        super(keras.optimizers.Adagrad, self).build(variables)
        initializer = keras.initializers.Constant(self.initial_accumulator_value)
        self._accumulators = []
        for variable in variables:
            shape = (
                variable.shape[:1]
                if "embeddings" in variable.name and len(variable.shape) == 2
                else variable.shape
            )
            with self._distribution_strategy.extended.colocate_vars_with(variable.value):
                self._accumulators.append(
                    self.add_variable(
                        shape,
                        initializer=initializer,
                        dtype=variable.dtype,
                        name=f"{variable.name}_accumulator",
                    )
                )

    def update_step(self, gradient, variable, learning_rate):
        accumulator = self._accumulators[self._get_variable_index(variable)]
        by_row = len(accumulator.shape) < len(variable.shape)
        if not by_row and not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        if not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.IndexedSlices(gradient, tf.range(tf.shape(gradient)[0]))
        rows, values = gradient.indices, gradient.values
        squares = tf.reduce_mean(tf.square(values), axis=1) if by_row else tf.square(values)
        sums = gather_rows(accumulator, rows) + squares
        scale = tf.cast(learning_rate, values.dtype) / tf.sqrt(sums + self.epsilon)
        self.assign(accumulator, tf.IndexedSlices(sums, rows))
        self._subtract_rows(variable, (scale[:, None] if by_row else scale) * values, rows)


# Keras's optimizers, which need their rows summed as well.


class _Adam(_DistinctRows, keras.optimizers.Adam):
    pass


class _AdamW(_DistinctRows, keras.optimizers.AdamW):
    pass


class _Adagrad(_DistinctRows, keras.optimizers.Adagrad):
    pass


class _SGD(_DistinctRows, keras.optimizers.SGD):
    pass


class _RMSprop(_DistinctRows, keras.optimizers.RMSprop):
    pass


class _Lion(_DistinctRows, keras.optimizers.Lion):
    pass


_OPTIMIZERS = {
    "adam": _Adam,
    "adamw": _AdamW,
    "adagrad": _Adagrad,
    "sgd": _SGD,
    "rmsprop": _RMSprop,
    "lion": _Lion,
    "lazy_adam": LazyAdam,
    "row_adagrad": RowWiseAdagrad,
}
