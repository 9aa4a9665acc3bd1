"""Accumulation, precision and plateaus through the command line: what is killed goes on with the same bits."""

import os
import signal

import numpy as np
import pytest

from tests.command_lines import fail_cleanly
from tests.integration.conftest import CONFIG, make_dataset
from tests.integration.workers import (
    assert_same_bits,
    history,
    newest_step,
    start,
    train,
    variables,
    wait_for,
)

pytestmark = pytest.mark.slow

SETTINGS = (
    *(
        "train.epochs=6",
        "train.patience=null",
        "train.checkpoint_steps=3",
        "train.steps_per_call=2",
        "model.dropout=0.3",
    ),
    *("train.precision=float16", "train.accumulate_steps=2"),
    # A rate at which the metric soon stays where it is.
    *(
        "optimizer.schedule=plateau",
        "optimizer.plateau_factor=0.1",
        "optimizer.final_fraction=0.05",
        "optimizer.learning_rate=0.1",
    ),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("optimizing")
    make_dataset(root, 500, CONFIG.replace("model: {", "model: {name: mlp, hidden_units: [8], "))
    return root


@pytest.fixture(scope="module")
def whole(place):
    train(place, "train.run_dir=whole", *SETTINGS)
    return place / "whole"


def test_the_rate_falls_after_epochs_without_a_better_metric_down_to_the_least(whole):
    best, lowered = -1.0, 0
    for row in history(whole):
        np.testing.assert_allclose(row["learning_rate"], 0.1 * max(0.1**lowered, 0.05), rtol=1e-5)
        lowered += row["validation_micro_f1"] <= best
        best = max(best, row["validation_micro_f1"])
    assert lowered >= 2


def test_killed_twice_a_run_with_all_of_them_ends_with_the_same_bits(place, whole):
    for step in (4, 40):
        process = start(place, "train.run_dir=killed", *SETTINGS)
        wait_for(lambda step=step: newest_step(place / "killed") >= step, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert "resuming after step" in train(place, "train.run_dir=killed", *SETTINGS)
    assert_same_bits(place / "killed", whole)


def test_accumulation_needs_no_other_results(place):
    for name, settings in {"plain": (), "accumulated": ("train.accumulate_steps=8",)}.items():
        train(place, f"train.run_dir={name}", "train.epochs=2", "model.dropout=0", *settings)
    plain, accumulated = (history(place / name) for name in ("plain", "accumulated"))
    assert [row["step"] for row in plain] == [row["step"] for row in accumulated]
    np.testing.assert_allclose(
        [row["loss"] for row in plain], [row["loss"] for row in accumulated], rtol=1e-5
    )
    left, right = variables(place / "plain"), variables(place / "accumulated")
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ["train.accumulate_steps=3"],
            "expected a batch_size that accumulate_steps divides, not 32 and 3",
        ),
        (
            ["train.accumulate_steps=32", "train.strategy=mirrored", "train.replicas=2"],
            "expected a multiple of train.accumulate_steps x replicas",
        ),
        (["train.precision=float8"], "train.precision: received 'float8'"),
        (["optimizer.plateau_factor=1"], "optimizer.plateau_factor: received 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(place, settings, expected):
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert expected in fail_cleanly(
        "trainer.task",
        "train",
        "--config",
        "small.yaml",
        "--set",
        "train.run_dir=refused",
        *arguments,
        cwd=place,
    )


def test_a_plateau_without_a_validation_split_is_refused(place, tmp_path):
    make_dataset(
        tmp_path,
        40,
        CONFIG + "splits: {train: 1, validation: 0, test: 0}\noptimizer: {schedule: plateau}\n",
    )
    assert "the dataset has no validation split" in fail_cleanly(
        "trainer.task", "train", "--config", "small.yaml", cwd=tmp_path
    )
