"""Searches for values of keys, in the tests' own process; most with trials without a model."""

import json
import re
import shutil
import sys

import optuna
import pytest

from beam_jobs.contract.config import load_config
from beam_jobs.contract.errors import UserError
from tests.command_lines import ROOT, fail_cleanly, succeed
from trainer.tuning.budget import Budget
from trainer.tuning.search import tune

MADE_UP = (sys.executable, str(ROOT / "tests/made_up_trial.py"))
RATE = "tune.space={optimizer.learning_rate: {low: 1e-3, high: 0.1, log: true}}"


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    """A copy of the small experiment's dataset, as the working directory."""
    shutil.copytree(trained.root / "out/small/dataset", tmp_path / "out/small/dataset")
    shutil.copy(trained.root / "small.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(*settings: str) -> None:
    tune(load_config("small.yaml", overrides=settings), command=MADE_UP)


def test_trials_are_trained_and_the_best_config_trains_on(root):
    settings = [
        *("train.epochs=1", "tune.trials=2", "model.embedding_dim=8"),
        "tune.space={optimizer.learning_rate: [0.001, 0.05], model.dropout: [0.0, 0.3]}",
    ]
    overrides = [part for setting in settings for part in ("--set", setting)]
    printed = succeed("trainer.tune", "--config", "small.yaml", *overrides, cwd=root)
    first, second = re.findall(r"^trial (\d): micro-F1 (0\.\d+)", printed, re.M)
    assert "trial 0: micro-F1" in printed and "the config's own choice" in printed
    best = max((first, second), key=lambda trial: float(trial[1]))
    assert f"best: trial {best[0]}, validation micro-F1 {best[1]}" in printed
    assert (root / "out/small/tune/history.png").is_file()
    trials = root / "out/small/tune/trials"
    kept = [path.parent.parent.name for path in trials.glob("*/run/best")]
    assert kept == [f"000{best[0]}"]
    (row,) = json.loads((trials / kept[0] / "run/history.json").read_text())
    assert f"{row['validation_micro_f1']:.4f}" == best[1]
    # The command that the search names finds a whole config, whose run comes to the same.
    config = load_config("out/small/tune/best.yaml")
    assert config.train.run_dir == "out/small/run" and config.model.embedding_dim == 8
    assert config.optimizer.learning_rate == (
        load_config(trials / kept[0] / "config.yaml").optimizer.learning_rate
    )


def test_the_objective_decides_which_trial_is_the_best(root, capsys):
    search(RATE, "tune.trials=4", "train.objective=macro_f1", "tune.time=null")
    printed = capsys.readouterr().out
    values = [float(value) for value in re.findall(r"^trial \d: macro-F1 (\S+),", printed, re.M)]
    assert len(values) == 4 and max(values) < 0.5  # half of its micro-F1
    assert f"validation macro-F1 {max(values):.4f}" in printed
    own = optuna.load_study(study_name="small", storage="sqlite:///out/small/tune/study.db")
    assert own.trials[0].params == {"optimizer.learning_rate": 0.01}  # the config's own choice
    search(RATE, "tune.trials=5", "train.objective=macro_f1", "tune.time=null")
    printed = capsys.readouterr().out
    assert "going on after 4 trials" in printed and printed.count("\ntrial 4: ") == 1
    with pytest.raises(UserError, match="train.objective: study 'macro_f1', config 'micro_f1'"):
        search(RATE, "tune.trials=5")


def test_a_trial_that_cannot_be_trained_is_one_failed_trial(root, capsys):
    search("tune.space={optimizer.learning_rate: [0.01, 2.0, 3.0]}", "tune.trials=5")
    printed = capsys.readouterr().out
    assert "failed: the loss became nan" in printed
    assert re.search(r"5 trials: \d finished, \d failed", printed)


def test_what_ends_the_choice_of_the_config_can_be_mended_and_it_is_tried_again(root):
    fails = (sys.executable, "-c", "print('error: no disk'); raise SystemExit(2)")
    settings = (RATE, "tune.trials=2", "tune.time=null")
    with pytest.raises(UserError, match="no disk"):
        tune(load_config("small.yaml", overrides=settings), command=fails)
    search(*settings)
    study = optuna.load_study(study_name="small", storage="sqlite:///out/small/tune/study.db")
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert [trial.user_attrs["directory"] for trial in finished] == ["0000", "0001"]
    assert finished[0].params == {"optimizer.learning_rate": 0.01}  # the config's own choice


def test_a_search_whose_first_trials_all_fail_ends(root):
    with pytest.raises(UserError, match="the first 3 trials have failed.*the loss became nan"):
        search("tune.space={optimizer.learning_rate: [2.0, 3.0]}", "optimizer.learning_rate=2.0")


def test_a_time_in_which_no_trial_finishes_says_so_and_the_next_call_goes_on(
    root, capsys, monkeypatch
):
    history = root / "out/small/tune/trials/0000/run/history.json"

    class UpAfterAnEpoch(Budget):
        def _left(self):
            return 0.0 if history.exists() else 3600.0

    with monkeypatch.context() as patched:
        patched.setattr("trainer.tuning.search.Budget", UpAfterAnEpoch)
        patched.setenv("EPOCH_SECONDS", "0.3")
        with pytest.raises(UserError, match="received 1h, in which no trial has finished"):
            search(RATE, "tune.time=1h", "train.epochs=30")
    printed = capsys.readouterr().out
    assert "trial 0: the time is up" in printed and "1 trials: 1 to go on" in printed
    before = json.loads(history.read_text())
    search(RATE, "tune.trials=1", "tune.time=1h", "train.epochs=30")
    after = json.loads(history.read_text())
    assert before and after[: len(before)] == before and len(after) == 30


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tune.storage=sqlite:////nowhere/x.db", "unable to open database file"),
        ("tune.storage=postgresql+nothing://me:secret@host/x", "cannot use postgresql+nothing"),
        ("tune.storage=study", "cannot use study: Could not parse"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_message(root, setting, message):
    error = fail_cleanly("trainer.tune", "--config", "small.yaml", "--set", setting, cwd=root)
    assert "tune.storage: cannot use" in error and message in error and "secret" not in error


def test_a_directory_that_cannot_be_written_is_one_message(root):
    (root / "file").touch()
    error = fail_cleanly(
        "trainer.tune", "--config", "small.yaml", "--set", "tune.dir=file/tune", cwd=root
    )
    assert "tune.dir: cannot write to file/tune" in error


def test_without_optuna_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in [name for name in sys.modules if name.startswith("trainer.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    error = fail_cleanly("trainer.tune", "--config", "small.yaml", cwd=root)
    assert "pip install 'multihot[tune]'" in error
