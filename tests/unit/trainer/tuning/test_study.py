import optuna
import pytest

from trainer.tuning.study import make_pruner


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
