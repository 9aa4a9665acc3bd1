"""What a search has found: the table of its trials, the best config, the plots."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.train import OBJECTIVE_TITLES
from trainer.report import plots
from trainer.tuning.space import Space
from trainer.tuning.study import ERROR, START, Study

BEST = "best.yaml"
_HISTORY, _IMPORTANCE = "history.png", "importance.png"
_ROWS = 20
_CONSOLE_WIDTH = 10_000  # wider than any table, so that the text does not depend on the terminal
_MIN_TRIALS_FOR_IMPORTANCE = 4
_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "to go on",
}


def write_best(space: Space, study: Study) -> None:
    """Writes the config with the best values, if a trial has finished."""
    best = study.best()
    if best is not None:
        config = space.config(best.params)
        write_atomically(Path(config.tune.dir) / BEST, config.to_yaml())


def write(space: Space, study: Study) -> list[str]:
    """Writes the best config and the plots; returns the names of the plots."""
    with study.locked():
        write_best(space, study)
    directory, drawn = Path(space.base.tune.dir), []
    for name, draw in ((_HISTORY, _draw_history), (_IMPORTANCE, _draw_importance)):
        with matplotlib.rc_context(plots.STYLE):
            figure = draw(space, study)
        if figure is not None:
            write_atomically(directory / name, plots.png(figure))
            drawn.append(name)
    return drawn


def check_finished(space: Space, study: Study) -> None:
    """Raises UserError if no trial has finished."""
    if study.best() is None:
        raise UserError(
            f"tune.time: received {space.base.tune.time}, in which no trial has finished; "
            "expected more: the same command goes on where the trials were stopped"
        )


def summary(space: Space, study: Study, drawn: Sequence[str]) -> str:
    """The table of the trials, the best first, and the commands to go on with."""
    trials = study.trials()
    counts = {
        word: sum(trial.state == state for trial in trials) for state, word in _STATES.items()
    }
    lines = [
        _table(space, trials),
        f"{len(trials):,} trials: "
        + ", ".join(f"{count:,} {word}" for word, count in counts.items() if count),
    ]
    best = study.best()
    if best is not None:
        title, directory = OBJECTIVE_TITLES[space.base.train.objective], Path(space.base.tune.dir)
        lines += [
            f"best: trial {best.number}, validation {title} {best.value:.4f}",
            f"plots: {' '.join(str(directory / name) for name in drawn)}",
            f"go on with: multihot-train --config {directory / BEST}",
            "or with the trial's own weights: multihot-evaluate --config "
            f"{study.directory(best) / 'config.yaml'}",
        ]
    return "\n".join(lines)


def values_in_words(values: Mapping[str, Any]) -> str:
    """Such as `learning_rate 0.01, dropout 0.5`."""
    return ", ".join(f"{_short(key)} {_shown(value)}" for key, value in values.items())


def _table(space: Space, trials: list[FrozenTrial]) -> str:
    order = sorted(
        trials,
        key=lambda trial: (
            list(_STATES).index(trial.state),
            -trial.value if trial.state == TrialState.COMPLETE else trial.number,
        ),
    )
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    title = OBJECTIVE_TITLES[space.base.train.objective]
    for column in ("trial", title, "seconds", *map(_short, space.distributions)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for trial in order[:_ROWS]:
        values = sorted(trial.intermediate_values.items())
        score = trial.value if trial.value is not None else (values[-1][1] if values else None)
        seconds = trial.duration.total_seconds() if trial.duration else None
        remarks = [_STATES[trial.state]] if trial.state != TrialState.COMPLETE else []
        remarks += ["the config's own"] if trial.user_attrs.get(START) else []
        remarks += [trial.user_attrs[ERROR][:60]] if ERROR in trial.user_attrs else []
        table.add_row(
            str(trial.number),
            "-" if score is None else f"{score:.4f}",
            "-" if seconds is None else f"{seconds:,.0f}",
            *(_shown(trial.params[k]) if k in trial.params else "-" for k in space.distributions),
            Text(", ".join(remarks)),
        )
    stream = io.StringIO()
    Console(file=stream, width=_CONSOLE_WIDTH, color_system=None, force_jupyter=False).print(table)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    if len(order) > _ROWS:
        lines.append(f"... and {len(order) - _ROWS:,} more")
    return "\n".join(lines)


def _short(key: str) -> str:
    """The key without its section, but for the name of a kind."""
    section, _, name = key.partition(".")
    return section if name == "name" else name


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- plots -----------------------------------------------------------------------------


def _draw_history(space: Space, study: Study) -> Any:
    finished = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    if not finished:
        return None
    axes = plots.new_axes("trial", f"{OBJECTIVE_TITLES[space.base.train.objective]} on validation")
    numbers, values = [t.number for t in finished], [t.value for t in finished]
    axes.plot(numbers, values, "o", markersize=4, color=plots.SERIES[0], label="a trial")
    best = [max(values[: i + 1]) for i in range(len(values))]
    axes.step(numbers, best, where="post", color=plots.SERIES[1], label="the best so far")
    axes.legend(loc="lower right")
    return axes.figure


def _draw_importance(space: Space, study: Study) -> Any:
    """By fANOVA (Hutter et al. 2014), of the keys that every finished trial has."""
    finished = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    if len(finished) < _MIN_TRIALS_FOR_IMPORTANCE or len({t.value for t in finished}) < 2:
        return None
    keys = [
        key
        for key in space.distributions
        if all(key in t.params for t in finished) and len({t.params[key] for t in finished}) > 1
    ]
    if not keys:
        return None
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=space.base.tune.seed)
    importance = optuna.importance.get_param_importances(
        study.optuna_study, evaluator=evaluator, params=keys
    )
    names = list(reversed(importance))
    axes = plots.new_axes("part of the variance", "", height=0.6 + 0.35 * len(names))
    axes.barh(names, [importance[name] for name in names], color=plots.SERIES[0])
    return axes.figure
