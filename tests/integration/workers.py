"""Small datasets, and training runs on them in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.command_lines import ROOT

LAUNCHER = ROOT / "scripts/launch_workers.py"
TIMING = ("documents_per_second", "seconds")


def start(
    root: Path,
    *settings: str,
    workers: int | None = None,
    launcher: tuple[str, ...] = (),
    fresh: bool = False,
) -> subprocess.Popen:
    """Starts `train --config small.yaml` with settings such as `train.epochs=1`; with `workers` by the launcher."""
    command = (
        [sys.executable, str(LAUNCHER), "--workers", str(workers), *launcher, "--"]
        if workers
        else [sys.executable, "-m", "trainer.task"]
    )
    command += [
        "train",
        "--config",
        "small.yaml",
        *(["--fresh"] if fresh else []),
        *(part for setting in settings for part in ("--set", setting)),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, *, status: int = 0, timeout: float = 240) -> str:
    """Waits for a process, checks how it ended, and returns all it printed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{output}") from None
    assert process.returncode == status, (
        f"status {process.returncode}, expected {status}:\n{output}"
    )
    return output


def train(root: Path, *settings: str, status: int = 0, **kwargs) -> str:
    """A whole training run; what it printed."""
    return finish(start(root, *settings, **kwargs), status=status)


def wait_for(condition, process: subprocess.Popen, *, timeout: float = 120) -> None:
    """Returns when `condition()` holds; fails if the process ends before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, (
            f"ended too early, with status {process.returncode}:\n{process.stdout.read()}"
        )
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.01)


def history(run: Path) -> list[dict]:
    """The rows of history.json without timings."""
    return [
        {k: v for k, v in row.items() if k not in TIMING}
        for row in json.loads((run / "history.json").read_text())
    ]


def newest_step(run: Path) -> int:
    """The step of the newest complete checkpoint; 0: there is none."""
    path = tf.train.latest_checkpoint(str(run / "checkpoints"))
    return int(path.rpartition("-")[2]) if path else 0


def variables(run: Path, *, folder: str = "checkpoints") -> dict[str, np.ndarray]:
    """All tensors of the newest checkpoint but the text of the run's state, which holds timings."""
    reader = tf.train.load_checkpoint(str(run / folder))
    names = sorted(
        name
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("model", "optimizer"))
    )
    assert any(name.startswith("optimizer") for name in names)
    return {name: reader.get_tensor(name) for name in names}


def assert_same_bits(left: Path, right: Path) -> None:
    """Both runs ended with equal histories and equal bits in every variable."""
    assert history(left) == history(right)
    a, b = variables(left), variables(right)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
