"""The command `multihot-tune`: trains with one set of values after the other."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError, first_line
from beam_jobs.contract.manifest import MANIFEST
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.train import OBJECTIVE_TITLES
from trainer.auto import resolve
from trainer.data.dataset import open_dataset
from trainer.training.signals import StoppedBySignal, StopRequest
from trainer.tuning import results
from trainer.tuning.budget import Budget
from trainer.tuning.space import Space
from trainer.tuning.study import ERROR, START, Study, dataset_hash, explain_storage
from trainer.tuning.trial_run import (
    COMMAND,
    TrialRun,
    best_by_tenth,
    delete_weights,
    run_dir,
    scores,
)

_POLL_SECONDS = 0.25
_MAX_FAILURES = 3  # so many trials one after the other, before any has finished
_USER_ERROR = 2
_PRUNED, _TIME_IS_UP = "pruned", "the time is up"


def tune(config: Config, *, command: Sequence[str] = COMMAND) -> None:
    """Searches until `tune.time` or `tune.trials` ends it, and prints and writes what it has found.

    Args:
      config: the experiment.
      command: what a trial runs, with the arguments of `trainer.tuning.trial_process`.

    Raises:
      UserError: dataset, space or storage cannot be used, or no trial has finished.
      StoppedBySignal: SIGINT or SIGTERM has ended the search.
    """
    dataset = open_dataset(config)
    if not dataset.num_examples("validation"):
        raise UserError(
            f"the dataset {dataset.place} has no validation documents, on which trials are "
            "compared; expected a validation split (`splits`)"
        )
    base, auto = resolve(config, dataset, fresh=True)
    space = Space.of(base)
    manifest = (dataset.directory / MANIFEST).read_text(encoding="utf-8")
    with (
        explain_storage(config),
        StopRequest() as stop,
        Study(space, dataset=dataset_hash(manifest)) as study,
    ):
        if auto:
            print(auto)
        print(_description(space, study), flush=True)
        search = _Search(space, study, stop, command)
        try:
            reason = search.run()
        finally:
            drawn = results.write(space, study)
        print(f"{reason}\n\n{results.summary(space, study, drawn)}", flush=True)
        if stop.requested:
            raise StoppedBySignal(stop.requested)
        results.check_finished(space, study)


class _Search:
    """One worker of a search."""

    def __init__(self, space: Space, study: Study, stop: StopRequest, command: Sequence[str]):
        self._space, self._study, self._stop, self._command = space, study, stop, command
        self._config, self._objective = space.base, space.base.train.objective
        self._budget = Budget(self._config.tune.seconds, self._config.tune.trials)

    def run(self) -> str:
        """Runs trials until no further one may begin; returns why."""
        while True:
            with self._study.locked():
                if count := self._study.take_over():
                    print(f"{count} trial(s) whose search was ended go on", flush=True)
                if reason := self._reason_to_end():
                    return reason
                trial, directory, values = self._study.begin()
            try:
                self._run(trial, directory, values)
            except BaseException:
                with self._study.locked():
                    self._study.stop(trial, "interrupted")
                raise
            self._delete_weights()

    def _reason_to_end(self) -> str | None:
        if self._stop.requested:
            return f"stopped by {self._stop.requested}; the same command goes on"
        trials = self._study.trials()
        ended = [trial for trial in trials if trial.state.is_finished()]
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            failed = [trial for trial in ended if trial.state == TrialState.FAIL]
            if len(failed) >= _MAX_FAILURES:
                raise UserError(
                    f"the first {len(failed)} trials have failed, the last with: "
                    f"{failed[-1].user_attrs.get(ERROR)}\n(what it printed is in "
                    f"{self._study.trials_dir}; expected trials that can be trained)"
                )
        return self._budget.reason_to_end(
            begun=sum(trial.state != TrialState.WAITING for trial in trials),
            durations=[
                trial.duration.total_seconds()
                for trial in ended
                if trial.state == TrialState.COMPLETE
            ],
        )

    # --- a trial -----------------------------------------------------------------------

    def _run(self, trial: optuna.Trial, directory: Path, values: dict[str, Any]) -> None:
        started = time.monotonic()
        try:
            config = self._space.config(values, run_dir=str(run_dir(directory)))
        except UserError as error:
            self._study.fail(trial, first_line(error))
            print(self._line(trial, values, f"cannot be trained: {error}"), flush=True)
            return
        run = TrialRun(directory, config, command=self._command)
        with run.process() as process:
            # A linear model is fitted once.
            epochs = 1 if isinstance(config.model, LinearConfig) else config.train.epochs
            ending = self._watch(trial, run, process, epochs=epochs)
        if process.returncode and not ending and self._stop.requested:
            ending = self._stopped()  # the signal has reached the trial too
        history = run.history()
        seconds = time.monotonic() - started
        if ending:
            with self._study.locked():
                if ending == _PRUNED:
                    self._study.prune(trial)
                else:
                    self._study.stop(trial, ending)
        elif process.returncode or not history:
            reason = run.reason_of_failure(process.returncode)
            if trial.user_attrs.get(START) and process.returncode == _USER_ERROR:
                raise UserError(reason)  # it is begun again once that is mended
            self._study.fail(trial, reason)
            ending = f"failed: {reason}"
        else:
            drawn = values or self._start_values(config, history)
            values = drawn
            score = max(scores(history, self._objective))
            self._study.finish(trial, score, values={} if trial.params else drawn)
            ending = f"{OBJECTIVE_TITLES[self._objective]} {score:.4f}"
        print(self._line(trial, values, f"{ending}, {seconds:,.0f} s"), flush=True)

    def _watch(self, trial, run: TrialRun, process, *, epochs: int) -> str | None:
        """Waits for the end of the process; returns why it was ended before, if it was."""
        reported: set[int] = set()
        title = OBJECTIVE_TITLES[self._objective]
        with ProgressLine(f"trial {trial.number}", plain_line_seconds=60) as line:
            while True:
                is_over = process.poll() is not None
                values = scores(run.history(), self._objective)
                new = {
                    tenth: value
                    for tenth, value in best_by_tenth(values, epochs).items()
                    if tenth not in reported
                }
                for tenth, value in new.items():
                    trial.report(value, tenth)
                reported |= new.keys()
                if is_over:
                    return None
                done = (
                    f"epoch {len(values)} of {epochs}, {title} {values[-1]:.4f}" if values else ""
                )
                line.update(len(values), epochs, done or "no epoch is done yet")
                if ending := self._ending(trial, is_new=bool(new) and len(values) < epochs):
                    self._end(process)
                    return ending
                time.sleep(_POLL_SECONDS)

    def _ending(self, trial: optuna.Trial, *, is_new: bool) -> str | None:
        """Why the trial is to end now; `is_new`: it has reported something since."""
        if self._stop.requested:
            return self._stopped()
        if self._budget.is_over:
            return _TIME_IS_UP
        # The config's own choice is what all others are measured by.
        is_worse = is_new and trial.should_prune()
        return _PRUNED if is_worse and not trial.user_attrs.get(START) else None

    def _stopped(self) -> str:
        return f"stopped by {self._stop.requested}"

    def _end(self, process) -> None:
        """Lets the process save its step, for `tune.grace_seconds`."""
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._config.tune.grace_seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _start_values(self, config: Config, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The values of the config's own choice, as far as the space has them."""
        values = self._space.start_values()
        if isinstance(config.model, LinearConfig):
            chosen = {f"model.{key}": history[-1].get(key) for key in ("features", "C")}
            values |= self._space.known(chosen)
        return values

    def _delete_weights(self) -> None:
        """Keeps the weights of the best trial, and of those that are to go on."""
        with self._study.locked():
            best = self._study.best()
            for trial in self._study.trials():
                if trial.state.is_finished() and (best is None or trial.number != best.number):
                    delete_weights(self._study.directory(trial))
            results.write_best(self._space, self._study)

    def _line(self, trial: optuna.Trial, values: dict[str, Any], ending: str) -> str:
        best, shown = self._study.best(), results.values_in_words(values)
        text = f"trial {trial.number}: {ending}"
        if trial.user_attrs.get(START):
            shown = "the config's own choice" + (f" ({shown})" if shown else "")
        if best is not None and best.number == trial.number:
            text += " (best)"
        return f"{text}; {shown}"


def _description(space: Space, study: Study) -> str:
    tune, title = space.base.tune, OBJECTIVE_TITLES[space.base.train.objective]
    ends = [f"{tune.time} of time"] if tune.time else []
    ends += [f"{tune.trials:,} trials"] if tune.trials else []
    lines = [
        f"tuning {space.base.model.name} for {title} on validation, within {' and '.join(ends)}, "
        f"in {tune.dir}",
        *(f"  {line}" for line in space.describe()),
    ]
    if done := sum(trial.state.is_finished() for trial in study.trials()):
        lines.append(f"going on after {done:,} trials")
    return "\n".join(lines)
