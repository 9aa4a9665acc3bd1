"""Command lines: their shared flags, and how a run ends."""

import argparse
from pathlib import Path

import pytest

from beam_jobs.contract import command_line
from beam_jobs.contract.errors import UserError

ROOT = Path(__file__).parents[4]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="job")
    command_line.add_config_arguments(result)
    return result


def test_config_and_every_set_reach_the_config(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: python_docstrings}\n")
    arguments = parser().parse_args(
        ["--config", str(file), "--set", "train.epochs=3", "--set", "name=y"]
    )
    config = command_line.config_from(arguments)
    assert (config.name, config.train.epochs) == ("y", 3)


def test_list_keys_needs_no_config_and_ends_with_status_0(capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--list-keys"])
    assert ended.value.code == 0
    assert "learning_rate: number, default 0.01" in capsys.readouterr().out


def test_missing_config_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([])
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_main_gets_its_arguments_and_a_good_run_returns():
    received = []
    command_line.run_main(received.append, ["--a", "b"])
    assert received == [["--a", "b"]]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UserError("mend this"), 2, "error: mend this\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_expected_endings_are_one_line_and_a_status(capsys, error, status, told):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as ended:
        command_line.run_main(main, [])
    assert ended.value.code == status
    assert capsys.readouterr().err == told


def test_defects_keep_their_traceback():
    def main(argv):
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        command_line.run_main(main, [])
