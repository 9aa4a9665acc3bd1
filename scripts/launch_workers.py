#!/usr/bin/env python3
r"""Starts several workers of one training run on this machine, and ends them together.

Each worker is a process `python -m trainer.task COMMAND ...` that finds the others through
TF_CONFIG. Their output is printed line by line, prefixed with `[worker N]`. The first worker to
fail ends the rest, and its exit status is the launcher's. Ctrl-C and SIGTERM are passed on: the
workers save a checkpoint after the same step and end; a second Ctrl-C does not wait for that. On
Linux they do so, too, when the launcher itself is killed.
With --restarts the workers start again after a failure, and training resumes from the newest
checkpoint.

  python scripts/launch_workers.py --workers 2 -- train --config configs/docstrings.yaml
  python scripts/launch_workers.py --workers 4 --restarts 3 -- \
    train --config configs/docstrings.yaml --set train.checkpoint_steps=500

The machine's cores are divided among the workers, and so are its GPUs (those in
CUDA_VISIBLE_DEVICES, if it is set). On one machine without GPUs, one process is usually faster:
this is for machines with several GPUs, and to try out what a cluster does.

exit status: that of the first worker that failed (128 + the signal's number if a signal ended it);
2 if the workers found the input wrong, which is never tried again; 0 if all are done.
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXIT_USER_ERROR = 2
PR_SET_PDEATHSIG = 1  # of Linux's prctl
POLL_SECONDS = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if argv is None else argv)
    launcher = Launcher(arguments.workers, arguments.command, grace_seconds=arguments.grace_seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, launcher.pass_on)
    for attempt in range(arguments.restarts + 1):
        status = launcher.run()
        if status in (0, EXIT_USER_ERROR) or launcher.stopped or attempt == arguments.restarts:
            break
        say(f"starting all workers again: restart {attempt + 1} of {arguments.restarts}")
    return status


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] --workers N [--restarts K] [--grace-seconds S] -- COMMAND ...",
    )
    parser.add_argument(
        "--workers", type=int, required=True, metavar="N", help="processes to start"
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=0,
        metavar="K",
        help="start all workers again after a failure, up to K times (default 0)",
    )
    parser.add_argument(
        "--grace-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="after a failure, wait so long for the others before killing them (default 30)",
    )
    parser.add_argument(
        "command",
        nargs="*",
        metavar="COMMAND",
        help="after `--`: the trainer's command line, such as `train --config FILE`",
    )
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error(f"--workers: received {arguments.workers}, expected 1 or more")
    if arguments.restarts < 0:
        parser.error(f"--restarts: received {arguments.restarts}, expected 0 or more")
    if arguments.grace_seconds < 0:
        parser.error(f"--grace-seconds: received {arguments.grace_seconds:g}, expected 0 or more")
    if not arguments.command:
        parser.error(
            "received no command; expected one after `--`, such as "
            "`-- train --config configs/docstrings.yaml`"
        )
    return arguments


class Launcher:
    """Runs one set of workers at a time.

    Attributes:
      stopped: a signal has asked for the end.
    """

    def __init__(self, workers: int, command: Sequence[str], *, grace_seconds: float):
        self._workers = workers
        self._command = command
        self._grace_seconds = grace_seconds
        self._processes: list[subprocess.Popen] = []
        self._print = threading.Lock()
        self.stopped = False

    def pass_on(self, number: int, frame) -> None:
        """A signal handler: gives the signal to every worker."""
        self.stopped = True
        self._signal(number)

    def run(self) -> int:
        """Starts the workers, waits for all of them, and returns the exit status."""
        ports = free_ports(self._workers)
        self._processes = []
        readers = []
        for index in range(self._workers):
            if self.stopped:
                break
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "trainer.task", *self._command],
                env=environment_of(index, ports),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C comes once, through us
                preexec_fn=end_with_the_launcher,
            )
            self._processes.append(process)
            readers.append(
                threading.Thread(target=self._forward, args=(index, process), daemon=True)
            )
            readers[-1].start()
        status = self._wait()
        for reader in readers:
            reader.join()
        return status

    def _wait(self) -> int:
        first_failure = None
        deadline = None
        # A list, so that all are polled, and not only up to the first that runs.
        while None in [process.poll() for process in self._processes]:
            if first_failure is None:
                failed = [i for i, process in enumerate(self._processes) if process.returncode]
                if failed:
                    # Where a worker was killed and another failed for the loss of it at the same
                    # time, the killed one is the cause.
                    first_failure = min(failed, key=lambda i: self._processes[i].returncode)
                    if not self.stopped:
                        status = describe_status(self._processes[first_failure].returncode)
                        say(f"worker {first_failure} ended with {status}; ending the others")
                        self._signal(signal.SIGTERM)
                    deadline = time.monotonic() + self._grace_seconds
            elif deadline and time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
                deadline = None
            time.sleep(POLL_SECONDS)
        codes = [process.returncode for process in self._processes]
        code = (
            codes[first_failure] if first_failure is not None else next((c for c in codes if c), 0)
        )
        if self.stopped and not codes:
            code = -signal.SIGINT
        return code if code >= 0 else 128 - code

    def _signal(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

    def _forward(self, index: int, process: subprocess.Popen) -> None:
        for line in process.stdout:
            with self._print:
                sys.stdout.write(f"[worker {index}] {line.decode('utf-8', 'replace')}")
                sys.stdout.flush()


def _prctl():
    """Linux's prctl; None: there is none here."""
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(None).prctl
    return None


PRCTL = _prctl()


def end_with_the_launcher() -> None:
    """Has the calling process, which is about to become a worker, receive SIGTERM when the launcher
    ends, however it ends: its workers would go on, and those of the next launcher beside them.
    """
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_ports(count: int) -> list[int]:
    """Ports that are free now; each is held until all are found, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment_of(index: int, ports: Sequence[int]) -> dict[str, str]:
    """The environment of worker `index`: its task in the cluster, its share of cores and GPUs."""
    workers = len(ports)
    environment = dict(os.environ)
    environment["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
    )
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), environment.get("PYTHONPATH")])
    )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    environment.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, cores // workers)))
    gpus = visible_gpus()
    if gpus:
        share = len(gpus) // workers
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * share : (index + 1) * share])
    return environment


def visible_gpus() -> list[str]:
    """The NVIDIA devices that this process may use."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip()]
    return [str(i) for i in range(sum(1 for _ in Path("/dev").glob("nvidia[0-9]*")))]


def describe_status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def say(message: str) -> None:
    print(f"[launcher] {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
