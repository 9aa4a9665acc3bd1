import pytest

from beam_jobs.contract.config import config_from_dict
from trainer.runs.checkpoints import RunState
from trainer.training.early_stopping import AUTO_PATIENCE, is_out_of_patience


def _config(train=(), **optimizer):
    raw = {"name": "a", "data": {"source": "jsonl", "inputs": ["a"]}, "model": {"name": "bow"}}
    return config_from_dict(raw | {"train": dict(train), "optimizer": optimizer}, what="")


def _state(*scores, macro=0.0):
    history = [{"validation_micro_f1": score, "validation_macro_f1": macro} for score in scores]
    best = 1 + max(range(len(scores)), key=lambda i: scores[i])
    return RunState(epoch=len(scores), best_epoch=best, history=history)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_a_run_stops_after_as_many_epochs_without_a_better_one(patience):
    config = _config({"patience": patience})
    assert not is_out_of_patience(_state(0.2, 0.5, *[0.5] * (patience - 1)), config)
    assert is_out_of_patience(_state(0.2, 0.5, *[0.5] * patience), config)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_auto_never_stops_while_the_rate_falls_to_the_end(schedule):
    state = _state(0.5, *[0.4] * 30)
    assert not is_out_of_patience(state, _config(schedule=schedule))
    assert is_out_of_patience(state, _config(schedule="constant"))
    assert is_out_of_patience(state, _config({"patience": 3}, schedule=schedule))


def test_with_plateau_epochs_count_from_the_first_lower_rate_on():
    config = _config(schedule="plateau", plateau_patience=3)
    assert not is_out_of_patience(_state(0.5, *[0.4] * (3 + AUTO_PATIENCE - 1)), config)
    assert is_out_of_patience(_state(0.5, *[0.4] * (3 + AUTO_PATIENCE)), config)


def test_epochs_that_have_learned_nothing_do_not_count():
    assert not is_out_of_patience(_state(*[0.0] * 8), _config())
    macro = _config({"objective": "macro_f1"})
    assert not is_out_of_patience(_state(0.5, *[0.4] * 8), macro)
    assert is_out_of_patience(_state(0.5, *[0.4] * 8, macro=0.1), macro)


def test_null_never_stops():
    assert not is_out_of_patience(_state(0.5, *[0.4] * 99), _config({"patience": None}))
