"""Accumulation and plateaus through the command line: equal results, and wrong values."""

import shutil

import numpy as np
import pytest

from tests.command_lines import fail_cleanly, train
from tests.runs import history, variables
from tests.small_experiment import CONFIG, make_dataset


@pytest.fixture(scope="module")
def place(small_dataset, tmp_path_factory):
    root = shutil.copytree(small_dataset, tmp_path_factory.mktemp("optimizing") / "root")
    config = CONFIG.replace("model: {", "model: {name: mlp, hidden_units: [8], ")
    (root / "small.yaml").write_text(config, encoding="utf-8")
    return root


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
