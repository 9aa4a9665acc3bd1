"""The command `train` for a linear model, which is fitted label by label, not trained by steps."""

import dataclasses
import os
import shutil
import time
from typing import Any

import numpy as np

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.manifest import dump_json
from beam_jobs.contract.sections.train import LINEAR_TRAIN_KEYS, TrainConfig
from trainer.data.shards import describe_corruption
from trainer.distribution.strategy import is_chief, num_workers, sum_over_workers, worker_index
from trainer.evaluation.evaluator import Evaluator
from trainer.experiment import Experiment, vocabulary_statistics
from trainer.linear.fit import FittedLinear, Team, fit_linear
from trainer.runs.checkpoints import Checkpoints, RunState
from trainer.runs.history import describe_validation
from trainer.runs.layout import HISTORY, LABEL_FITS
from trainer.training.signals import StoppedBySignal, StopRequest

_STOPPED = "stopped"  # a file that tells the other workers to stop; it holds the signal's name


class LinearRun:
    """A run of a linear model. If it is finished, its model is restored.

    Args:
      experiment: what `trainer.experiment.assemble` has put together.

    Attributes:
      state: where the run is: after 0 epochs or one.

    Raises:
      UserError: a checkpoint cannot be restored.
    """

    def __init__(self, experiment: Experiment):
        self._experiment, self._started = experiment, time.monotonic()
        self._directory = experiment.run_dir / LABEL_FITS
        if is_chief(experiment.strategy):
            (self._directory / _STOPPED).unlink(missing_ok=True)
        sum_over_workers(experiment.strategy, 0)  # that file is gone
        self.state = self._checkpoints(experiment).restore_latest() or RunState()

    @property
    def is_finished(self) -> bool:
        return self.state.epoch > 0

    def fit(self, stop: StopRequest) -> None:
        """Fits the model, measures it on validation, and saves it.

        Labels that an earlier process has fitted are not fitted again.

        Raises:
          UserError: the train split does not fit in memory, or a shard is corrupt.
          StoppedBySignal: this worker or another has received a signal.
        """
        experiment = self._experiment
        strategy, config = experiment.strategy, experiment.config
        chief = is_chief(strategy)

        def agree(number: int) -> int:
            return int(sum_over_workers(strategy, np.int64(number if chief else 0)))

        team = Team(
            index=worker_index(strategy),
            number=num_workers(strategy),
            agree=agree,
            cores=len(os.sched_getaffinity(0)),
            say=lambda line: print(line, flush=True) if chief else None,
            check=lambda: self._check(stop),
        )
        team.say(self._description())
        fitted = fit_linear(
            config.model,
            experiment.dataset,
            vocabulary_statistics(experiment.dataset),
            experiment.vectorizer,
            directory=self._directory,
            team=team,
            objective=config.train.objective,
            skip_corrupt=config.train.on_corrupt == "skip",
        )
        team.say(_describe(fitted, self._experiment.dataset.num_labels))
        self._save(fitted)

    def _check(self, stop: StopRequest) -> None:
        marker = self._directory / _STOPPED
        if stop.requested:
            marker.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(marker, stop.requested)
            raise StoppedBySignal(stop.requested)
        if num_workers(self._experiment.strategy) > 1 and marker.exists():
            raise StoppedBySignal(marker.read_text(encoding="utf-8"))

    def _save(self, fitted: FittedLinear) -> None:
        experiment, state = self._experiment, self.state
        with experiment.strategy.scope():
            model = fitted.model(vocabulary_statistics(experiment.dataset))
        experiment = dataclasses.replace(experiment, model=model)
        row = self._row(experiment, fitted)
        state.step = state.epoch = 1
        state.history.append(row)
        state.config, state.sizes = experiment.config.to_yaml(), model.sizes
        if row["threshold"] is not None:
            state.best_epoch = 1
        with self._checkpoints(experiment) as checkpoints:
            checkpoints.save_best(state)
            checkpoints.save(state)
        if is_chief(experiment.strategy):
            write_atomically(experiment.run_dir / HISTORY, dump_json(state.history))
            shutil.rmtree(self._directory, ignore_errors=True)

    def _checkpoints(self, experiment: Experiment) -> Checkpoints:
        return Checkpoints(
            experiment.run_dir, experiment.model, optimizer=None, strategy=experiment.strategy
        )

    def _row(self, experiment: Experiment, fitted: FittedLinear) -> dict[str, Any]:
        """The row of history.json, in the columns that other models have."""
        validated = Evaluator(experiment).validate()
        seconds = time.monotonic() - self._started
        return {
            "epoch": 1,
            "step": 1,
            "loss": None,
            "skipped": experiment.dataset.num_examples("train") - fitted.num_documents,
            **validated,
            **fitted.choice._asdict(),
            "learning_rate": None,
            "documents_per_second": round(fitted.num_documents / seconds),
            "seconds": round(seconds, 3),
        }

    # --- in words ----------------------------------------------------------------------

    def _description(self) -> str:
        dataset, train = self._experiment.dataset, self._experiment.config.train
        text = (
            f"fitting linear: {dataset.num_examples('train'):,} documents, "
            f"{dataset.num_labels:,} labels, {len(dataset.vocabulary):,} tokens"
        )
        unread = [
            f"train.{key}"
            for key, field in TrainConfig.model_fields.items()
            if key not in LINEAR_TRAIN_KEYS and getattr(train, key) != field.default
        ]
        if unread:
            text += f"; {', '.join(unread)}: of no use here, since no steps are trained"
        return text

    def result(self) -> str:
        """What the run has come to, in words."""
        row, text = self.state.history[-1], "fitted"
        if row["threshold"] is not None:
            text += f": {describe_validation(row)}"
        text += f", {row['seconds']:.1f} s; checkpoint in {self._experiment.run_place}"
        if row["skipped"]:
            faults = describe_corruption(self._experiment.dataset, "train")
            lines = [
                f"warning: train.on_corrupt is `skip`, {row['skipped']:,} documents skipped:",
                *faults,
                text,
            ]
            text = "\n  ".join(lines[:-1]) + "\n" + text
        return text


def _describe(fitted: FittedLinear, num_labels: int) -> str:
    weights = fitted.weights
    arrays = (weights.row_splits, weights.label_ids, weights.values, weights.bias)
    kept, of = len(weights.values), max(fitted.num_fitted, 1)
    num_terms = len(weights.row_splits) - 1
    text = (
        f"{fitted.choice}: {num_terms:,} terms x {num_labels:,} labels, {kept:,} weights kept, "
        f"{kept / of:.0%} of those not 0; {sum(array.nbytes for array in arrays) / 1e6:,.1f} MB"
    )
    if fitted.num_unfinished:
        text += (
            f"\n{fitted.num_unfinished:,} labels stopped at the solver's limit of iterations: a "
            "lower model.C helps"
        )
    return text
