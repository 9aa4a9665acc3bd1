import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from beam_jobs.contract.sections.train import CallbackConfig
from trainer.training.callbacks import Callbacks, epoch_logs, make_callbacks
from trainer.training.optimizers import build_optimizer


class Recorder(keras.callbacks.Callback):
    """Notes what it is called with."""

    def __init__(self, only="on_"):
        super().__init__()
        self.calls, self._only = [], only

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name.startswith("on_") and name.startswith(super().__getattribute__("_only")):
            return lambda *arguments, logs=None: self.calls.append((name, *arguments, logs))
        return value


def _fails(**_):
    class Failing(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise ValueError("of its own")

    return Failing()


def _no_callback():
    return 3


HERE = "tests.unit.trainer.training.test_callbacks"


def _callbacks(*configs, **optimizer):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 1))
    made = build_optimizer(
        OptimizerConfig(name="sgd", learning_rate=0.5, **optimizer), total_steps=4
    )
    made.build(model.trainable_variables)
    options = {
        "model": model,
        "optimizer": made,
        "strategy": tf.distribute.get_strategy(),
        "epochs": 3,
        "steps": 4,
    }
    return (
        model,
        made,
        Callbacks(make_callbacks([CallbackConfig(**config) for config in configs]), **options),
    )


def test_hooks_get_their_arguments_and_callbacks_the_model_its_optimizer_and_the_sizes():
    model, optimizer, callbacks = _callbacks({"name": f"{HERE}:Recorder"})
    ((_, recorder),) = callbacks._callbacks
    callbacks("on_epoch_begin", 2)
    callbacks("on_train_batch_end", 7, logs={"loss": 0.5})
    assert recorder.calls == [("on_epoch_begin", 2, None), ("on_train_batch_end", 7, {"loss": 0.5})]
    assert recorder.model is model and recorder.model.optimizer is optimizer
    assert recorder.params == {"epochs": 3, "steps": 4, "verbose": 0}


def test_options_reach_the_constructor():
    *_, callbacks = _callbacks(
        {"name": f"{HERE}:Recorder", "only": "on_train"},
        {"name": "EarlyStopping", "monitor": "val_micro_f1", "patience": 7},
    )
    callbacks("on_epoch_begin", 0)
    (_, recorder), (_, stopping) = callbacks._callbacks
    assert recorder.calls == [] and stopping.patience == 7


def _run(metric_of_epochs, *, resume_after=None, config):
    """Epochs until a callback stops.

    With `resume_after` the callbacks are made anew after that epoch, from their counts.
    """
    model, optimizer, callbacks = _callbacks(config)
    callbacks.begin([])
    rates = []
    for epoch, metric in enumerate(metric_of_epochs):
        if epoch == resume_after:
            saved, rate = callbacks.counts(), float(optimizer.learning_rate)
            model, optimizer, callbacks = _callbacks(config)
            optimizer.learning_rate = rate  # a checkpoint holds it
            callbacks.begin(saved)
        stops = callbacks("on_epoch_end", epoch, logs={"loss": metric})
        rates.append(float(optimizer.learning_rate))
        if stops:
            break
    return rates


EARLY = {"name": "EarlyStopping", "monitor": "loss", "patience": 3, "min_delta": 0.1}
PLATEAU = {
    "name": "ReduceLROnPlateau",
    "monitor": "loss",
    "patience": 2,
    "factor": 0.5,
    "cooldown": 1,
    "min_delta": 0.01,
}


@pytest.mark.parametrize("resume_after", [None, 1, 2, 3, 4])
def test_early_stopping_stops_after_its_patience_also_when_it_is_resumed(resume_after):
    # 3 is better than 4; 2.95 is not, by min_delta.
    assert len(_run([4, 3, 2.95, 3, 3, 3, 3], resume_after=resume_after, config=EARLY)) == 5


@pytest.mark.parametrize("resume_after", [None, 1, 2, 3, 4, 5, 6])
def test_the_rate_is_reduced_on_plateaus_also_when_it_is_resumed(resume_after):
    assert _run([3, 3, 3, 3, 3, 3, 3], resume_after=resume_after, config=PLATEAU) == [
        0.5,
        0.5,
        0.25,
        0.25,
        0.125,
        0.125,
        0.0625,
    ]


def test_a_rate_that_a_callback_sets_is_that_of_the_next_step():
    model, optimizer, callbacks = _callbacks(
        {"name": "LearningRateScheduler", "schedule": "unused"}
    )
    callbacks._callbacks[0][1].schedule = lambda epoch, rate: rate / 2
    callbacks("on_epoch_begin", 0)
    kernel = model.trainable_variables[0]
    before = kernel.numpy()
    optimizer.apply([tf.ones([1, 1]), tf.zeros([1])], model.trainable_variables)
    np.testing.assert_allclose(before - kernel.numpy(), 0.25)


def test_counts_are_numbers_that_json_can_hold():
    *_, callbacks = _callbacks({"name": "EarlyStopping", "monitor": "loss"})
    callbacks.begin([])
    callbacks("on_epoch_end", 0, logs={"loss": np.float32(0.5)})
    (counts,) = callbacks.counts()
    assert counts["best"] == 0.5 and counts["wait"] == 0 and "min_delta" not in counts
    assert {type(value) for value in counts.values()} <= {int, float}


def test_a_row_of_the_history_becomes_logs_in_the_names_of_keras():
    row = {"epoch": 2, "loss": 0.5, "validation_micro_f1": None, "validation_other": 3}
    assert epoch_logs(row) == {"loss": 0.5, "val_other": 3}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"name": "EarlyStoping"},
            r"received 'EarlyStoping'; expected package.module:function or one of Keras: "
            r"CSVLogger, EarlyStopping",
        ),
        ({"name": "CallbackList"}, "received 'CallbackList'; expected"),
        (
            {"name": "BackupAndRestore", "backup_dir": "x"},
            "does not fit: a run is saved and resumed anyway",
        ),
        ({"name": "CSVLogger"}, "CSVLogger does not take {}: .*filename"),
        (
            {"name": "CSVLogger", "filename": "s3://b/log.csv"},
            "received filename: s3://b/log.csv for CSVLogger, .* expected a path on a disk",
        ),
        ({"name": "CSVLogger", "filename": "x", "colour": 1}, "CSVLogger does not take .*colour"),
        ({"name": "ReduceLROnPlateau", "factor": 2}, "ReduceLROnPlateau does not take .*factor"),
        (
            {"name": "no_module_like_this:thing"},
            "no_module_like_this.*expected package.module:name of a module in the working "
            "directory",
        ),
        (
            {"name": f"{HERE}:nothing"},
            "nothing.*expected package.module:name of what the module",
        ),
        ({"name": f"{HERE}:_no_callback"}, "gave int, expected a keras.callbacks.Callback"),
    ],
)
def test_wrong_callbacks_are_told(config, expected):
    with pytest.raises(UserError, match=expected):
        _callbacks(config)


def test_what_a_callback_of_keras_refuses_is_told_and_an_error_of_ones_own_passes():
    *_, callbacks = _callbacks({"name": "EarlyStopping", "monitor": "val_micro_f1"})
    with pytest.raises(
        UserError, match="train.callbacks: EarlyStopping failed in on_epoch_end: .*mode='max'"
    ):
        callbacks("on_epoch_end", 0, logs={"val_micro_f1": 0.5})
    *_, callbacks = _callbacks({"name": f"{HERE}:_fails"})
    with pytest.raises(ValueError, match="of its own") as error:
        callbacks.begin([])
    assert not isinstance(error.value, UserError)


def test_a_rate_that_a_schedule_decides_cannot_be_set():
    *_, callbacks = _callbacks({**PLATEAU, "patience": 1}, schedule="linear")
    callbacks.begin([])
    callbacks("on_epoch_end", 0, logs={"loss": 1.0})
    with pytest.raises(
        UserError, match="ReduceLROnPlateau failed in on_epoch_end: .*LearningRateSchedule"
    ):
        callbacks("on_epoch_end", 1, logs={"loss": 1.0})
