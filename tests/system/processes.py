"""Commands in processes of their own, and waiting for them."""

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.command_lines import ROOT
from tests.scripts import load_script
from tests.system.hosts import enter

LAUNCHER = ROOT / "scripts/launch_workers.py"
# Trainers are forked from a process that has imported TensorFlow and used none of it, which saves
# each of them the seconds of that import.
_TRAINERS = multiprocessing.get_context("forkserver")
_TRAINERS.set_forkserver_preload(
    ["trainer.training.train", "trainer.evaluation.evaluate", "trainer.tuning.search"]
)


def start_job(
    home: Path, *arguments: str, environment: dict[str, str] | None = None, **options
) -> subprocess.Popen:
    """Starts `beam_jobs.preprocess --config config.yaml arguments` in `home`.

    Args:
      environment: all of it but where the packages are; None: that of this process.
      options: of `subprocess.Popen`.
    """
    command = [sys.executable, "-m", "beam_jobs.preprocess", "--config", "config.yaml", *arguments]
    own = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "random"}
    return subprocess.Popen(
        command,
        cwd=home,
        env=(os.environ if environment is None else environment) | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


class ForkedProcess:
    """A process that runs `program(arguments)`, with the methods of `subprocess.Popen`.

    `environment` is added to that of this process. It runs on `host`, one of `hosts.two_hosts`.
    """

    def __init__(
        self,
        program: Callable[[list[str]], None],
        arguments: list[str],
        *,
        cwd: Path,
        environment: dict[str, str] | None = None,
        daemon: bool = True,
        host: str | None = None,
    ):
        self._output = cwd / f"output-{time.monotonic_ns()}.txt"
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(ROOT)  # of the process that forks, where this starts it
        try:
            self._process = _TRAINERS.Process(
                target=_run,
                args=(program, arguments, str(cwd), str(self._output), environment or {}, host),
                daemon=daemon,
            )
            self._process.start()
        finally:
            os.environ.pop("PYTHONPATH")
            if path is not None:
                os.environ["PYTHONPATH"] = path
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def stdout(self):
        return open(self._output, encoding="utf-8")

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._output.name, timeout)
        output = self._output.read_text(encoding="utf-8")
        self._output.unlink()
        return output, None


def _run(
    program: Callable[[list[str]], None],
    arguments: list[str],
    cwd: str,
    output: str,
    environment: dict[str, str],
    host: str | None,
) -> None:
    gc.freeze()  # what was imported before the fork is no garbage
    if host:
        enter(host)
    os.setsid()
    os.chdir(cwd)
    os.environ |= environment | {"TF_NUM_INTRAOP_THREADS": "1"}
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    program(arguments)


def _train(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    from trainer import task

    task.run()


def _launch(arguments: list[str]) -> None:
    launch_workers = load_script("launch_workers")
    launch_workers.subprocess = types.SimpleNamespace(
        Popen=_ForkedWorker, DEVNULL=None, PIPE=None, STDOUT=None
    )
    sys.exit(launch_workers.main(arguments))


class _ForkedWorker:
    """In place of the launcher's `subprocess.Popen`: the worker is forked from the launcher."""

    def __init__(self, command: list[str], *, env: dict[str, str], preexec_fn, **_):
        reading, writing = os.pipe()
        arguments = command[command.index("trainer.task") + 1 :]
        self._process = multiprocessing.get_context("fork").Process(
            target=_run_worker, args=(arguments, env, preexec_fn, writing), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid
        os.close(writing)
        self.stdout = open(reading, "rb")

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run_worker(arguments: list[str], environment: dict[str, str], prepare, output: int) -> None:
    os.setsid()
    prepare()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    # The launcher's streams are files, unlike this pipe.
    sys.stdout, sys.stderr = (open(i, "w", encoding="utf-8", buffering=1) for i in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    _train(arguments)


def start(
    root: Path,
    *settings: str,
    workers: int | None = None,
    launcher: tuple[str, ...] = (),
    forked: bool = True,
) -> "subprocess.Popen | ForkedProcess":
    """Starts `train --config small.yaml` with settings such as `train.epochs=1`.

    With `workers` the launcher starts it, in as many processes: forked ones, or new ones as a
    user's launcher does.
    """
    arguments = _arguments("train", settings)
    if not workers:
        return ForkedProcess(_train, arguments, cwd=root)
    arguments = ["--workers", str(workers), *launcher, "--", *arguments]
    if forked:
        return ForkedProcess(_launch, arguments, cwd=root, daemon=False)  # it has children
    return subprocess.Popen(
        [sys.executable, str(LAUNCHER), *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _arguments(command: str, settings: tuple[str, ...]) -> list[str]:
    overrides = [part for setting in settings for part in ("--set", setting)]
    return [command, "--config", "small.yaml", *overrides]


def start_worker(
    root: Path,
    addresses: list[str],
    index: int,
    *settings: str,
    command: str = "train",
    arguments: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
):
    """Starts worker `index` of those at the addresses, as a launcher would."""
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = {"TF_CONFIG": json.dumps(cluster), **(environment or {})}
    arguments = [*_arguments(command, settings), *arguments]
    return ForkedProcess(_train, arguments, cwd=root, environment=environment)


def start_task_of_slurm(root: Path, rank: int, hosts: list[str] | None, *settings: str):
    """Starts one of two tasks of a step of Slurm, each on a host of its own or both on this one."""
    environment = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "10.77.0.[1-2]" if hosts else "127.0.0.1",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)" if hosts else "2",
    }
    return ForkedProcess(
        _train,
        _arguments("train", settings),
        cwd=root,
        environment=environment,
        host=hosts[rank] if hosts else None,
    )


def run_workers(
    root: Path,
    *settings: str,
    workers: int,
    command: str = "train",
    arguments: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """A whole run of several workers that end well; what all of them printed.

    `arguments` are of the command, beside its settings.
    """
    addresses = free_addresses(workers)
    processes = [
        start_worker(
            *(root, addresses, i, *settings),
            command=command,
            arguments=arguments,
            environment=environment,
        )
        for i in range(workers)
    ]
    try:
        return "".join(finish(process) for process in processes)
    finally:
        for process in processes:
            if process.poll() is None:
                kill(process)


def free_addresses(number: int) -> list[str]:
    """Addresses of this machine where nothing listens yet."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [f"127.0.0.1:{own.getsockname()[1]}" for own in sockets]


def kill(process: "subprocess.Popen | ForkedProcess") -> str:
    """Ends a process and its children as a crash of the machine would; what it had printed."""
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


def finish(process, *, status: int = 0, timeout: float = 600) -> str:
    """Waits for a process, checks how it ended, and returns all it printed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        output = kill(process)
        raise AssertionError(f"still running after {timeout} s:\n{output}") from None
    assert process.returncode == status, (
        f"status {process.returncode}, expected {status}:\n{output}"
    )
    return output


def train(root: Path, *settings: str, status: int = 0, **kwargs) -> str:
    """A whole training run; what it printed."""
    return finish(start(root, *settings, **kwargs), status=status)


def wait_for(condition, process, *, timeout: float = 300) -> None:
    """Returns when `condition()` holds; fails if the process ends before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, (
            f"ended too early, with status {process.returncode}:\n{process.stdout.read()}"
        )
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.01)
