import optuna
import pytest

from beam_jobs.contract.config import config_from_dict
from trainer.tuning.space import Space
from trainer.tuning.study import START, Study, make_pruner


def _is_pruned(pruner, others, own):
    """Whether a trial is pruned after what it reports by tenth of the run, beside finished ones."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=make_pruner(pruner))
    for values in others:
        trial = study.ask()
        for tenth, value in values.items():
            trial.report(value, tenth)
            trial.should_prune()
        study.tell(trial, max(values.values()))
    trial = study.ask()
    pruned = []
    for tenth, value in own.items():
        trial.report(value, tenth)
        pruned.append(trial.should_prune())
    return pruned


HALF = {2: 0.3, 4: 0.4, 6: 0.45, 8: 0.48, 10: 0.5}


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_a_trial_below_the_others_is_ended_early_and_one_above_is_not(pruner):
    worse = {tenth: value / 2 for tenth, value in HALF.items()}
    better = {tenth: value * 1.5 for tenth, value in HALF.items()}
    assert any(_is_pruned(pruner, [HALF] * 5, worse)[:-1])
    assert not any(_is_pruned(pruner, [HALF] * 5, better))


def test_without_others_or_with_none_nothing_is_ended_early():
    worse = {tenth: value / 2 for tenth, value in HALF.items()}
    assert not any(_is_pruned("median", [HALF] * 2, worse))
    assert not any(_is_pruned("none", [HALF] * 9, worse))


def _space_in(folder):
    raw = {"name": "tiny", "data": {"source": "jsonl", "inputs": ["a"]}, "model": {"name": "bow"}}
    rate = {"optimizer.learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    tune = {"dir": str(folder), "space": rate}
    return Space.of(config_from_dict(raw | {"tune": tune}, what=""))


def _search_of(tmp_path, name, *, killed_at=()):
    """{directory: values} of ten trials; those of `killed_at` are begun and left, as by a kill."""
    space, begun = _space_in(tmp_path / name), {}
    study = Study(space, dataset="x").__enter__()
    for number in range(10):
        for killed in (True, False) if number in killed_at else (False,):
            with study.locked():
                study.take_over()
                trial, directory, values = study.begin()
            if killed:
                study.__exit__(None, None, None)
                study = Study(space, dataset="x").__enter__()
        study.finish(trial, number / 10, values={} if values else {"optimizer.learning_rate": 0.01})
        begun[directory.name] = values
    study.__exit__(None, None, None)
    return begun


def test_a_search_that_is_killed_draws_the_values_of_one_that_is_not(tmp_path):
    whole = _search_of(tmp_path, "whole")
    assert len({str(values) for values in whole.values()}) == 10
    assert list(whole) == [f"{number:04d}" for number in range(10)]
    assert _search_of(tmp_path, "killed", killed_at=(0, 4, 9)) == whole


class Full(Exception):
    """The disk."""


def _fails(*args, **kwargs):
    raise Full


def test_a_search_that_could_not_write_its_first_trial_begins_with_the_choice_of_the_config(
    tmp_path, monkeypatch
):
    space = _space_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", _fails)
        with pytest.raises(Full), Study(space, dataset="x"):
            pass
    with Study(space, dataset="x") as study, study.locked():
        trial, directory, values = study.begin()
        assert trial.user_attrs[START] and directory.name == "0000" and values == {}


def test_a_trial_that_is_taken_over_goes_on_once_wherever_its_worker_was_killed(
    tmp_path, monkeypatch
):
    space = _space_in(tmp_path)
    with Study(space, dataset="x") as study, study.locked():
        study.begin()
        with monkeypatch.context() as patch, pytest.raises(Full):
            patch.setattr(Study, "fail", _fails)
            study.take_over()  # it waits to go on, and runs still
    with Study(space, dataset="x") as study, study.locked():
        study.take_over()
        assert study.begin()[1].name == "0000"
        assert study.begin()[1].name == "0001"
