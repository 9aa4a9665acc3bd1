"""Running the command lines in the tests' own process, as a user would run them."""

import contextlib
import dataclasses
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from beam_jobs.contract import user_code
from beam_jobs.contract.command_line import run_main

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended, in the words of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_module(module: str, *arguments: object, cwd: Path, stdin: str | None = None) -> Ended:
    """Runs `python -m module arguments` in `cwd`, without a process: by the module's `main`."""
    two_logical_cpus()
    if "keras" in sys.modules:
        # Names count from 1, as in a new process.
        sys.modules["keras"].utils.clear_session(free_memory=False)
    standard_input = io.TextIOWrapper(io.BytesIO((stdin or "").encode()), encoding="utf-8")
    with _captured() as (out, err), _as_in_a_process(cwd, standard_input):
        status = 0
        try:
            run_main(importlib.import_module(module).main, list(map(str, arguments)))
        except SystemExit as end:
            status = end.code or 0
    return Ended(status, out.getvalue(), err.getvalue())


class _Text(io.TextIOWrapper):
    """Text in memory that `reconfigure` works on, as on the standard streams."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8", errors="replace", newline="")

    def getvalue(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8", "replace")


@contextlib.contextmanager
def _captured() -> Iterator[tuple[_Text, _Text]]:
    out, err = _Text(), _Text()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


@contextlib.contextmanager
def _as_in_a_process(cwd: Path, standard_input: io.TextIOWrapper) -> Iterator[None]:
    """Undoes what ends with a process: directory, environment, signal handlers, its modules."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = set(sys.modules)
    path, place, given, environment = list(sys.path), os.getcwd(), sys.stdin, dict(os.environ)
    os.chdir(cwd)
    sys.stdin = standard_input
    try:
        yield
    finally:
        sys.stdin = given
        os.chdir(place)
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        user_code._config_dirs.clear()
        user_code._loaded.clear()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(Path(cwd).resolve()):
                del sys.modules[name]


def two_logical_cpus() -> None:
    """Gives TensorFlow two CPUs, as two replicas need: before its first use. Repeat at will."""
    import tensorflow as tf

    (cpu, *_) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Strategies of one process would take each other's collective operations for their own; the
    # tests of TensorFlow give them other keys by the same attribute.
    tf.distribute.MirroredStrategy._collective_key_base += 100_000


def measure_speed_briefly() -> None:
    """Has exports measure their speed by few requests, which is what costs a small one the most."""
    from trainer.serving import benchmark

    benchmark.measure.__kwdefaults__ |= {"requests": 3, "batches": 1}
    benchmark._WARM_UP_REQUESTS = 1


def succeed(module: str, *arguments: object, cwd: Path, **kwargs) -> str:
    """Its stdout; the test fails with all output if the command does not end with status 0."""
    result = run_module(module, *arguments, cwd=cwd, **kwargs)
    assert result.returncode == 0, (
        f"{module} {arguments}: status {result.returncode}\n{result.stdout}\n{result.stderr}"
    )
    return result.stdout


def fail_cleanly(module: str, *arguments: object, cwd: Path, **kwargs) -> str:
    """The one message of a command that ends with status 2 and without a traceback."""
    result = run_module(module, *arguments, cwd=cwd, **kwargs)
    assert result.returncode == 2, f"status {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr and "Traceback" not in result.stdout
    assert result.stderr.count("error: ") == 1, result.stderr
    return result.stderr


def train(root: Path, *settings: str, status: int = 0, fresh: bool = False) -> str:
    """`train --config small.yaml` with settings such as `train.epochs=1`; all that it printed."""
    result = run_module(
        "trainer.task",
        *("train", "--config", "small.yaml", *(["--fresh"] if fresh else [])),
        *(part for setting in settings for part in ("--set", setting)),
        cwd=root,
    )
    output = result.stdout + result.stderr
    assert result.returncode == status, f"status {result.returncode}, expected {status}:\n{output}"
    assert "Traceback" not in output
    return output


def skip_without(what: str, reason: str) -> NoReturn:
    """Skips a test for want of `what`, such as "prism".

    It fails where MULTIHOT_REQUIRE, a list with commas, names that, as CI does.
    """
    if what in os.environ.get("MULTIHOT_REQUIRE", "").split(","):
        pytest.fail(f"{what} is required by MULTIHOT_REQUIRE: {reason}")
    pytest.skip(reason)
