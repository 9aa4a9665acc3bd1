import pytest

from beam_jobs.contract.errors import UserError
from trainer.linear import costs
from trainer.linear.costs import Costs


@pytest.fixture(autouse=True)
def _memory(monkeypatch):
    monkeypatch.setattr(costs, "available_bytes", lambda: 4 << 30)


def test_features_that_take_too_long_for_many_labels_are_not_tried_and_told_of():
    few, many = Costs(3_300_000, 100, processes=2), Costs(3_300_000, 1_200, processes=2)
    assert few.obstacle("words_bigrams") == many.obstacle("words_bigrams") == ""
    assert few.obstacle("words_chars") == ""
    obstacle = many.obstacle("words_chars")
    assert "minutes of a core" in obstacle and "`model.features: words_chars`" in obstacle


def test_features_that_do_not_fit_in_memory_are_not_tried_and_refused_where_they_are_asked_for():
    large = Costs(10_000_000, 10, processes=2)
    assert "GiB of memory" in large.obstacle("words_chars")
    large.check_memory("words")
    with pytest.raises(UserError, match="words_chars of 10,000,000 train tokens need about"):
        large.check_memory("words_chars")
