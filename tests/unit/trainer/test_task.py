"""The trainer's commands."""

import pytest

from beam_jobs.contract.errors import UserError
from trainer import task
from trainer.distribution.meeting import LostWorkerError
from trainer.training import train as train_module
from trainer.training.signals import StoppedBySignal


@pytest.mark.parametrize("command", task.COMMANDS)
def test_help_says_what_each_command_does(command, capsys):
    with pytest.raises(SystemExit) as ended:
        task.main([command, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert task.COMMANDS[command].help[1:] + "." in shown
    assert ("--config" in shown) == task.COMMANDS[command].takes_config


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (StoppedBySignal("SIGTERM"), 143, ""),
        (StoppedBySignal("SIGINT"), 130, ""),
        (LostWorkerError("worker 1 has lost another worker"), 75, "error: worker 1 has lost"),
    ],
)
def test_the_command_line_ends_with_the_status_of_what_ended_training(
    monkeypatch, capsys, tmp_path, raised, status, message
):
    config = tmp_path / "c.yaml"
    config.write_text("name: x\ndata: {source: python_docstrings}\n")

    def train(config, *, fresh, source):
        assert (config.name, fresh, source) == ("x", True, "earlier")
        raise raised

    monkeypatch.setattr(train_module, "train", train)
    with pytest.raises(SystemExit) as ended:
        task.main(["train", "--config", str(config), "--fresh", "--from", "earlier"])
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(message)


def test_weights_of_no_average_are_refused(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("name: x\ndata: {source: python_docstrings}\n")
    with pytest.raises(UserError, match="--weights: received without --average"):
        task.main(["export", "--config", str(config), "--weights", "1"])
