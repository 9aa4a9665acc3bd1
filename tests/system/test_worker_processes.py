"""What ends a run early ends it soon, tells why, and leaves neither processes nor files behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_lines import ROOT

CONFIG = "{name: tiny, data: {source: custom, reader: 'slow_source:Slow'}}"
SOURCE = """
import os, pathlib, time
from multihot import Document, InputFile

class Slow:
    def files(self):
        return [InputFile(name, os.path.abspath(name), 5 << 20) for name in ("a", "b")]

    def read(self, file):
        yield Document(file.name, (file.name,), (), 1.0, file.name, 1)
        pathlib.Path(f"reading-{file.name}").write_text(str(os.getpid()))
        time.sleep(600)
"""
# The command, with Ctrl-C as a terminal gives it: in the background a shell has it ignored.
COMMAND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("beam_jobs.preprocess", run_name="__main__")
"""


def start(home: Path, *beam_arguments: str) -> subprocess.Popen:
    """Starts a job whose workers never end by themselves; returns when they are at work."""
    (home / "slow_source.py").write_text(SOURCE)
    (home / "config.yaml").write_text(CONFIG)
    for name in ("a", "b"):
        (home / name).touch()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--config", "config.yaml", "--", *beam_arguments],
        cwd=home,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(home)))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not all(path.stat().st_size for path in home.glob("reading-*")) or not list(
        home.glob("reading-*")
    ):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.01)
    return process


def processes_of(group: int) -> list[int]:
    """The processes of a process group that still run."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--sid", str(group)], capture_output=True, text=True
    ).stdout
    return [
        int(line.split()[0]) for line in listed.splitlines() if not line.split()[1].startswith("Z")
    ]


def end(process: subprocess.Popen) -> str:
    """Its output; the test fails if it does not end, unlike its workers, which would sleep on."""
    try:
        return process.communicate(timeout=120)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running:\n{process.communicate()[0]}") from None


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("in_memory", signal.SIGINT),
        ("in_memory", signal.SIGTERM),
        pytest.param("multi_processing", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_job_alone_ends_it_and_its_workers(tmp_path, mode, number):
    process = start(tmp_path, f"--direct_running_mode={mode}")
    process.send_signal(number)
    output = end(process)
    assert process.returncode == 128 + number and "Traceback" not in output, output
    assert processes_of(process.pid) == []
    assert list((tmp_path / "out/tiny").iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_the_job_and_is_named(tmp_path):
    process = start(tmp_path, "--direct_running_mode=multi_processing", "--direct_num_workers=1")
    worker = int(next(tmp_path.glob("reading-*")).read_text())
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    output = end(process)
    assert process.returncode == 1, output
    assert "Traceback" not in output, output
    assert output.splitlines()[-1].startswith(
        f"error: worker process {worker} was killed, "
        "perhaps because memory ran out: try fewer workers"
    )
    assert processes_of(process.pid) == []
    assert list((tmp_path / "out/tiny").iterdir()) == []
