"""Keras callbacks through the command line, with two workers and across a kill."""

import csv
import json
import os
import signal

import numpy as np
import pytest

from tests.command_lines import fail_cleanly, run_module
from tests.integration.conftest import make_dataset
from tests.integration.workers import assert_same_bits, history, newest_step, start, train, wait_for

pytestmark = pytest.mark.slow

OWN = '''
import json
import keras


class Recorder(keras.callbacks.Callback):
    """Writes a line a hook, and lowers the learning rate after each epoch."""

    def __init__(self, path, last_epoch=99):
        super().__init__()
        self._path, self._last_epoch = path, last_epoch

    def _write(self, *row):
        with open(self._path, "a") as stream:
            stream.write(json.dumps(row) + "\\n")

    def on_train_begin(self, logs=None):
        self._write("train_begin")

    def on_epoch_begin(self, epoch, logs=None):
        self._write("epoch_begin", epoch)

    def on_train_batch_end(self, batch, logs=None):
        self._write("batch_end", batch, sorted(logs))

    def on_epoch_end(self, epoch, logs=None):
        self._write("epoch_end", epoch, sorted(logs))
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate.numpy()) / 2
        self.model.stop_training = epoch >= self._last_epoch

    def on_train_end(self, logs=None):
        self._write("train_end")


def say(**_):
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(f"lambda saw epoch {epoch}", flush=True))
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("callbacks")
    (root / "own.py").write_text(OWN, encoding="utf-8")
    make_dataset(root, 300)
    return root


def _recorded(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("workers", [None, 2])
def test_callbacks_are_called_once_in_order_and_all_workers_heed_them(place, workers):
    name = f"called{workers}"
    callbacks = f"train.callbacks=[{{name: 'own:Recorder', path: {name}.jsonl, last_epoch: 1}}, {{name: 'own:say'}}]"
    output = train(place, f"train.run_dir={name}", "train.epochs=5", callbacks, workers=workers)
    steps = history(place / name)[0]["step"]
    calls = [5 * (i + 1) - 1 for i in range((steps - 1) // 5)] + [steps - 1]
    metrics = [
        "documents_per_second",
        "learning_rate",
        "loss",
        "seconds",
        "skipped",
        "step",
        "threshold",
        "val_micro_f1",
    ]
    epochs = [
        [
            ["epoch_begin", e],
            *(["batch_end", b, ["loss"]] for b in calls),
            ["epoch_end", e, metrics],
        ]
        for e in (0, 1)
    ]
    assert _recorded(place / f"{name}.jsonl") == [
        ["train_begin"],
        *epochs[0],
        *epochs[1],
        ["train_end"],
    ]
    np.testing.assert_allclose(
        [row["learning_rate"] for row in history(place / name)], [0.01, 0.005]
    )
    assert output.count("lambda saw epoch 1") == 1
    again = train(place, f"train.run_dir={name}", "train.epochs=5", callbacks, workers=workers)
    assert "epoch 3: loss" not in again  # it has been stopped, and stays so


def test_loggers_of_keras_write_each_epoch_also_across_a_kill(place):
    callbacks = (
        "train.callbacks=[{name: CSVLogger, filename: log.csv, append: true}, {name: TensorBoard, log_dir: board, write_graph: false}, "
        "{name: ReduceLROnPlateau, monitor: loss, min_delta: 100, patience: 2, factor: 0.5}]"
    )
    settings = ("train.epochs=8", "train.patience=null", "train.steps_per_call=2", callbacks)
    train(place, "train.run_dir=whole", *settings)
    whole = list(csv.DictReader((place / "log.csv").open()))
    (place / "log.csv").unlink()
    process = start(place, "train.run_dir=killed", *settings)
    wait_for(
        lambda: newest_step(place / "killed") >= 3 * history(place / "whole")[0]["step"], process
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    train(place, "train.run_dir=killed", *settings)
    assert_same_bits(place / "killed", place / "whole")
    rows = {row["epoch"]: row for row in csv.DictReader((place / "log.csv").open())}
    assert [rows[str(epoch)]["loss"] for epoch in range(8)] == [row["loss"] for row in whole]
    rates = [row["learning_rate"] for row in history(place / "killed")]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.00125])
    assert list((place / "board").rglob("events*"))


def test_wrong_callbacks_are_clean_errors(place):
    def message(value):
        return fail_cleanly(
            "trainer.task",
            "train",
            "--config",
            "small.yaml",
            "--set",
            "train.run_dir=wrong",
            "--set",
            value,
            cwd=place,
        )

    assert (
        "train.callbacks: received 'Earlystopping'; expected package.module:function or one of Keras"
        in message("train.callbacks=[{name: Earlystopping}]")
    )
    assert "train.callbacks" in message("train.callbacks=[{filename: x}]")
    assert "mode='max'" in message("train.callbacks=[{name: EarlyStopping, monitor: val_micro_f1}]")


def test_the_keys_are_listed_with_the_callbacks(place):
    listed = run_module(
        "trainer.task", "train", "--config", "small.yaml", "--list-keys", cwd=place
    ).stdout
    (line,) = [line for line in listed.splitlines() if "callbacks:" in line]
    assert "list of mapping" in line and "<class" not in line
