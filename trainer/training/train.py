"""The training run: epochs, validation, checkpoints, early stopping, logs."""

import contextlib
import inspect
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import Config, differing_keys, load_saved_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST, dump_json
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.training_config import OptimizerConfig, SequenceModel
from trainer.data.input_pipeline import delete_in_background, train_batches
from trainer.data.shards import describe_corruption, explain_corrupt_shards, plan_split
from trainer.distribution.cluster import log_dir
from trainer.distribution.strategy import (
    check_agreement,
    describe,
    explain_lost_workers,
    is_chief,
    num_workers,
    sum_over_workers,
)
from trainer.evaluation.evaluator import Evaluator
from trainer.experiment import Experiment, assemble
from trainer.losses import losses
from trainer.losses.description import describe_loss
from trainer.losses.sampled_negatives import LabelSampler
from trainer.metrics import thresholds
from trainer.runs.checkpoints import Checkpoints, RunState
from trainer.runs.layout import CONFIG, DATASET_MANIFEST, HISTORY
from trainer.training import optimizers
from trainer.training.callbacks import Callbacks, epoch_logs, make_callbacks
from trainer.training.optimizers import build_optimizer
from trainer.training.signals import StopRequest, exit_status
from trainer.training.train_step import make_train_steps

# Keys that may differ between a run and its resumption: they change how long it trains, where and what it keeps, no step.
_MAY_CHANGE = tuple(
    f"train.{key}"
    for key in (
        *("run_dir", "strategy", "replicas", "worker_timeout_seconds", "on_corrupt"),
        *("patience", "steps_per_call", "checkpoint_steps", "keep_checkpoints"),
    )
)
_RUN_SECTIONS = ("model", "loss", "optimizer", "train")
_PADDED_LENGTH_WINDOW = 16  # steps sorted by length together, where the model pads


def train(config: Config, *, fresh: bool = False) -> None:
    """Trains a model, or resumes a run at the step after its newest checkpoint.

    A signal ends it after a checkpoint, with the exit status that shells give to the signal.

    Args:
      config: the experiment.
      fresh: delete what an earlier run left in `train.run_dir`.

    Raises:
      UserError: dataset, strategy or run directory do not fit the config, a shard is corrupt, or the loss is no number any more.
    """
    experiment = assemble(config, for_training=True)
    with explain_lost_workers(experiment.strategy):
        _train(experiment, fresh=fresh)


def _train(experiment: Experiment, *, fresh: bool) -> None:
    config, dataset, strategy, run_dir = (
        experiment.config,
        experiment.dataset,
        experiment.strategy,
        experiment.run_dir,
    )
    chief = is_chief(strategy)
    _check_config(experiment)
    sampler, made_callbacks = _label_sampler(experiment), make_callbacks(config.train.callbacks)
    _open_run_together(experiment, fresh=fresh)

    # --- what is trained -----------------------------------------------------------
    examples = dataset.num_examples("train")
    plan = plan_split(
        dataset,
        "train",
        num_workers=num_workers(strategy),
        global_batch_size=config.train.batch_size,
        shard_by=config.train.shard_by,
    )
    with strategy.scope():
        optimizer = build_optimizer(
            config.optimizer,
            total_steps=config.train.epochs * plan.steps,
            scales_loss=config.train.precision == "float16",
        )
        optimizer.build(experiment.model.trainable_variables)
    checkpoints = Checkpoints(
        run_dir, experiment.model, optimizer, strategy=strategy, keep=config.train.keep_checkpoints
    )
    train_steps = make_train_steps(
        strategy,
        experiment.model,
        optimizer,
        loss=losses.build_loss(config.loss, **experiment.loss_statistics),
        num_labels=dataset.num_labels,
        global_batch_size=config.train.batch_size,
        accumulate_steps=config.train.accumulate_steps,
        sampler=sampler,
    )
    evaluator = Evaluator(experiment)
    variables = [*experiment.model.trainable_variables, *optimizer.variables]
    callbacks = Callbacks(
        made_callbacks,
        model=experiment.model,
        optimizer=optimizer,
        strategy=strategy,
        epochs=config.train.epochs,
        steps=plan.steps,
    )

    # --- where it stands -----------------------------------------------------------
    state = checkpoints.restore_latest() or RunState()
    check_agreement(
        strategy,
        state.step,
        what="the step restored (train.run_dir must be a directory that all workers share)",
    )
    _check_data_order(state, plan.order)
    state.config = config.to_yaml()
    if chief:
        write_atomically(
            run_dir / HISTORY, dump_json(state.history)
        )  # a run killed after a checkpoint has not written its last row
        print(
            f"training {config.model.name} on {describe(strategy)}: {examples:,} documents, {dataset.num_labels:,} labels, "
            f"{len(dataset.vocabulary):,} tokens, {sum(math.prod(v.shape) for v in experiment.model.trainable_variables):,} weights"
            + (f"; documents go to workers {plan.order}" if num_workers(strategy) > 1 else ""),
            flush=True,
        )
        print(describe_loss(config.loss, **experiment.loss_statistics), flush=True)
        if state.step:
            print(
                f"resuming after step {state.step:,} (epoch {state.epoch + 1}, step {state.step_in_epoch} of {plan.steps})",
                flush=True,
            )

    # --- epochs --------------------------------------------------------------------
    with contextlib.ExitStack() as stack:
        stop, writer, _ = (
            stack.enter_context(entered)
            for entered in (StopRequest(), _log_writer(experiment).as_default(), checkpoints)
        )
        stopped_by = None
        callbacks.begin(state.callbacks)
        while not _is_finished(state, config) and not stopped_by:
            started, first_step = time.monotonic(), state.step_in_epoch
            state.data_order = plan.order
            batches = train_batches(
                dataset,
                experiment.vectorizer,
                strategy,
                plan=plan,
                global_batch_size=config.train.batch_size,
                shuffle_buffer=config.train.shuffle_buffer,
                seed=config.train.seed,
                epoch=state.epoch,
                first_step=first_step,
                skip_corrupt=config.train.on_corrupt == "skip",
                length_bucket_steps=_length_bucket_steps(config),
            )
            iterators = [iter(batches)]
            callbacks("on_epoch_begin", state.epoch)
            with _progress(state, config, chief) as line, explain_corrupt_shards(dataset, "train"):
                while state.step_in_epoch < plan.steps and not stopped_by:
                    steps = _steps_to_next_stop(state, config, plan.steps)
                    callbacks("on_train_batch_begin", state.step_in_epoch + steps - 1)
                    sums = train_steps(iterators[0], tf.constant(steps)).numpy().astype(np.float64)
                    _check_losses(sums[:, 0], state.step)
                    for (
                        loss,
                        documents,
                    ) in (
                        sums.tolist()
                    ):  # one by one, so that the sum is the same wherever a run was cut
                        state.loss_sum += loss
                        state.documents += int(documents)
                    state.step += steps
                    state.step_in_epoch += steps
                    loss = sums[:, 0].sum() / max(sums[:, 1].sum(), 1)
                    tf.summary.scalar("loss", loss, step=state.step)
                    callbacks("on_train_batch_end", state.step_in_epoch - 1, logs={"loss": loss})
                    rate = (
                        (state.step_in_epoch - first_step)
                        * config.train.batch_size
                        / (time.monotonic() - started)
                    )
                    if line:
                        line.update(
                            state.step_in_epoch,
                            plan.steps,
                            f"step {state.step_in_epoch}/{plan.steps}, loss {loss:.4f}, {rate:,.0f} documents/s",
                        )
                    if (
                        config.train.checkpoint_steps
                        and state.step % config.train.checkpoint_steps == 0
                        and state.step_in_epoch < plan.steps
                    ):
                        _check_variables(variables, state.step)
                        state.callbacks = callbacks.counts()
                        checkpoints.save(state)
                    stopped_by = _agreed(stop, strategy)
            delete_in_background(iterators)
            if state.step_in_epoch < plan.steps:
                break
            train_seconds = time.monotonic() - started
            _check_variables(variables, state.step)
            callbacks("on_test_begin")
            with optimizers.averaged_weights(optimizer, experiment.model.trainable_variables):
                is_best = _end_epoch(state, config, evaluator, examples=examples)
                row = state.history[-1]
                row["learning_rate"] = float(optimizer.learning_rate.numpy())
                row |= {
                    "documents_per_second": round(rate),
                    "seconds": round(time.monotonic() - started, 3),
                }
                if is_best:
                    checkpoints.save_best(state)
            callbacks("on_test_end", logs=epoch_logs(row))
            state.stopped = callbacks("on_epoch_end", state.epoch - 1, logs=epoch_logs(row))
            state.callbacks = callbacks.counts()
            if config.optimizer.schedule == "plateau":
                _lower_rate_on_plateau(state, config.optimizer, optimizer)
            if chief:
                print(_epoch_line(state, train_seconds), flush=True)
                if row["skipped"]:
                    print(
                        "\n  ".join(
                            [
                                "warning: train.on_corrupt is `skip`:",
                                *describe_corruption(dataset, "train"),
                            ]
                        ),
                        flush=True,
                    )
            for key in (
                "loss",
                "learning_rate",
                "validation_micro_f1",
                "threshold",
                "documents_per_second",
            ):
                if row[key] is not None:
                    tf.summary.scalar(f"epoch_{key}", row[key], step=state.step)
            checkpoints.save(state)
            if chief:
                write_atomically(run_dir / HISTORY, dump_json(state.history))
            stopped_by = stopped_by or _agreed(stop, strategy)
        if stopped_by and state.step_in_epoch:
            _check_variables(variables, state.step)
            state.callbacks = callbacks.counts()
            checkpoints.save(state)
        callbacks("on_train_end")

    if stopped_by and not _is_finished(state, config):
        if chief:
            print(
                f"stopped by {stopped_by} after step {state.step:,}, which is saved; the same command resumes there",
                flush=True,
            )
        sys.exit(exit_status(stopped_by))
    if chief:
        best = (
            f"; best: epoch {state.best_epoch}, validation micro-F1 {state.best_micro_f1:.4f}"
            if dataset.num_examples("validation")
            else ""
        )
        print(
            f"trained {state.epoch} epochs, {state.step:,} steps{best}; checkpoints in {run_dir}",
            flush=True,
        )


def _label_sampler(experiment: Experiment) -> LabelSampler | None:
    config, model = experiment.config, experiment.model
    if config.loss.negatives == "all":
        return None
    if "labels" not in inspect.signature(model.call).parameters:
        raise UserError(
            f"loss.negatives: received 'sampled', and the model {config.model.name} cannot give the logits of some labels alone; "
            "expected `call(tokens, training=False, labels=None)`, labels being the int64 ids of those whose logits it returns"
        )
    return LabelSampler(
        experiment.dataset.label_counts("train"),
        num_sampled=config.loss.num_sampled,
        seed=config.train.seed,
    )


def _check_config(experiment: Experiment) -> None:
    """Raises UserError where the config does not fit the dataset or the replicas."""
    config, replicas = experiment.config, experiment.strategy.num_replicas_in_sync
    if config.train.batch_size % (replicas * config.train.accumulate_steps):
        raise UserError(
            f"train.batch_size: received {config.train.batch_size}, expected a multiple of train.accumulate_steps x replicas = "
            f"{config.train.accumulate_steps} x {replicas}"
        )
    if config.optimizer.schedule == "plateau" and not experiment.dataset.num_examples("validation"):
        raise UserError(
            "optimizer.schedule: received 'plateau', and the dataset has no validation split; expected another schedule, or the split"
        )


# --- the run directory -----------------------------------------------------------------


def _open_run_together(experiment: Experiment, *, fresh: bool) -> None:
    """`_open_run` by the chief; the other workers wait for it, and stop if it refuses."""
    refusal = None
    if is_chief(experiment.strategy):
        try:
            _open_run(experiment, fresh=fresh)
        except UserError as error:
            refusal = error
    if sum_over_workers(experiment.strategy, int(refusal is not None)):
        raise refusal or UserError(
            "the chief, worker 0, has refused to start; its own message says why"
        )


def _open_run(experiment: Experiment, *, fresh: bool) -> None:
    """Creates the run directory, or checks that the run there is of the same config and dataset."""
    run_dir, config = experiment.run_dir, experiment.config
    manifest = (experiment.dataset.directory / MANIFEST).read_text(encoding="utf-8")
    if fresh and (run_dir / CONFIG).exists():
        shutil.rmtree(run_dir)
    if (run_dir / CONFIG).exists():
        saved = load_saved_config(
            run_dir / CONFIG,
            remedy="choose another train.run_dir, or give --fresh to delete the run and start again",
        )
        then, now = (_decisive(c) for c in (saved, config))
        rows = [
            f"  {key}: run {a!r}, config {b!r}"
            for key, a, b in differing_keys(then, now)
            if key not in _may_change(config)
        ]
        of_run = run_dir / DATASET_MANIFEST
        if not rows and of_run.exists() and of_run.read_text(encoding="utf-8") != manifest:
            rows = [
                f"  dataset: {experiment.dataset.directory} was made again, and differs from the one the run began with"
            ]
        if rows:
            advice = "set the keys back, choose another train.run_dir, or give --fresh to delete the run and start again"
            raise UserError(
                f"the run in {run_dir} cannot be resumed:\n" + "\n".join(rows) + f"\n{advice}"
            )
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise UserError(
            f"train.run_dir: {run_dir} holds files and no run; expected a new directory"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run_dir / DATASET_MANIFEST, manifest)
        write_atomically(run_dir / CONFIG, config.to_yaml())
    except OSError as error:
        raise UserError(
            f"train.run_dir: cannot write in {run_dir}: {error.strerror}; expected a directory you may write"
        ) from None


def _may_change(config: Config) -> tuple[str, ...]:
    # The learning rate of every step follows from the number of epochs, unless it is constant.
    constant = (
        config.optimizer.schedule in ("constant", "plateau")
        and config.optimizer.warmup_fraction == 0
    )
    return (*_MAY_CHANGE, "train.epochs") if constant else _MAY_CHANGE


def _decisive(config: Config) -> dict:
    return config.model_dump(mode="json", include=set(_RUN_SECTIONS))


def _check_data_order(state: RunState, order: str) -> None:
    if state.step_in_epoch and state.data_order != order:
        raise UserError(
            f"the run stopped within an epoch whose documents went to workers {state.data_order}, and now they would go {order}; "
            "expected the same: resume with as many workers as before"
        )


def _log_writer(experiment: Experiment) -> tf.summary.SummaryWriter:
    if not is_chief(experiment.strategy):
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(log_dir(str(experiment.run_dir), os.environ))


# --- the course of a run ---------------------------------------------------------------


def _agreed(stop: StopRequest, strategy: tf.distribute.Strategy) -> str | None:
    """The signal that any worker has received: all must stop after the same step."""
    count = sum_over_workers(strategy, int(stop.requested is not None))
    return (stop.requested or "SIGTERM") if count else None


def _progress(
    state: RunState, config: Config, chief: bool
) -> contextlib.AbstractContextManager[ProgressLine | None]:
    return (
        ProgressLine(f"epoch {state.epoch + 1}/{config.train.epochs}")
        if chief
        else contextlib.nullcontext()
    )


def _is_finished(state: RunState, config: Config) -> bool:
    patience = config.train.patience
    out_of_patience = (
        patience is not None and state.best_epoch and state.epoch - state.best_epoch >= patience
    )
    return state.stopped or state.epoch >= config.train.epochs or bool(out_of_patience)


def _length_bucket_steps(config: Config) -> int:
    if config.train.length_bucket_steps is not None:
        return config.train.length_bucket_steps
    return _PADDED_LENGTH_WINDOW if isinstance(config.model, SequenceModel) else 1


def _steps_to_next_stop(state: RunState, config: Config, steps_per_epoch: int) -> int:
    every = config.train.checkpoint_steps
    to_checkpoint = every - state.step % every if every else steps_per_epoch
    return min(config.train.steps_per_call, steps_per_epoch - state.step_in_epoch, to_checkpoint)


def _check_losses(losses_of_steps: np.ndarray, step: int) -> None:
    """Raises UserError if a loss is no number; `step` steps were done before."""
    wrong = np.flatnonzero(~np.isfinite(losses_of_steps))
    if wrong.size:
        raise _diverged(
            f"the loss became {losses_of_steps[wrong[0]]} at step {step + wrong[0] + 1:,}",
            step,
            step + len(losses_of_steps),
        )


def _check_variables(variables: Sequence[keras.Variable], step: int) -> None:
    """Raises UserError if a weight is no number: a last step may do that after its loss was computed, and is then not saved."""
    for variable in variables:
        if tf.as_dtype(variable.dtype).is_floating and not tf.reduce_all(
            tf.math.is_finite(tf.convert_to_tensor(variable.value))
        ):
            raise _diverged(
                f"{variable.path} holds values that are not finite after step {step:,}", step, step
            )


def _diverged(what: str, first: int, last: int) -> UserError:
    steps = f"; steps {first + 1:,} to {last:,} are not saved" if last > first else ""
    return UserError(
        f"{what}{steps}; the last good checkpoint stays. Expected finite numbers: "
        "lower optimizer.learning_rate or loss.max_pos_weight and start again with --fresh"
    )


def _end_epoch(state: RunState, config: Config, evaluator: Evaluator, *, examples: int) -> bool:
    """Validates, and brings the state to the start of the next epoch. Returns whether the epoch was the best."""
    if not state.documents:
        raise UserError(
            "none of the train split's documents could be read; expected a dataset that is not damaged: run the preprocessing again"
        )
    row = {
        "epoch": state.epoch + 1,
        "step": state.step,
        "loss": state.loss_sum / state.documents,
        "skipped": examples - state.documents,
    }
    row |= {"validation_micro_f1": None, "threshold": None}
    histogram = evaluator.histogram("validation")
    if histogram.any():
        tuned = thresholds.tune(histogram, min_positives=config.evaluate.min_positives)
        row |= {
            "validation_micro_f1": thresholds.micro_f1(histogram, tuned),
            "threshold": tuned.global_threshold,
        }
    state.epoch, state.step_in_epoch, state.loss_sum, state.documents = state.epoch + 1, 0, 0.0, 0
    state.history.append(row)
    # Without a validation split the newest epoch is taken for the best, and nothing stops early.
    is_best = row["validation_micro_f1"] is None or row["validation_micro_f1"] > state.best_micro_f1
    if is_best and row["validation_micro_f1"] is not None:
        state.best_epoch, state.best_micro_f1 = state.epoch, row["validation_micro_f1"]
    return is_best


def _lower_rate_on_plateau(
    state: RunState, config: OptimizerConfig, optimizer: keras.optimizers.Optimizer
) -> None:
    if state.epoch - max(state.best_epoch, state.rate_epoch) >= config.plateau_patience:
        state.rate_epoch = state.epoch
        factor = max(optimizer.rate_factor.numpy() * config.plateau_factor, config.final_fraction)
        optimizer.rate_factor.assign(factor)


def _epoch_line(state: RunState, train_seconds: float) -> str:
    row = state.history[-1]
    validation = "no validation split"
    if row["validation_micro_f1"] is not None:
        validation = f"validation micro-F1 {row['validation_micro_f1']:.4f} at threshold {row['threshold']:.3f}"
        validation += " (best)" if state.best_epoch == state.epoch else ""
    if row["skipped"]:
        validation += f", {row['skipped']:,} documents skipped"
    return (
        f"epoch {row['epoch']}: loss {row['loss']:.4f}, {validation}, {row['documents_per_second']:,} documents/s, "
        f"{train_seconds:.1f} s training, {row['seconds'] - train_seconds:.1f} s validation"
    )
