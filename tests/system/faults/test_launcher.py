"""A launcher that is killed takes its workers with it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.command_lines import ROOT

# In place of the trainer: a worker that says that it runs, and that it was told to end.
WORKER = """
import os, pathlib, signal, sys, time
def end(number, frame):
    pathlib.Path(f"{os.getpid()}.ended").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path(f"{os.getpid()}.runs").touch()
time.sleep(60)
"""


def wait_for(folder, pattern: str, number: int) -> None:
    for _ in range(1200):
        if len(list(folder.glob(pattern))) == number:
            return
        time.sleep(0.05)
    raise AssertionError(f"{sorted(folder.iterdir())}: expected {number} of {pattern}")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent")
def test_workers_are_told_to_end_when_their_launcher_is_killed(tmp_path):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer/__init__.py").touch()
    (tmp_path / "trainer/task.py").write_text(WORKER)
    launcher = [sys.executable, str(ROOT / "scripts/launch_workers.py"), "--workers", "2"]
    process = subprocess.Popen([*launcher, "--", "train"], cwd=tmp_path, env=dict(os.environ))
    try:
        wait_for(tmp_path, "*.runs", 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(tmp_path, "*.ended", 2)
