import pytest

from trainer.tuning.trial_run import best_by_tenth


def test_runs_of_different_lengths_are_compared_at_equal_parts():
    short, long = best_by_tenth([0.1, 0.4], 4), best_by_tenth([0.1, 0.2, 0.3, 0.4], 8)
    assert short == {3: 0.1, 4: 0.1, 5: 0.4, 6: 0.4, 7: 0.4}
    assert long == {2: 0.1, 3: 0.2, 4: 0.3, 5: 0.4, 6: 0.4}


def test_the_best_so_far_counts_and_not_the_last():
    assert best_by_tenth([0.5, 0.1], 2) == {t: 0.5 for t in range(5, 11)}


@pytest.mark.parametrize("epochs", [1, 3, 10, 37])
def test_a_whole_run_ends_with_the_last_tenth(epochs):
    values = [0.1 * i for i in range(epochs)]
    assert best_by_tenth(values, epochs)[10] == values[-1]
    assert 10 not in best_by_tenth(values[:-1], epochs) or epochs > 10
    assert best_by_tenth([], epochs) == {}
