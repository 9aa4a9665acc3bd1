"""A run in training: model, optimizer, checkpoints and state, advanced by steps and epochs."""

import contextlib
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.sections.network_models import BowConfig, SequenceModel
from beam_jobs.contract.sections.pretrained_model import PretrainedConfig
from beam_jobs.contract.sections.train import OBJECTIVE_TITLES, Objective
from trainer.data.input_pipeline import BatchIterator, train_batches
from trainer.data.shards import describe_corruption, explain_corrupt_shards, plan_split
from trainer.distribution.strategy import check_agreement, describe, is_chief, num_workers
from trainer.distribution.variables import bytes_by_device, on_device_of
from trainer.evaluation.evaluator import Evaluator
from trainer.experiment import Experiment
from trainer.losses.description import describe_loss
from trainer.losses.losses import Loss
from trainer.losses.sampled_negatives import LabelSampler
from trainer.models.bow_tree import BagWithLabelTree
from trainer.runs.checkpoints import Checkpoints, RunState
from trainer.runs.history import describe_validation
from trainer.runs.layout import HISTORY
from trainer.training.callbacks import Callbacks, epoch_logs
from trainer.training.carry_over import CarryOver
from trainer.training.early_stopping import is_out_of_patience
from trainer.training.exchange import exchanges
from trainer.training.label_descriptions import start_from_descriptions
from trainer.training.label_tree import plant_label_tree
from trainer.training.optimizers import build_optimizer
from trainer.training.resume import check_data_order
from trainer.training.train_step import make_train_steps
from trainer.training.weight_averages import averaged_weights
from trainer.training.worker_gain import describe_exchange, workload_of

# `train.length_bucket_steps: null`, for models that pad to the longest document of a batch.
_LENGTH_BUCKET_STEPS_OF_PADDING_MODELS = 16
# Columns of history.json that TensorBoard shows by epoch.
_EPOCH_SUMMARIES = (
    "loss",
    "learning_rate",
    "validation_micro_f1",
    "validation_macro_f1",
    "threshold",
    "documents_per_second",
)


class TrainingRun:
    """A run in training. Its newest checkpoint, if there is one, is restored.

    Every worker calls the same methods in the same order: `begin`, then for each epoch
    `train_steps` within `epoch()` until `steps_left` is 0 and `finish_epoch`, then `end`. Between
    two calls of `train_steps`, `save` makes it resumable there.

    Args:
      experiment: what `trainer.experiment.assemble` has put together for training.
      loss: of `trainer.losses.losses.build_loss`.
      sampler: draws the negatives, see `trainer.training.train_step.make_label_sampler`; None: the
        loss takes all labels.
      callbacks: of `trainer.training.callbacks.make_callbacks`.
      earlier: the run that a new one starts from.

    Attributes:
      state: where the run is.
      checkpoints: to be entered while the run saves.

    Raises:
      UserError: no checkpoint can be restored, or the run cannot go on with this number of workers.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        loss: Loss,
        sampler: LabelSampler | None,
        callbacks: Sequence[tuple[str, keras.callbacks.Callback]],
        earlier: CarryOver | None = None,
    ):
        self._experiment, self._config = experiment, experiment.config
        self._strategy, self._model = experiment.strategy, experiment.model
        self._is_chief = is_chief(self._strategy)
        train = self._config.train
        self._plan = plan_split(
            experiment.dataset,
            "train",
            num_workers=num_workers(self._strategy),
            global_batch_size=train.batch_size,
            shard_by=train.shard_by,
        )
        with self._strategy.scope():
            self._optimizer = build_optimizer(
                self._config.optimizer,
                total_steps=train.epochs * self._plan.steps,
                epoch_steps=self._plan.steps,
                scales_loss=train.precision == "float16",
            )
            self._optimizer.build(self._model.trainable_variables)
        self.checkpoints = Checkpoints(
            experiment.run_dir,
            self._model,
            self._optimizer,
            strategy=self._strategy,
            keep=train.keep_checkpoints,
            after_save=experiment.push,
        )
        is_learned = experiment.dataset.is_learned
        self._run_steps = make_train_steps(
            self._strategy,
            self._model,
            self._optimizer,
            loss=loss,
            num_labels=experiment.dataset.num_labels,
            global_batch_size=train.batch_size,
            accumulate_steps=train.accumulate_steps,
            sampler=sampler,
            is_learned=None if is_learned.all() else is_learned,
        )
        self._evaluator = Evaluator(experiment)
        self._callbacks = Callbacks(
            callbacks,
            model=self._model,
            optimizer=self._optimizer,
            strategy=self._strategy,
            epochs=train.epochs,
            steps=self._plan.steps,
        )
        self.state = self._restore(earlier)

    def _restore(self, earlier: CarryOver | None) -> RunState:
        state = self.checkpoints.restore_latest()
        if state is None:
            state = RunState()
            if earlier is not None:
                earlier.give_weights()
                if self._is_chief:
                    print(earlier, flush=True)
            if isinstance(self._model, BagWithLabelTree):
                plant_label_tree(self._experiment)
            if self._experiment.describes_labels:
                start_from_descriptions(
                    self._experiment, only=None if earlier is None else earlier.is_new_label
                )
        check_agreement(
            self._strategy,
            state.step,
            what="the step restored (train.run_dir must be a directory that all workers share)",
        )
        check_data_order(state, self._plan.order)
        state.config = self._config.to_yaml()
        return state

    # --- the course of a run -----------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, patience is exhausted, or a callback has stopped the run."""
        state = self.state
        return (
            state.stopped
            or state.epoch >= self._config.train.epochs
            or is_out_of_patience(state, self._config)
        )

    @property
    def steps_left(self) -> int:
        """Steps to the end of the epoch."""
        return self._plan.steps - self.state.step_in_epoch

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether `train.checkpoint_steps` asks for a checkpoint after the last step."""
        every = self._config.train.checkpoint_steps
        return every is not None and self.state.step % every == 0

    def begin(self) -> None:
        """Says what is trained, and calls the callbacks."""
        # A run that was killed after its last checkpoint has not written the row of that epoch.
        self._write_history()
        if self._is_chief:
            print(self._description(), flush=True)
            print(describe_loss(self._config.loss, **self._experiment.loss_statistics), flush=True)
            if exchanges(self._strategy):
                print(self._describe_exchange(), flush=True)
            if self.is_finished:
                print("the run is finished; nothing is trained", flush=True)
            elif self.state.step:
                print(
                    f"resuming after step {self.state.step:,} (epoch {self.state.epoch + 1}, "
                    f"step {self.state.step_in_epoch} of {self._plan.steps})",
                    flush=True,
                )
        self._callbacks.begin(self.state.callbacks)

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """While entered, `train_steps` takes the batches of the epoch, or of what is left of it."""
        state, train = self.state, self._config.train
        state.data_order = self._plan.order
        self._epoch_started, self._first_step = time.monotonic(), state.step_in_epoch
        self._sent_bytes = 0.0
        batches = train_batches(
            self._experiment.dataset,
            self._experiment.vectorizer,
            self._strategy,
            plan=self._plan,
            global_batch_size=train.batch_size,
            shuffle_buffer=train.shuffle_buffer,
            seed=train.seed,
            epoch=state.epoch,
            first_step=state.step_in_epoch,
            skip_corrupt=train.on_corrupt == "skip",
            length_bucket_steps=_length_bucket_steps(self._config),
        )
        with BatchIterator(batches) as self._batches:
            self._callbacks("on_epoch_begin", state.epoch)
            with (
                self._progress_line() as self._progress,
                explain_corrupt_shards(self._experiment.dataset, "train"),
            ):
                yield

    def _progress_line(self) -> contextlib.AbstractContextManager[ProgressLine | None]:
        if not self._is_chief:
            return contextlib.nullcontext()
        return ProgressLine(f"epoch {self.state.epoch + 1}/{self._config.train.epochs}")

    def steps_of_next_call(self) -> int:
        """`train.steps_per_call`, or fewer if a checkpoint or the epoch's end comes before."""
        train = self._config.train
        steps = min(train.steps_per_call, self.steps_left)
        if train.checkpoint_steps is not None:
            steps = min(steps, train.checkpoint_steps - self.state.step % train.checkpoint_steps)
        return steps

    def train_steps(self, num_steps: int) -> None:
        """Trains some steps in one call of the compiled function.

        Raises:
          UserError: a loss is not finite, or a shard is corrupt.
        """
        state = self.state
        self._callbacks("on_train_batch_begin", state.step_in_epoch + num_steps - 1)
        sums = self._run_steps(self._batches.iterator, tf.constant(num_steps))
        sums = sums.numpy().astype(np.float64)
        _check_losses(sums[:, 0], state.step)
        # One by one, so that the epoch's sum is the same wherever a run was interrupted.
        for loss_sum, documents, *sent_bytes in sums.tolist():
            state.loss_sum += loss_sum
            state.documents += int(documents)
            self._sent_bytes += sum(sent_bytes)
        state.step += num_steps
        state.step_in_epoch += num_steps
        loss = sums[:, 0].sum() / max(sums[:, 1].sum(), 1)
        tf.summary.scalar("loss", loss, step=state.step)
        self._callbacks("on_train_batch_end", state.step_in_epoch - 1, logs={"loss": loss})
        documents = (state.step_in_epoch - self._first_step) * self._config.train.batch_size
        self._documents_per_second = documents / (time.monotonic() - self._epoch_started)
        if self._progress:
            self._progress.update(
                state.step_in_epoch,
                self._plan.steps,
                f"step {state.step_in_epoch}/{self._plan.steps}, loss {loss:.4f}, "
                f"{self._documents_per_second:,.0f} documents/s",
            )

    def finish_epoch(self) -> None:
        """Validates, keeps the best weights, asks callbacks and the schedule, reports and saves.

        Raises:
          UserError: a weight is not finite, or no document could be read.
        """
        state, train_seconds = self.state, time.monotonic() - self._epoch_started
        self._check_variables()
        self._check_workers_weights()
        self._callbacks("on_test_begin")
        with averaged_weights(self._optimizer, self._model.trainable_variables):
            row = self._measure_epoch()
            is_best = _begin_next_epoch(state, row, self._config.train.objective)
            if is_best:
                self.checkpoints.save_best(state)
        self._callbacks("on_test_end", logs=epoch_logs(row))
        state.stopped = self._callbacks("on_epoch_end", state.epoch - 1, logs=epoch_logs(row))
        if self._config.optimizer.schedule == "plateau":
            self._lower_rate_on_plateau()
        self._report_epoch(row, train_seconds)
        self.save()
        self._write_history()

    def save(self) -> None:
        """Saves a checkpoint, from which the same command resumes.

        Raises:
          UserError: a weight is not finite; the previous checkpoint stays.
        """
        self._check_variables()
        self.state.callbacks = self._callbacks.counts()
        self.checkpoints.save(self.state)

    def end(self) -> None:
        """Calls the callbacks a last time."""
        self._callbacks("on_train_end")

    # --- an epoch's end ----------------------------------------------------------------

    def _measure_epoch(self) -> dict[str, Any]:
        """The row of history.json for the epoch whose steps are done; validates the model."""
        state = self.state
        if not state.documents:
            raise UserError(
                "none of the train split's documents could be read; expected a dataset that is not "
                "damaged: run the preprocessing again"
            )
        validated = self._evaluator.validate()
        return {
            "epoch": state.epoch + 1,
            "step": state.step,
            "loss": state.loss_sum / state.documents,
            "skipped": self._experiment.dataset.num_examples("train") - state.documents,
            **validated,
            "learning_rate": float(self._optimizer.learning_rate.numpy()),
            "documents_per_second": round(self._documents_per_second),
            "seconds": round(time.monotonic() - self._epoch_started, 3),
        }

    def _lower_rate_on_plateau(self) -> None:
        state, config = self.state, self._config.optimizer
        if state.epoch - max(state.best_epoch, state.rate_epoch) >= config.plateau_patience:
            state.rate_epoch = state.epoch
            factor = self._optimizer.rate_factor
            factor.assign(max(factor.numpy() * config.plateau_factor, config.final_fraction))

    def _report_epoch(self, row: dict[str, Any], train_seconds: float) -> None:
        if self._is_chief:
            line = _epoch_line(row, self.state, train_seconds)
            if self._sent_bytes:
                steps = self._plan.steps - self._first_step
                line += f", {self._sent_bytes / steps / 1e6:.2f} MB sent by a worker a step"
            print(line, flush=True)
            if row["skipped"]:
                faults = describe_corruption(self._experiment.dataset, "train")
                lines = ["warning: train.on_corrupt is `skip`:", *faults]
                print("\n  ".join(lines), flush=True)
        for key in _EPOCH_SUMMARIES:
            if row[key] is not None:
                tf.summary.scalar(f"epoch_{key}", row[key], step=self.state.step)

    def _write_history(self) -> None:
        if self._is_chief:
            write_atomically(self._experiment.run_dir / HISTORY, dump_json(self.state.history))

    def _check_variables(self) -> None:
        """Raises UserError if a weight is not finite.

        A step can cause that after its loss was computed. Such weights are neither validated nor
        saved.
        """
        for variable in (*self._model.trainable_variables, *self._optimizer.variables):
            with on_device_of(variable):
                is_right = not tf.as_dtype(variable.dtype).is_floating or tf.reduce_all(
                    tf.math.is_finite(tf.convert_to_tensor(variable.value))
                )
            if not is_right:
                step = self.state.step
                raise _diverged(
                    f"{variable.path} holds values that are not finite after step {step:,}",
                    step,
                    step,
                )

    def _check_workers_weights(self) -> None:
        """Raises UserError if the workers' weights differ, be it in one bit.

        On GPUs they may: sums of rows that repeat are not the same in every run there.
        """
        if not exchanges(self._strategy):
            return
        checksum = 0
        for variable in self._model.trainable_variables:
            checksum = zlib.crc32(tf.convert_to_tensor(variable.value).numpy().data, checksum)
        check_agreement(
            self._strategy, checksum, what=f"their weights after step {self.state.step:,}"
        )

    # --- in words ----------------------------------------------------------------------

    def _description(self) -> str:
        dataset = self._experiment.dataset
        num_weights = sum(math.prod(v.shape) for v in self._model.trainable_variables)
        text = (
            f"training {self._config.model.name} on {describe(self._strategy)}: "
            f"{dataset.num_examples('train'):,} documents, {dataset.num_labels:,} labels, "
            f"{len(dataset.vocabulary):,} tokens, {num_weights:,} weights"
        )
        if num_workers(self._strategy) > 1:
            text += f"; documents go to workers {self._plan.order}"
        if getattr(self._config.model, "output_devices", 1) > 1:
            sizes = bytes_by_device((*self._model.variables, *self._optimizer.variables))
            parts = (f"{size / 1e6:,.1f} MB on {device}" for device, size in sizes.items())
            text += f"; weights and the optimizer's state: {', '.join(parts)}"
        return text

    def _describe_exchange(self) -> str:
        workload = workload_of(
            self._config,
            self._experiment.dataset,
            self._model.trainable_variables,
            workers=num_workers(self._strategy),
        )
        return describe_exchange(workload, self._config.train.batch_size)

    def result(self) -> str:
        """What the run has come to, in words."""
        state = self.state
        best, objective = "", self._config.train.objective
        if state.best_epoch:
            best = (
                f"; best: epoch {state.best_epoch}, validation {OBJECTIVE_TITLES[objective]} "
                f"{state.best_score(objective):.4f}"
            )
        return (
            f"trained {state.epoch} epochs, {state.step:,} steps{best}; "
            f"checkpoints in {self._config.train.run_dir}"
        )


def _length_bucket_steps(config: Config) -> int:
    if config.train.length_bucket_steps is not None:
        return config.train.length_bucket_steps
    if isinstance(config.model, PretrainedConfig):
        pads = not config.model.encodes_once
    else:
        # A bag of embeddings learns less from batches of documents of like length.
        pads = isinstance(config.model, SequenceModel) and not isinstance(config.model, BowConfig)
    return _LENGTH_BUCKET_STEPS_OF_PADDING_MODELS if pads else 1


def _begin_next_epoch(state: RunState, row: dict[str, Any], objective: Objective) -> bool:
    """Moves the state to the start of the next epoch; returns whether the last was the best.

    Without a validation split the newest epoch counts as the best, and nothing stops early.
    """
    state.epoch += 1
    state.step_in_epoch, state.loss_sum, state.documents = 0, 0.0, 0
    state.history.append(row)
    score, best = row[f"validation_{objective}"], state.best_score(objective)
    if score is None:
        return True
    if best is not None and score <= best:
        return False
    state.best_epoch = state.epoch
    return True


def _check_losses(losses_of_steps: np.ndarray, step: int) -> None:
    """Raises UserError if a loss is not finite; `step` steps were done before."""
    wrong = np.flatnonzero(~np.isfinite(losses_of_steps))
    if wrong.size:
        raise _diverged(
            f"the loss became {losses_of_steps[wrong[0]]} at step {step + wrong[0] + 1:,}",
            step,
            step + len(losses_of_steps),
        )


def _diverged(what: str, first: int, last: int) -> UserError:
    steps = f"; steps {first + 1:,} to {last:,} are not saved" if last > first else ""
    return UserError(
        f"{what}{steps}; the last good checkpoint stays. Expected finite numbers: "
        "lower optimizer.learning_rate or loss.max_pos_weight and start again with --fresh"
    )


def _epoch_line(row: dict[str, Any], state: RunState, train_seconds: float) -> str:
    validation = "no validation split"
    if row["validation_micro_f1"] is not None:
        validation = describe_validation(row)
        validation += " (best)" if state.best_epoch == state.epoch else ""
    if row["skipped"]:
        validation += f", {row['skipped']:,} documents skipped"
    return (
        f"epoch {row['epoch']}: loss {row['loss']:.4f}, {validation}, "
        f"{row['documents_per_second']:,} documents/s, "
        f"{train_seconds:.1f} s training, {row['seconds'] - train_seconds:.1f} s validation"
    )
