"""A callback of one's own that writes down when it is called, and ends the run after two epochs."""

import json
from pathlib import Path

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
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print(f"lambda saw epoch {epoch}", flush=True)
    )
'''


def recorder(file: str) -> str:
    """The setting of runs whose working directory holds OWN as `own.py`."""
    return (
        f"train.callbacks=[{{name: 'own:Recorder', path: {file}, last_epoch: 1}}, "
        "{name: 'own:say'}]"
    )


def recorded(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_calls(history: list[dict]) -> list:
    """What is to be recorded of a run with `steps_per_call: 5` that the callback ends."""
    steps = history[0]["step"]
    calls = [5 * (i + 1) - 1 for i in range((steps - 1) // 5)] + [steps - 1]
    metrics = ["documents_per_second", "learning_rate", "loss", "seconds", "skipped", "step"]
    metrics += ["threshold", "val_macro_f1", "val_micro_f1"]
    epochs = [
        [
            ["epoch_begin", epoch],
            *(["batch_end", batch, ["loss"]] for batch in calls),
            ["epoch_end", epoch, metrics],
        ]
        for epoch in (0, 1)
    ]
    return [["train_begin"], *epochs[0], *epochs[1], ["train_end"]]
