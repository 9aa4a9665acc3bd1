"""The command `train`: trains a model, or resumes a run that was stopped."""

import os

import tensorflow as tf

from beam_jobs.contract import places
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from trainer.distribution.strategy import (
    explain_lost_workers,
    is_chief,
    num_workers,
    sum_over_workers,
    wait_for_all_workers,
)
from trainer.document_vectors import with_vectors
from trainer.experiment import Experiment, assemble
from trainer.losses.losses import build_loss
from trainer.runs import checkpoints
from trainer.runs.directories import log_dir
from trainer.training.callbacks import make_callbacks
from trainer.training.carry_over import CarryOver
from trainer.training.resume import open_run_directory
from trainer.training.signals import StoppedBySignal, StopRequest
from trainer.training.tokenizer_fit import misfit
from trainer.training.train_step import make_label_sampler
from trainer.training.training_run import TrainingRun


def train(config: Config, *, fresh: bool = False, source: str | None = None) -> None:
    """Trains a model, or resumes a run at the step after its newest checkpoint.

    Args:
      config: the experiment.
      fresh: delete what an earlier run left in `train.run_dir`.
      source: another run or an exported model, whose weights a new run starts from, see
        `trainer.training.carry_over.CarryOver`; a run that is resumed goes on with its own.

    Raises:
      UserError: dataset, strategy or run directory do not fit the config, a shard is corrupt, or
        the loss is not finite any more.
      StoppedBySignal: SIGINT or SIGTERM has ended the run after a checkpoint.
      LostWorkerError: another worker has ended.
    """
    experiment = assemble(config, for_training=True, fresh=fresh)
    if experiment.auto and is_chief(experiment.strategy):
        print(experiment.auto, flush=True)
    if isinstance(experiment.config.model, PretrainedConfig) and is_chief(experiment.strategy):
        if warning := misfit(experiment.dataset):
            print(warning, flush=True)
    has_begun = not fresh and checkpoints.has_begun(experiment.run_dir)
    earlier = None
    if source is not None and not has_begun:
        earlier = CarryOver(experiment, source)
        experiment = earlier.experiment
    with explain_lost_workers(experiment.strategy):
        try:
            if isinstance(experiment.config.model, LinearConfig):
                _fit(experiment, fresh=fresh)
            else:
                _train(experiment, fresh=fresh, earlier=earlier)
        finally:
            experiment.push()
        wait_for_all_workers(experiment.strategy)


def _fit(experiment: Experiment, *, fresh: bool) -> None:
    """Fits a linear model."""
    # scikit-learn takes a second to import, and no other model needs it.
    from trainer.training.linear_run import LinearRun

    workers, run_dir = num_workers(experiment.strategy), experiment.config.train.run_dir
    if workers > 1 and places.is_remote(run_dir):
        raise UserError(
            f"train.run_dir: received {run_dir!r} for `model.name: linear` with {workers} workers, "
            "which give each other the labels that they fit by files there; expected a directory "
            "on a disk that all of them see, or one worker"
        )
    with open_run_directory(experiment, fresh=fresh):
        run = LinearRun(experiment)
        try:
            with StopRequest() as stop:
                if not run.is_finished:
                    run.fit(stop)
        except StoppedBySignal as stopped:
            if is_chief(experiment.strategy):
                print(
                    f"stopped by {stopped.signal}; the labels that are fitted are kept, and the "
                    "same command goes on with the others",
                    flush=True,
                )
            raise
    if is_chief(experiment.strategy):
        print(run.result(), flush=True)


def _train(experiment: Experiment, *, fresh: bool, earlier: CarryOver | None) -> None:
    # Whatever may refuse the config comes before the run directory is touched.
    _check_config(experiment)
    loss = build_loss(experiment.config.loss, **experiment.loss_statistics)
    sampler = make_label_sampler(experiment)
    callbacks = make_callbacks(experiment.config.train.callbacks)
    with open_run_directory(experiment, fresh=fresh, earlier=earlier):
        experiment = with_vectors(experiment, ["train", "validation"])
        run = TrainingRun(
            experiment, loss=loss, sampler=sampler, callbacks=callbacks, earlier=earlier
        )
        with StopRequest() as stop, _log_writer(experiment).as_default(), run.checkpoints:
            run.begin()
            stopped_by = _train_epochs(run, stop, experiment.strategy)
            run.end()

    stopped_early = stopped_by is not None and not run.is_finished
    if is_chief(experiment.strategy):
        if stopped_early:
            print(
                f"stopped by {stopped_by} after step {run.state.step:,}, which is saved; the same "
                "command resumes there",
                flush=True,
            )
        else:
            print(run.result(), flush=True)
    if stopped_early:
        raise StoppedBySignal(stopped_by)


def _train_epochs(
    run: TrainingRun, stop: StopRequest, strategy: tf.distribute.Strategy
) -> str | None:
    """Trains until the run is finished or a signal has come; returns the name of the signal.

    The last step is saved.
    """
    stopped_by = None
    while not run.is_finished and not stopped_by:
        with run.epoch():
            while run.steps_left and not stopped_by:
                run.train_steps(run.steps_of_next_call())
                stopped_by = _signal_of_any_worker(stop, strategy)
                if run.steps_left and (stopped_by or run.checkpoint_is_due):
                    run.save()
        if not run.steps_left:
            run.finish_epoch()
            stopped_by = stopped_by or _signal_of_any_worker(stop, strategy)
    return stopped_by


def _signal_of_any_worker(stop: StopRequest, strategy: tf.distribute.Strategy) -> str | None:
    """The signal that any worker has received: all must stop after the same step."""
    count = sum_over_workers(strategy, int(stop.requested is not None))
    return (stop.requested or "SIGTERM") if count else None


def _check_config(experiment: Experiment) -> None:
    """Raises UserError where the config does not fit the dataset or the replicas."""
    train, replicas = experiment.config.train, experiment.strategy.num_replicas_in_sync
    if train.batch_size % (replicas * train.accumulate_steps):
        raise UserError(
            f"train.batch_size: received {train.batch_size}, expected a multiple of "
            "train.accumulate_steps x replicas = "
            f"{train.accumulate_steps} x {replicas}"
        )
    schedule = experiment.config.optimizer.schedule
    if schedule == "plateau" and not experiment.dataset.num_examples("validation"):
        raise UserError(
            "optimizer.schedule: received 'plateau', and the dataset has no validation split; "
            "expected another schedule, or the split"
        )


def _log_writer(experiment: Experiment) -> tf.summary.SummaryWriter:
    if not is_chief(experiment.strategy):
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(log_dir(str(experiment.run_dir), os.environ))
