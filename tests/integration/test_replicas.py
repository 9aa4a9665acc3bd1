"""Several devices train the same model as one, and the launcher of workers knows its arguments."""

import shutil

import pytest

from tests.command_lines import train
from tests.runs import assert_equal_within_tolerance, history
from tests.scripts import load_script
from tests.small_experiment import CONFIG, make_dataset


def test_two_replicas_give_the_losses_and_weights_of_one(small_dataset, tmp_path):
    shutil.copytree(small_dataset, tmp_path, dirs_exist_ok=True)  # the last batch is partial
    train(tmp_path, "train.run_dir=alone", "train.epochs=2")
    mirrored = "train.strategy=mirrored", "train.replicas=2"
    train(tmp_path, "train.run_dir=mirrored", "train.epochs=2", *mirrored)
    assert_equal_within_tolerance(tmp_path / "mirrored", tmp_path / "alone")


def test_empty_shards_a_partial_batch_and_no_validation_split_finish(tmp_path):
    splits = "splits: {train: 0.9, validation: 0, test: 0.1}"
    make_dataset(tmp_path, 23, CONFIG.replace("shards: 3", "shards: 32") + splits)
    output = train(tmp_path, "train.run_dir=run", "train.epochs=2", "train.batch_size=16")
    assert "no validation split" in output
    assert [row["skipped"] for row in history(tmp_path / "run")] == [0, 0]


@pytest.fixture
def launcher():
    """scripts/launch_workers.py, as a module."""
    return load_script("launch_workers")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workers", "0", "--", "train"], "--workers: received 0, expected 1 or more"),
        (
            ["--workers", "2", "--restarts", "-1", "--", "train"],
            "--restarts: received -1, expected 0 or more",
        ),
        (
            ["--workers", "2", "--grace-seconds", "-1", "--", "train"],
            "--grace-seconds: received -1, expected 0 or more",
        ),
        (["--workers", "2"], "received no command; expected one after `--`"),
        (["--", "train"], "the following arguments are required: --workers"),
    ],
)
def test_wrong_arguments_of_the_launcher_are_told(launcher, capsys, arguments, expected):
    with pytest.raises(SystemExit) as ended:
        launcher.main(arguments)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_help_of_the_launcher_shows_an_example(launcher, capsys):
    with pytest.raises(SystemExit) as ended:
        launcher.main(["--help"])
    assert ended.value.code == 0
    assert "--workers 2 -- train --config" in capsys.readouterr().out
