import pytest

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.tune import seconds_of


def _tune(**keys):
    raw = {"name": "tiny", "data": {"source": "jsonl", "inputs": ["a"]}, "tune": keys}
    return config_from_dict(raw, what="x.yaml").tune


@pytest.mark.parametrize(
    ("time", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_times(time, seconds):
    assert seconds_of(time) == _tune(time=time).seconds == seconds


@pytest.mark.parametrize("time", ["", "30", "5 m", "m", "1m1h", "0s", "-1s"])
def test_what_is_no_time_is_refused(time):
    with pytest.raises(UserError, match="expected a time such as 90s, 30m or 1h30m"):
        _tune(time=time)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optimizer.learning_rat": [1]}, "did you mean 'optimizer.learning_rate'?"),
        ({"text.strip_html": [True]}, "expected a key of model, loss, optimizer, train"),
        ({"train.run_dir": ["a"]}, "train.run_dir: cannot be searched"),
        ({"model.dropout": {"low": 1, "hi": 2}}, "did you mean 'high'?"),
        ({"model.dropout": {"low": 1, "high": 1}}, "expected low below high, not 1 and 1"),
        ({"model.dropout": {"low": 0, "high": 1, "log": True}}, "with low above 0"),
        ({"model.dropout": []}, "expected at least one value of model.dropout"),
        ({}, "expected keys, or null for the default"),
    ],
)
def test_a_wrong_space_says_what_is_right(space, message):
    with pytest.raises(UserError) as raised:
        _tune(space=space)
    assert message in str(raised.value)


def test_a_search_has_an_end():
    assert _tune(time=None, trials=3).seconds is None
    with pytest.raises(UserError, match="expected time or trials"):
        _tune(time=None)
