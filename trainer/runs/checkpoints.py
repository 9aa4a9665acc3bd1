"""Checkpoints: the variables of model and optimizer and the run's progress, saved atomically."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pydantic
import tensorflow as tf

from beam_jobs.contract.errors import UserError, first_line
from beam_jobs.contract.sections.train import Objective
from trainer.distribution.divided_rows import wholes
from trainer.distribution.strategy import is_chief, worker_index
from trainer.runs.layout import BEST_CHECKPOINT, CHECKPOINTS

# tf.train.CheckpointManager's list of complete checkpoints, which it replaces atomically after a
# save.
_STATE_FILE = "checkpoint"


@dataclasses.dataclass
class RunState:
    """The progress of a run.

    Attributes:
      step: training steps done.
      epoch: epochs done.
      step_in_epoch: steps done in the epoch that has begun.
      loss_sum: loss of the steps done in that epoch, summed over documents.
      documents: documents seen in that epoch.
      data_order: `SplitPlan.order` of that epoch: it must be the same where the epoch goes on.
      best_epoch: the epoch with the best `train.objective` on validation, from 1; 0: none yet.
      rate_epoch: the epoch after which `optimizer.schedule: plateau` last lowered the learning
        rate; 0: none.
      stopped: whether a callback has stopped the run.
      callbacks: the numbers of each of `train.callbacks`, see
        `trainer.training.callbacks.Callbacks.counts`.
      history: one row per epoch.
      config: the resolved config, as YAML.
      sizes: `ModelInputs.sizes` of a model whose fit decides them; empty for all others.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    documents: int = 0
    data_order: str = ""
    best_epoch: int = 0
    rate_epoch: int = 0
    stopped: bool = False
    callbacks: list[dict[str, float]] = dataclasses.field(default_factory=list)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    config: str = ""
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """What a checkpoint holds of it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, content: str | bytes, *, what: str) -> "RunState":
        """Reads what `to_json` gave, or a version without some of its fields.

        Raises:
          UserError: it is no state of a run; `what` names its origin.
        """
        try:
            saved = json.loads(content)
            if not isinstance(saved, dict):
                raise ValueError(f"received {type(saved).__name__}, expected an object")
            known = {field.name for field in dataclasses.fields(cls)} & saved.keys()
            values = {name: saved[name] for name in known}
            pydantic.TypeAdapter(cls).validate_python(values, strict=False)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{what} holds no state of a run: {first_line(error)}; give --fresh to delete the "
                "run and start again"
            ) from None
        return cls(**values)

    def best_score(self, objective: Objective) -> float | None:
        """The objective of the best epoch; None: there is none yet."""
        if not self.best_epoch:
            return None
        return self.history[self.best_epoch - 1].get(f"validation_{objective}")


class Checkpoints:
    """The newest checkpoints and the best one of a run; a context manager while a run saves.

    Only the chief's are kept. The other workers save too, because TensorFlow may add up the copies
    of a variable while it saves them; they save to a scratch directory, which is deleted at the
    end, and restore the chief's.

    Args:
      run_dir: the run directory, which all workers must see.
      model: a built model.
      optimizer: its built optimizer; None: only weights are restored.
      strategy: the strategy of both.
      keep: how many of the newest are kept.
      after_save: is called when a checkpoint is complete.
    """

    def __init__(
        self,
        run_dir: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | None,
        *,
        strategy: tf.distribute.Strategy,
        keep: int = 1,
        after_save: Callable[[], None] = lambda: None,
    ):
        self._state = _state_variable()
        # Variables one by one: tf.train.Checkpoint(model=model) leaves out the state of dropout's
        # seed generators.
        tracked: dict[str, Any] = {
            "state": self._state,
            "model": wholes(model.variables),
        }
        if optimizer is not None:
            tracked["optimizer"] = wholes(optimizer.variables)
        self._checkpoint = tf.train.Checkpoint(**tracked)
        self._run_dir, self._strategy, self._after_save = run_dir, strategy, after_save
        self._scratch = (
            None if is_chief(strategy) else run_dir / f"scratch-worker-{worker_index(strategy)}"
        )
        self._latest = tf.train.CheckpointManager(
            self._checkpoint, str((self._scratch or run_dir) / CHECKPOINTS), max_to_keep=keep
        )
        self._best = tf.train.CheckpointManager(
            self._checkpoint, str((self._scratch or run_dir) / BEST_CHECKPOINT), max_to_keep=1
        )

    def __enter__(self) -> "Checkpoints":
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        else:
            for name in (CHECKPOINTS, BEST_CHECKPOINT):
                _remove_leftovers(self._run_dir / name)
        return self

    def __exit__(self, *exc_info) -> None:
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def save(self, state: RunState) -> None:
        """Saves the newest checkpoint, under the number of its step."""
        self._save(self._latest, state)

    def save_best(self, state: RunState) -> None:
        """Saves the best checkpoint. Call it before `save`.

        If the process is killed in between, the run then resumes from before both.
        """
        self._save(self._best, state)

    def _save(self, manager: tf.train.CheckpointManager, state: RunState) -> None:
        self._state.assign(state.to_json())
        manager.save(checkpoint_number=state.step)
        self._after_save()

    def restore_latest(self) -> RunState | None:
        """Restores the newest complete checkpoint; None: there is none.

        Raises:
          UserError: there are checkpoints, but none is complete and of this model.
        """
        return self._restore(self._run_dir / CHECKPOINTS)

    def restore_best(self) -> RunState | None:
        """Restores the best checkpoint; None: there is none. See `restore_latest`."""
        return self._restore(self._run_dir / BEST_CHECKPOINT)

    def _restore(self, directory: Path) -> RunState | None:
        damaged = []
        for path in reversed(_complete(directory)):
            try:
                with self._strategy.scope():
                    status = self._checkpoint.restore(path)
                    status.assert_existing_objects_matched()
                    status.expect_partial()  # without an optimizer its variables are not restored
                content = self._state.numpy()
            except (AssertionError, ValueError) as error:
                raise UserError(
                    f"the checkpoint {path} is of another model: {first_line(error)}; expected "
                    "one of this config"
                ) from None
            # The reader raises IndexError or RuntimeError for a truncated file.
            except (tf.errors.OpError, IndexError, RuntimeError) as error:
                damaged.append(f"{path} is damaged: {first_line(error)}")
                continue
            for message in damaged:
                print(f"warning: the checkpoint {message}; taking {path}", flush=True)
            return RunState.from_json(content, what=f"the checkpoint {path}")
        if damaged:
            raise UserError(
                "no checkpoint can be restored:\n  "
                + "\n  ".join(damaged)
                + "\ngive --fresh to delete the run and start again"
            )
        return None


def _state_variable() -> tf.Variable:
    with tf.device("/cpu:0"):
        return tf.Variable("", dtype=tf.string, trainable=False, name="run_state")


def saved_sizes(run_dir: Path) -> dict[str, int]:
    """`RunState.sizes` of the run's best checkpoint; empty if there is none that can be read."""
    for path in reversed(_complete(run_dir / BEST_CHECKPOINT)):
        with contextlib.suppress(tf.errors.OpError, IndexError, RuntimeError, UserError):
            state = _state_variable()
            tf.train.Checkpoint(state=state).restore(path).expect_partial()
            return RunState.from_json(state.numpy(), what=path).sizes
    return {}


def has_begun(run_dir: Path) -> bool:
    """Whether the run has a checkpoint to go on from.

    Raises:
      UserError: the list of its checkpoints is damaged.
    """
    return bool(_complete(run_dir / CHECKPOINTS))


def best_weights(run_dir: Path) -> list[np.ndarray] | None:
    """The model's variables in the run's best checkpoint, in order, read without the model.

    None: there is no checkpoint yet.

    Raises:
      UserError: there are checkpoints, and none can be read.
    """
    paths = _complete(run_dir / BEST_CHECKPOINT)
    for path in reversed(paths):
        with contextlib.suppress(tf.errors.OpError, IndexError, RuntimeError, ValueError):
            reader = tf.train.load_checkpoint(path)
            keys = (f"model/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i in itertools.count())
            return [reader.get_tensor(key) for key in itertools.takewhile(reader.has_tensor, keys)]
    if paths:
        raise UserError(
            f"no checkpoint in {run_dir / BEST_CHECKPOINT} can be read: expected those that the "
            "run has saved; put them back from a copy, or train the run again"
        )
    return None


def _complete(directory: Path) -> list[str]:
    """Paths of the complete checkpoints, the oldest first.

    Raises:
      UserError: their list is there, and names none, or one that is elsewhere. It is replaced
        atomically, so it was damaged later; a run that took it for none would start again.
    """
    listed = directory / _STATE_FILE
    if not listed.exists():
        return []
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except ValueError:  # it is not UTF-8
        state = None
    paths = list(state.all_model_checkpoint_paths) if state else []
    if not paths or any(os.path.dirname(path) != str(directory) for path in paths):
        raise UserError(
            f"{listed} is damaged: expected TensorFlow's list of the checkpoints beside it; put it "
            "back from a copy, or give --fresh to delete the run and start again"
        )
    return paths


def _remove_leftovers(directory: Path) -> None:
    """Deletes what killed saves have left, where all complete checkpoints are there."""
    complete = {Path(path).name for path in _complete(directory)}
    if not all(os.path.exists(directory / f"{name}.index") for name in complete):
        return
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name != _STATE_FILE and path.name.partition(".")[0] not in complete:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
