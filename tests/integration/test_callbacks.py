"""Keras callbacks through the command line."""

import shutil

import numpy as np
import pytest

from tests.command_lines import fail_cleanly, run_module, train
from tests.recording_callback import OWN, expected_calls, recorded, recorder
from tests.runs import history


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    root = shutil.copytree(small_dataset, tmp_path_factory.mktemp("callbacks") / "root")
    (root / "own.py").write_text(OWN, encoding="utf-8")
    return root


def test_callbacks_are_called_once_in_order_and_end_the_run(place):
    settings = "train.run_dir=called", "train.epochs=5", recorder("called.jsonl")
    output = train(place, *settings)
    assert recorded(place / "called.jsonl") == expected_calls(history(place / "called"))
    np.testing.assert_allclose(
        [row["learning_rate"] for row in history(place / "called")], [0.01, 0.005]
    )
    assert output.count("lambda saw epoch 1") == 1
    assert "epoch 3: loss" not in train(place, *settings)  # it has been stopped, and stays so


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
        "train.callbacks: received 'Earlystopping'; "
        "expected package.module:function or one of Keras"
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
