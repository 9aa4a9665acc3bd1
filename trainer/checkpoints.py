"""Checkpoints: every variable of the model and the optimizer, and where the run stands, in one atomic save."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contract.errors import UserError


@dataclasses.dataclass
class RunState:
    """Where a run stands.

    Attributes:
      step: training steps done.
      epoch: epochs done.
      step_in_epoch: steps done in the epoch that has begun.
      loss_sum: loss of the steps done in that epoch, summed over documents.
      best_epoch: the epoch with the best validation micro-F1, from 1; 0: none yet.
      best_micro_f1: that micro-F1.
      history: a row an epoch.
      finished: the run has ended by itself.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_micro_f1: float = -1.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    finished: bool = False


class Checkpoints:
    """The newest checkpoints and the best one of a run.

    Args:
      run_dir: they stand in its folders `checkpoints` and `best`.
      model: a built model.
      optimizer: its built optimizer; None: only weights are restored.
      keep: how many of the newest are kept.
    """

    def __init__(self, run_dir: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer | None, *, keep: int = 1):
        self._state = tf.Variable("", dtype=tf.string, trainable=False, name="run_state")
        # Variables one by one: tf.train.Checkpoint(model=model) leaves out the state of dropout's seed generators.
        tracked: dict[str, Any] = {"state": self._state, "model": [variable.value for variable in model.variables]}
        if optimizer is not None:
            tracked["optimizer"] = [variable.value for variable in optimizer.variables]
        self._checkpoint = tf.train.Checkpoint(**tracked)
        self._latest = tf.train.CheckpointManager(self._checkpoint, str(run_dir / "checkpoints"), max_to_keep=keep)
        self._best = tf.train.CheckpointManager(self._checkpoint, str(run_dir / "best"), max_to_keep=1)

    def save(self, state: RunState, *, best: bool = False) -> None:
        """Saves a checkpoint under the number of its step; with `best` also as the best one."""
        self._state.assign(json.dumps(dataclasses.asdict(state)))
        self._latest.save(checkpoint_number=state.step)
        if best:
            self._best.save(checkpoint_number=state.step)

    def restore_latest(self) -> RunState | None:
        """Restores the newest checkpoint; None: there is none."""
        return self._restore(self._latest.latest_checkpoint)

    def restore_best(self) -> RunState | None:
        """Restores the best checkpoint; None: there is none."""
        return self._restore(self._best.latest_checkpoint)

    def _restore(self, path: str | None) -> RunState | None:
        if path is None:
            return None
        try:
            status = self._checkpoint.restore(path)
            status.assert_existing_objects_matched()
            status.expect_partial()  # without an optimizer, its part of the checkpoint is left alone
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the checkpoint {path} does not fit this model or is damaged: {reason}") from None
        return RunState(**json.loads(self._state.numpy().decode()))
