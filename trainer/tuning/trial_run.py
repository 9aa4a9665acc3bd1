"""A trial as `multihot-train` runs it: in a process of its own, in a run directory of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_jobs.contract import child_process, user_code
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.config import CONFIG_FILE, Config
from trainer.runs.directories import with_directories
from trainer.runs.layout import BEST_CHECKPOINT, CHECKPOINTS, CONFIG, HISTORY, LABEL_FITS
from trainer.tuning import trial_process

_LOG = "log.txt"
# What a platform says of one run would be said of all trials: its directories, and its workers,
# each of which runs trials of its own.
_OF_ONE_RUN = {
    *("AIP_CHECKPOINT_DIR", "AIP_MODEL_DIR", "AIP_TENSORBOARD_LOG_DIR"),
    *("TF_CONFIG", "CLUSTER_SPEC", "SLURM_STEP_NUM_TASKS"),
}
COMMAND = (sys.executable, "-m", trial_process.__name__)


class TrialRun:
    """The run of a trial; one that was stopped goes on where it was.

    Args:
      directory: the trial's.
      config: the experiment with the trial's values; its `train.run_dir` is `run_dir(directory)`.
      command: what trains, with the arguments of `trainer.tuning.trial_process`.
    """

    def __init__(self, directory: Path, config: Config, *, command: Sequence[str] = COMMAND):
        self._directory, self._command = directory, command
        self._run_dir = Path(with_directories(config, {}).train.run_dir)
        self.config_path = directory / CONFIG_FILE
        directory.mkdir(parents=True, exist_ok=True)
        if not (self._run_dir / CONFIG).exists():  # what a killed process had only begun
            shutil.rmtree(self._run_dir, ignore_errors=True)
        write_atomically(self.config_path, config.to_yaml())

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self._directory / _LOG

    @contextlib.contextmanager
    def process(self) -> Iterator[subprocess.Popen]:
        """The process, which is ended when the context is left."""
        environment = child_process.environment()
        environment = {k: v for k, v in environment.items() if k not in _OF_ONE_RUN}
        arguments = [str(os.getpid()), str(self.config_path), *user_code.searched_directories()]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [*self._command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the search, which ends the trial
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def history(self) -> list[dict[str, Any]]:
        """The rows of history.json so far."""
        try:
            return json.loads((self._run_dir / HISTORY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []

    def reason_of_failure(self, status: int) -> str:
        """Why the process has ended with a status other than 0, for people."""
        if status < 0:
            name = signal.Signals(-status).name
            return f"ended by {name}" + (", perhaps for want of memory" if status == -9 else "")
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line.strip() for line in lines if line.strip()] or [f"status {status}"]
        errors = [line for line in lines if line.startswith("error: ")]
        return errors[-1].removeprefix("error: ") if errors else lines[-1]


def run_dir(directory: Path) -> Path:
    """Of a trial's directory."""
    return directory / "run"


def delete_weights(directory: Path) -> None:
    """Deletes what takes much room in a trial's directory, and nobody asks for any more."""
    for name in (CHECKPOINTS, BEST_CHECKPOINT, LABEL_FITS):
        for path in run_dir(directory).glob(f"**/{name}"):
            shutil.rmtree(path, ignore_errors=True)


def scores(history: Sequence[Mapping[str, Any]], objective: str) -> list[float]:
    """The objective after each epoch."""
    return [row[f"validation_{objective}"] for row in history]


def best_by_tenth(values: Sequence[float], epochs: int) -> dict[int, float]:
    """The best value so far at each tenth of a run that is done, from 1.

    Runs of different lengths are compared at equal parts of them: a learning rate falls from the
    first to the last epoch of each, and all are at their best at its end.
    """
    done = {}
    for tenth in range(1, 11):
        seen = tenth * epochs // 10
        if seen <= len(values) and values[:seen]:
            done[tenth] = max(values[:seen])
    return done
