"""A Keras callback of your own: it writes a line an epoch where a dashboard reads it."""

import json

import keras


class EpochLines(keras.callbacks.Callback):
    """Appends the epoch's metrics to a file as JSON. It runs on the chief alone."""

    def __init__(self, filename: str):
        super().__init__()
        self.filename = filename

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        line = {"epoch": epoch + 1, "loss": logs["loss"], "val_micro_f1": logs["val_micro_f1"]}
        with open(self.filename, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
