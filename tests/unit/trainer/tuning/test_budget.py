import pytest

from trainer.tuning.budget import Budget


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_trial_begins_if_one_of_median_length_ends_in_time(clock):
    budget = Budget(60, None, clock=clock)
    assert budget.reason_to_end(begun=0, durations=[]) is None
    clock.now += 40
    assert budget.reason_to_end(begun=3, durations=[1, 20, 900]) is None
    assert (
        budget.reason_to_end(begun=3, durations=[1, 21, 900])
        == "a trial takes about 21 s, and 20 s are left"
    )


def test_without_finished_trials_one_begins_until_the_time_is_up(clock):
    budget = Budget(60, None, clock=clock)
    clock.now += 59
    assert budget.reason_to_end(begun=9, durations=[]) is None and not budget.is_over
    clock.now += 1
    assert budget.reason_to_end(begun=9, durations=[]) == "the time is up" and budget.is_over


def test_trials_are_those_of_the_study_and_no_time_is_no_end(clock):
    budget = Budget(None, 5, clock=clock)
    clock.now += 1e9
    assert budget.reason_to_end(begun=4, durations=[1e6]) is None and not budget.is_over
    assert budget.reason_to_end(begun=5, durations=[]) == "the study has its 5 trials"
