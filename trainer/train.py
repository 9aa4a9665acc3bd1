"""The training run: epochs, validation, checkpoints, early stopping, logs."""

import math
import shutil
import time

import tensorflow as tf

from beam_jobs.contract.config import Config, differing_keys, load_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST, dump_json
from beam_jobs.contract.progress import ProgressLine
from trainer import losses, optimizers, thresholds
from trainer.checkpoints import Checkpoints, RunState
from trainer.evaluate import Evaluator
from trainer.experiment import Experiment, assemble
from trainer.files import write_atomically
from trainer.input_pipeline import num_steps, train_batches
from trainer.loop import make_train_steps
from trainer.metrics import sweep
from trainer.signals import StopRequest
from trainer.strategy import describe

# Keys that may differ between a run and its resumption: they change how long it trains and what it keeps, no step.
_MAY_CHANGE = ("train.run_dir", "train.epochs", "train.patience", "train.steps_per_call", "train.checkpoint_steps", "train.keep_checkpoints")
_RUN_SECTIONS = ("model", "loss", "optimizer", "train")
CONFIG = "config.yaml"
DATASET_MANIFEST = "dataset_manifest.json"
HISTORY = "history.json"


def train(config: Config, *, fresh: bool = False) -> None:
    """Trains a model, or resumes a run at the step after its newest checkpoint.

    Args:
      config: the experiment.
      fresh: delete what an earlier run left in `train.run_dir`.

    Raises:
      UserError: dataset, strategy or run directory do not fit the config, or the loss is no number any more.
    """
    experiment = assemble(config)
    dataset, strategy, run_dir = experiment.dataset, experiment.strategy, experiment.run_dir
    _open_run(experiment, fresh=fresh)

    # --- what is trained -----------------------------------------------------------
    examples = dataset.examples("train")
    steps_per_epoch = num_steps(examples, config.train.batch_size)
    with strategy.scope():
        optimizer = optimizers.build(config.optimizer)
        optimizer.build(experiment.model.trainable_variables)
        checkpoints = Checkpoints(run_dir, experiment.model, optimizer, keep=config.train.keep_checkpoints)
    pos_weight = tf.constant(losses.positive_weights(config.loss, dataset.positives("train"), examples))
    train_steps = make_train_steps(strategy, experiment.model, optimizer, pos_weight=pos_weight, global_batch_size=config.train.batch_size)
    evaluator = Evaluator(experiment)
    writer = tf.summary.create_file_writer(str(run_dir / "logs"))

    # --- where it stands -----------------------------------------------------------
    state = checkpoints.restore_latest() or RunState()
    print(
        f"training {config.model.name} on {describe(strategy)}: {examples:,} documents, {dataset.num_labels:,} labels, "
        f"{len(dataset.vocabulary):,} tokens, {sum(math.prod(v.shape) for v in experiment.model.trainable_variables):,} weights",
        flush=True,
    )
    if state.step:
        print(f"resuming after step {state.step:,} (epoch {state.epoch + 1}, step {state.step_in_epoch} of {steps_per_epoch})", flush=True)

    # --- epochs --------------------------------------------------------------------
    with StopRequest() as stop, writer.as_default():
        while not _is_finished(state, config) and not stop.requested:
            started, first_step = time.monotonic(), state.step_in_epoch
            batches = train_batches(
                dataset,
                experiment.vectorizer,
                strategy,
                global_batch_size=config.train.batch_size,
                shuffle_buffer=config.train.shuffle_buffer,
                seed=config.train.seed,
                epoch=state.epoch,
                first_step=first_step,
            )
            iterator = iter(batches)
            with ProgressLine(f"epoch {state.epoch + 1}/{config.train.epochs}") as line:
                while state.step_in_epoch < steps_per_epoch and not stop.requested:
                    steps = _steps_to_next_stop(state, config, steps_per_epoch)
                    loss_sum, documents = train_steps(iterator, tf.constant(steps)).numpy().tolist()
                    _check_loss(loss_sum, state.step, steps)
                    state.step += steps
                    state.step_in_epoch += steps
                    state.loss_sum += loss_sum
                    tf.summary.scalar("loss", loss_sum / documents, step=state.step)
                    rate = (state.step_in_epoch - first_step) * config.train.batch_size / (time.monotonic() - started)
                    done = f"step {state.step_in_epoch}/{steps_per_epoch}, loss {loss_sum / documents:.4f}, {rate:,.0f} documents/s"
                    line.update(state.step_in_epoch, steps_per_epoch, done)
                    if config.train.checkpoint_steps and state.step % config.train.checkpoint_steps == 0 and state.step_in_epoch < steps_per_epoch:
                        checkpoints.save(state)
            if stop.requested and state.step_in_epoch < steps_per_epoch:
                break
            train_seconds = time.monotonic() - started
            is_best = _end_epoch(state, config, evaluator, examples=examples)
            state.history[-1] |= {"documents_per_second": round(rate), "seconds": round(time.monotonic() - started, 3)}
            print(_epoch_line(state, train_seconds), flush=True)
            for key in ("loss", "validation_micro_f1", "threshold", "documents_per_second"):
                if state.history[-1][key] is not None:
                    tf.summary.scalar(f"epoch_{key}", state.history[-1][key], step=state.step)
            checkpoints.save(state, best=is_best)
            write_atomically(run_dir / HISTORY, dump_json(state.history))

    if stop.requested:
        checkpoints.save(state)
        raise UserError(f"stopped by {stop.requested} after step {state.step:,}; the same command resumes there")
    best = f"; best: epoch {state.best_epoch}, validation micro-F1 {state.best_micro_f1:.4f}" if dataset.examples("validation") else ""
    print(f"trained {state.epoch} epochs, {state.step:,} steps{best}; checkpoints in {run_dir}")


def _open_run(experiment: Experiment, *, fresh: bool) -> None:
    """Creates the run directory, or checks that the run there is of the same config and dataset."""
    run_dir, config = experiment.run_dir, experiment.config
    manifest = (experiment.dataset.directory / MANIFEST).read_text(encoding="utf-8")
    if fresh and (run_dir / CONFIG).exists():
        shutil.rmtree(run_dir)
    if (run_dir / CONFIG).exists():
        then, now = (_decisive(c) for c in (load_config(run_dir / CONFIG), config))
        rows = [f"  {key}: run {a!r}, config {b!r}" for key, a, b in differing_keys(then, now) if key not in _MAY_CHANGE]
        saved = run_dir / DATASET_MANIFEST
        if not rows and saved.exists() and saved.read_text(encoding="utf-8") != manifest:
            rows = [f"  dataset: {experiment.dataset.directory} was made again, and differs from the one the run began with"]
        if rows:
            advice = "set the keys back, choose another train.run_dir, or give --fresh to delete the run and start again"
            raise UserError(f"the run in {run_dir} cannot be resumed:\n" + "\n".join(rows) + f"\n{advice}")
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise UserError(f"train.run_dir: {run_dir} holds files and no run; expected a new directory")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run_dir / DATASET_MANIFEST, manifest)
        write_atomically(run_dir / CONFIG, config.to_yaml())
    except OSError as error:
        raise UserError(f"train.run_dir: cannot write in {run_dir}: {error.strerror}; expected a directory you may write") from None


def _decisive(config: Config) -> dict:
    return config.model_dump(mode="json", include=set(_RUN_SECTIONS))


def _is_finished(state: RunState, config: Config) -> bool:
    patience = config.train.patience
    out_of_patience = patience is not None and state.best_epoch and state.epoch - state.best_epoch >= patience
    return state.epoch >= config.train.epochs or bool(out_of_patience)


def _steps_to_next_stop(state: RunState, config: Config, steps_per_epoch: int) -> int:
    every = config.train.checkpoint_steps
    to_checkpoint = every - state.step % every if every else steps_per_epoch
    return min(config.train.steps_per_call, steps_per_epoch - state.step_in_epoch, to_checkpoint)


def _check_loss(loss_sum: float, step: int, steps: int) -> None:
    if not math.isfinite(loss_sum):
        raise UserError(
            f"the loss became {loss_sum} between steps {step + 1:,} and {step + steps:,}; the last good checkpoint stays. "
            f"Expected a finite loss: lower optimizer.learning_rate or loss.max_pos_weight and start again with --fresh"
        )


def _end_epoch(state: RunState, config: Config, evaluator: Evaluator, *, examples: int) -> bool:
    """Validates, and brings the state to the start of the next epoch. Returns whether the epoch was the best."""
    row = {"epoch": state.epoch + 1, "step": state.step, "loss": state.loss_sum / examples, "validation_micro_f1": None, "threshold": None}
    histogram = evaluator.histogram("validation")
    if histogram.any():
        tuned = thresholds.tune(histogram, min_positives=config.evaluate.min_positives)
        micro = sweep(histogram.sum(axis=1))["f1"][tuned.global_bin]
        row |= {"validation_micro_f1": float(micro), "threshold": tuned.global_threshold}
    state.epoch, state.step_in_epoch, state.loss_sum = state.epoch + 1, 0, 0.0
    state.history.append(row)
    # Without a validation split the newest epoch is taken for the best, and nothing stops early.
    is_best = row["validation_micro_f1"] is None or row["validation_micro_f1"] > state.best_micro_f1
    if is_best and row["validation_micro_f1"] is not None:
        state.best_epoch, state.best_micro_f1 = state.epoch, row["validation_micro_f1"]
    return is_best


def _epoch_line(state: RunState, train_seconds: float) -> str:
    row = state.history[-1]
    validation = "no validation split"
    if row["validation_micro_f1"] is not None:
        validation = f"validation micro-F1 {row['validation_micro_f1']:.4f} at threshold {row['threshold']:.3f}"
        validation += " (best)" if state.best_epoch == state.epoch else ""
    return (
        f"epoch {row['epoch']}: loss {row['loss']:.4f}, {validation}, {row['documents_per_second']:,} documents/s, "
        f"{train_seconds:.1f} s training, {row['seconds'] - train_seconds:.1f} s validation"
    )
