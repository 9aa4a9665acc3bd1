"""Searches as processes: killed, and several at once. Their trials have no model."""

import json
import os
import re
import shutil
import signal
import sys
import time

import optuna
import pytest

from beam_jobs.contract.command_line import run_main
from beam_jobs.contract.config import load_config
from tests.command_lines import ROOT
from tests.system.processes import ForkedProcess, finish, kill, wait_for
from trainer.training.signals import StoppedBySignal
from trainer.tuning.search import tune

TRIAL = [sys.executable, str(ROOT / "tests/made_up_trial.py")]
SETTINGS = (
    "tune.space={optimizer.learning_rate: {low: 1e-3, high: 0.1, log: true}}",
    "train.epochs=5",
    "tune.pruner=none",
)


@pytest.fixture
def root(trained, tmp_path):
    """A copy of the small experiment's dataset."""
    shutil.copytree(trained.root / "out/small/dataset", tmp_path / "out/small/dataset")
    shutil.copy(trained.root / "small.yaml", tmp_path)
    return tmp_path


def search(settings: list[str]) -> None:
    """What a process runs."""

    def main(_):
        try:
            tune(load_config("small.yaml", overrides=settings), command=TRIAL)
        except StoppedBySignal as stopped:
            sys.exit(stopped.exit_status)

    run_main(main, [])


def start(root, *settings, epoch_seconds=0.2, together=1):
    environment = {"EPOCH_SECONDS": str(epoch_seconds), "TRIALS_TOGETHER": str(together)}
    environment |= {"PYTHONPATH": str(ROOT)}
    return ForkedProcess(search, [*SETTINGS, *settings], cwd=root, environment=environment)


def rows(root, trial):
    path = root / f"out/small/tune/trials/{trial:04d}/run/history.json"
    return json.loads(path.read_text()) if path.exists() else []


def states(root):
    study = optuna.load_study(
        study_name="small", storage=f"sqlite:///{root / 'out/small/tune/study.db'}"
    )
    return [trial.state.name for trial in study.trials]


def test_killed_it_goes_on_with_the_trial_that_ran_and_keeps_those_that_had_finished(root):
    process = start(root, "tune.trials=2")
    wait_for(lambda: len(rows(root, 1)) >= 2, process)
    kill(process)
    finished, begun = rows(root, 0), rows(root, 1)
    with pytest.raises(ProcessLookupError):  # the trial has ended with its search
        for _ in range(1200):
            os.kill(begun[0]["pid"], 0)
            time.sleep(0.05)
    printed = finish(start(root, "tune.trials=2", epoch_seconds=0))
    assert "1 trial(s) whose search was ended go on" in printed
    assert "2 trials: 2 finished" in printed and states(root).count("RUNNING") == 0
    assert rows(root, 0) == finished
    assert rows(root, 1)[: len(begun)] == begun and len(rows(root, 1)) == 5


def test_two_searches_share_a_study_and_no_trial_is_run_twice(root):
    searches = [start(root, "tune.trials=4", epoch_seconds=0, together=2) for _ in range(2)]
    first, second = (finish(search) for search in searches)
    ran = [set(re.findall(r"^trial (\d+): micro-F1", printed, re.M)) for printed in (first, second)]
    assert ran[0] | ran[1] == set("0123") and not ran[0] & ran[1]
    assert ran[0] and ran[1]
    assert states(root) == ["COMPLETE"] * 4
    rates = {line for line in re.findall(r"learning_rate ([\d.]+)", first + second) if line}
    assert len(rates) >= 4  # neither repeats what the other draws


def test_ctrl_c_ends_the_trial_prints_the_table_and_leaves_it_to_go_on(root):
    process = start(root, "tune.trials=4", epoch_seconds=0.5)
    wait_for(lambda: len(rows(root, 1)) >= 1, process)
    os.kill(process.pid, signal.SIGINT)
    printed = finish(process, status=130)
    assert "Traceback" not in printed
    assert "trial 1: stopped by SIGINT" in printed
    assert "2 trials: 1 finished, 1 to go on" in printed
    assert states(root) == ["COMPLETE", "FAIL", "WAITING"]
