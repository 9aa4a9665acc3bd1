"""Kill it anywhere: a run that was stopped and resumed ends with the bits of one that was not."""

import csv
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from tests.runs import SETTINGS, assert_same_bits, history, newest_step, variables
from tests.system.processes import finish, kill, start, train, wait_for


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    """A small dataset."""
    root = shutil.copytree(small_dataset, tmp_path_factory.mktemp("kills") / "root")
    return root


@pytest.fixture(scope="module")
def whole(place):
    """A run that nothing interrupts."""
    train(place, "train.run_dir=whole", *SETTINGS)
    return place / "whole"


def test_killed_at_random_moments_a_run_ends_with_the_bits_of_one_that_was_not(place, whole):
    rng = random.Random(0)
    kills, last = 0, history(whole)[-1]["step"]
    for _ in range(3):
        process = start(place, "train.run_dir=killed", *SETTINGS)
        before = newest_step(place / "killed")
        try:
            # Right at a checkpoint or at some later moment, in a step, a save or a validation.
            wait_for(lambda before=before: newest_step(place / "killed") > before, process)
            time.sleep(rng.random() * 0.1)
        except AssertionError:
            break  # it has come to its end
        kill(process)
        kills += process.returncode == -signal.SIGKILL
    train(place, "train.run_dir=killed", *SETTINGS)
    assert kills >= 2
    assert newest_step(place / "killed") == last
    assert_same_bits(place / "killed", whole)
    best, expected = (variables(run, folder="best") for run in (place / "killed", whole))
    assert all((best[name] == expected[name]).all() for name in expected)


def test_killed_twice_accumulation_float16_and_a_plateau_end_with_the_same_bits(place):
    settings = (
        *("train.epochs=6", "train.patience=null"),
        *("train.checkpoint_steps=3", "train.steps_per_call=2"),
        "model={name: mlp, embedding_dim: 16, hidden_units: [8], dropout: 0.3}",
        *("train.precision=float16", "train.accumulate_steps=2"),
        # A rate at which the metric soon stays where it is.
        *("optimizer.schedule=plateau", "optimizer.plateau_factor=0.1"),
        *("optimizer.final_fraction=0.05", "optimizer.learning_rate=0.1"),
    )
    train(place, "train.run_dir=whole_mlp", *settings)
    for step in (4, 40):
        process = start(place, "train.run_dir=killed_mlp", *settings)
        wait_for(lambda step=step: newest_step(place / "killed_mlp") >= step, process)
        kill(process)
    assert "resuming after step" in train(place, "train.run_dir=killed_mlp", *settings)
    assert_same_bits(place / "killed_mlp", place / "whole_mlp")
    best, lowered = -1.0, 0  # the rate falls after epochs without a better metric, to the least
    for row in history(place / "killed_mlp"):
        np.testing.assert_allclose(row["learning_rate"], 0.1 * max(0.1**lowered, 0.05), rtol=1e-5)
        lowered += row["validation_micro_f1"] <= best
        best = max(best, row["validation_micro_f1"])
    assert lowered >= 2


def test_loggers_of_keras_write_each_epoch_also_across_a_kill(place):
    callbacks = (
        "train.callbacks=[{name: CSVLogger, filename: log.csv, append: true}, "
        "{name: TensorBoard, log_dir: board, write_graph: false}, "
        "{name: ReduceLROnPlateau, monitor: loss, min_delta: 100, patience: 2, factor: 0.5}]"
    )
    settings = ("train.epochs=8", "train.patience=null", "train.steps_per_call=2", callbacks)
    train(place, "train.run_dir=whole_logs", *settings)
    whole = list(csv.DictReader((place / "log.csv").open()))
    (place / "log.csv").unlink()
    process = start(place, "train.run_dir=killed_logs", *settings)
    third = 3 * history(place / "whole_logs")[0]["step"]
    wait_for(lambda: newest_step(place / "killed_logs") >= third, process)
    kill(process)
    train(place, "train.run_dir=killed_logs", *settings)
    assert_same_bits(place / "killed_logs", place / "whole_logs")
    rows = {row["epoch"]: row for row in csv.DictReader((place / "log.csv").open())}
    assert [rows[str(epoch)]["loss"] for epoch in range(8)] == [row["loss"] for row in whole]
    rates = [row["learning_rate"] for row in history(place / "killed_logs")]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.00125])
    assert list((place / "board").rglob("events*"))


@pytest.mark.parametrize(("number", "calls"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_signal_saves_and_the_rest_of_the_run_gives_the_same_bits(place, whole, number, calls):
    name = f"run_dir_{number.name}"
    settings = [s for s in SETTINGS if not s.startswith("train.steps_per_call")]
    settings += [f"train.run_dir={name}", f"train.steps_per_call={calls}"]
    process = start(place, *settings)
    wait_for(lambda: newest_step(place / name) >= 3, process)
    os.kill(process.pid, number)
    output = finish(process, status=128 + number)
    assert (
        f"stopped by {number.name} after step {newest_step(place / name)}, which is saved; "
        "the same command resumes there" in output
    )
    assert "Traceback" not in output
    assert "resuming after step" in train(place, *settings)
    assert_same_bits(place / name, whole)


def test_killed_while_saving_at_every_step_a_run_can_always_be_resumed(place):
    settings = (
        "train.run_dir=saving",
        "train.epochs=1000",
        "train.patience=null",
        "train.checkpoint_steps=1",
        "model.embedding_dim=512",
    )
    rng = random.Random(1)
    step = 0
    for _ in range(2):
        process = start(place, *settings)
        wait_for(lambda step=step: newest_step(place / "saving") > step, process)
        time.sleep(rng.random())
        output = kill(process)
        assert "damaged" not in output
        assert not [line for line in output.splitlines() if line.startswith("error: ")], output
        assert newest_step(place / "saving") > step
        step = newest_step(place / "saving")
        variables(place / "saving")  # it can be read, whole
    names = {path.name.partition(".")[0] for path in (place / "saving/checkpoints").iterdir()}
    process = start(place, *settings)
    wait_for(lambda: newest_step(place / "saving") > step, process)
    os.killpg(process.pid, signal.SIGTERM)
    finish(process, status=128 + signal.SIGTERM)
    left = {path.name.partition(".")[0] for path in (place / "saving/checkpoints").iterdir()}
    # The two newest, and the list of them: nothing of saves that were killed.
    assert len(left) == 3, (names, left)


def test_deterministic_operations_give_the_same_bits_on_every_run(place):
    for name in ("one", "two"):
        train(
            place, f"train.run_dir={name}", *SETTINGS, "train.deterministic=true", "train.epochs=1"
        )
    assert_same_bits(place / "one", place / "two")
