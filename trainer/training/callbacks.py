"""Keras callbacks in the step loop: called on the chief, whose decisions all workers follow."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract import user_code
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.train import CallbackConfig
from trainer.distribution.strategy import is_chief, sum_over_workers

# Callbacks that monitor a metric turn its sign when they are first called; restored, it would be
# turned twice.
_TURNED_BY_KERAS = "min_delta"
_REFUSED = {
    "BackupAndRestore": "a run is saved and resumed anyway",
    "SwapEMAWeights": "with optimizer.average_epochs, averages are validated and kept anyway",
}


class Callbacks:
    """The run's Keras callbacks.

    They run on the chief alone, so that each file is written once. After each hook their decisions
    are sent to the other workers: `model.stop_training`, and the learning rate set through
    `model.optimizer.learning_rate`. They are called as by `fit`, except that

    - a train batch is one call of the compiled function, `train.steps_per_call` steps: its number
      is that of its last step in the epoch, from 0, and its logs hold the mean loss;
    - there are no test and predict batches: validation is `on_test_begin` and `on_test_end`;
    - an epoch's logs are the row of history.json, with `val_` for `validation_`;
    - a stop that is requested within an epoch comes at the epoch's end.

    Args:
      callbacks: of `make_callbacks`.
      model: the run's.
      optimizer: the run's; it is made `model.optimizer`.
      strategy: the run's.
      epochs: `train.epochs`.
      steps: steps of an epoch.
    """

    def __init__(
        self,
        callbacks: Sequence[tuple[str, keras.callbacks.Callback]],
        *,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        epochs: int,
        steps: int,
    ):
        self._model, self._optimizer, self._strategy = model, optimizer, strategy
        self._any = bool(callbacks)
        self._callbacks = list(callbacks) if is_chief(strategy) else []
        model.stop_training = False
        if self._any:
            model.optimizer = optimizer
        for _, callback in self._callbacks:
            callback.set_model(model)
            callback.set_params({"epochs": epochs, "steps": steps, "verbose": 0})

    def begin(self, counts: Sequence[Mapping[str, float]]) -> None:
        """Calls `on_train_begin`, then restores what `counts` returned for the checkpoint."""
        self("on_train_begin")
        # Before the first step there are no counts.
        for (_, callback), saved in zip(self._callbacks, counts, strict=False):
            vars(callback).update(saved)

    def __call__(self, hook: str, *arguments: Any, logs: Mapping[str, Any] | None = None) -> bool:
        """Calls a hook of every callback. Every worker must call it, in the same order.

        Returns:
          whether training is to stop.

        Raises:
          UserError: a callback of Keras refuses its options or the metric it is to monitor.
        """
        if not self._any:
            return False
        for name, callback in self._callbacks:
            try:
                getattr(callback, hook)(*arguments, logs=None if logs is None else dict(logs))
            except (ValueError, TypeError) as error:
                if ":" in name:
                    raise  # its author needs the traceback
                raise UserError(f"train.callbacks: {name} failed in {hook}: {error}") from None
        chief = is_chief(self._strategy)
        decisions = {
            "stop": np.float32(self._model.stop_training),
            "rate": np.float32(_settable_rate(self._optimizer)),
        }
        decisions = sum_over_workers(
            self._strategy, decisions if chief else {key: np.float32(0) for key in decisions}
        )
        self._model.stop_training = bool(decisions["stop"])
        if not chief and decisions["rate"] != _settable_rate(self._optimizer):
            self._optimizer.learning_rate = float(decisions["rate"])
        return self._model.stop_training

    def counts(self) -> list[dict[str, float]]:
        """The numbers that each callback holds, such as the epochs EarlyStopping has waited.

        A checkpoint keeps these of its state.
        """
        return [_numbers(vars(callback)) for _, callback in self._callbacks]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    plain = {
        key: value.item() if isinstance(value, np.number) else value
        for key, value in values.items()
        if key != _TURNED_BY_KERAS
    }
    return {
        key: value
        for key, value in plain.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def epoch_logs(row: Mapping[str, Any]) -> dict[str, Any]:
    """The logs of `on_epoch_end` for a row of history.json."""
    return {
        key.replace("validation_", "val_"): value
        for key, value in row.items()
        if key != "epoch" and value is not None
    }


def _settable_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate if it is a variable, which callbacks may assign; 0 if it is a schedule."""
    rate = optimizer._learning_rate
    return float(rate.numpy()) if isinstance(rate, keras.Variable) else 0.0


def make_callbacks(configs: Sequence[CallbackConfig]) -> list[tuple[str, keras.callbacks.Callback]]:
    """The callbacks of the config key `train.callbacks`, with their names.

    All workers make them, so that all refuse a wrong one.

    Raises:
      UserError: a callback cannot be found or made.
    """
    return [(config.name, _make(config)) for config in configs]


def _check_places(config: CallbackConfig) -> None:
    """Raises UserError where a callback of Keras, which writes by TensorFlow, is given a place that
    TensorFlow does not write to.
    """
    for key, value in config.options.items():
        if isinstance(value, str) and value.startswith(("s3://", "hdfs://")):
            raise UserError(
                f"train.callbacks: received {key}: {value} for {config.name}, which writes there "
                "itself; expected a path on a disk, or gs://BUCKET/..."
            )


def _make(config: CallbackConfig) -> keras.callbacks.Callback:
    if ":" in config.name:
        make = user_code.load(config.name, key="train.callbacks")
    else:
        known = {
            name: kind
            for name, kind in vars(keras.callbacks).items()
            if isinstance(kind, type) and name not in ("Callback", "CallbackList")
        }
        if config.name in _REFUSED or config.name not in known:
            names = ", ".join(sorted(known.keys() - _REFUSED.keys()))
            reason = (
                f", which does not fit: {_REFUSED[config.name]}" if config.name in _REFUSED else ""
            )
            raise UserError(
                f"train.callbacks: received {config.name!r}{reason}; expected "
                f"package.module:function or one of Keras: {names}"
            )
        make = known[config.name]
        _check_places(config)
    try:
        callback = make(**config.options)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"train.callbacks: {config.name} does not take {config.options!r}: {error}"
        ) from None
    if not isinstance(callback, keras.callbacks.Callback):
        raise UserError(
            f"train.callbacks: {config.name} gave {type(callback).__name__}, expected a "
            "keras.callbacks.Callback"
        )
    return callback
