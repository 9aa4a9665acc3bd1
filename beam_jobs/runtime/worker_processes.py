"""The worker processes of Beam's local runner, seen from the process that starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)

POLL_SECONDS = 0.1
# A worker that has work and does not use a processor for so long hangs, or waits for a store.
HANG_SECONDS = 60.0
_LOOK_SECONDS = 5.0

# How the first worker process of this run that ended before the job ended; empty if none has.
lost: list[str] = []
_running: list["WorkerProcess"] = []


@contextlib.contextmanager
def lost_connections_told_once() -> Iterator[None]:
    """During the block, threads whose connection ends print nothing where a worker process has
    ended before the job: that is the cause, which the job's failure tells. Else they do at its end.
    """
    show = threading.excepthook
    held: list[threading.ExceptHookArgs] = []

    def hold(raised: threading.ExceptHookArgs) -> None:
        if issubclass(raised.exc_type, grpc.RpcError):
            held.append(raised)
        else:
            show(raised)

    threading.excepthook = hold
    try:
        yield
    finally:
        threading.excepthook = show
        if not lost:
            for raised in held:
                show(raised)


def _state_and_seconds(pid: int) -> tuple[str, float] | None:
    """A process's state, as `ps` has it, and its seconds of a processor; None: nobody can tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            state, *numbers = stream.read().rpartition(") ")[2].split()
    except OSError:  # it has ended, or this is not Linux
        return None
    return state, (int(numbers[10]) + int(numbers[11])) / os.sysconf("SC_CLK_TCK")


class Idle:
    """Tells when a process has work and does none."""

    _FEW_SECONDS = 0.2  # of a processor: what waiting takes

    def __init__(self, pid: int, look_at: Callable[[int], tuple[str, float] | None]):
        self._pid, self._look_at = pid, look_at
        self._since: float | None = None
        self._used = 0.0

    def look(self, now: float, *, has_work: bool) -> str | None:
        """What is wrong, after each time of HANG_SECONDS without work; None: nothing is.

        Args:
          now: seconds of a clock.
          has_work: whether somebody waits for the process.
        """
        seen = self._look_at(self._pid)
        if seen is None:
            return None
        state, used = seen
        if not has_work or self._since is None or used - self._used > self._FEW_SECONDS:
            self._since, self._used = now, used
            return None
        if now - self._since < HANG_SECONDS:
            return None
        seconds, self._since = now - self._since, now
        why = (
            "it was stopped (SIGSTOP)"
            if state in "Tt"
            else "it waits for a disk or store, or hangs"
        )
        return (
            f"worker process {self._pid} has done nothing for {seconds:.0f} s: {why}; the job "
            f"waits for it, and `kill {self._pid}` ends both"
        )


# Replaces Beam's own handler as soon as this module is imported.
@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class WorkerProcess(GrpcWorkerHandler):
    """One worker process. If it ends before the job, all others are ended and the job fails.

    Beam's own handler waits forever for an answer from a worker that was killed, for example when
    memory ran out; and, when the job is interrupted, for workers that do not know of it.
    """

    def __init__(self, _command_line, state, provision_info, grpc_server):
        super().__init__(state, provision_info, grpc_server)
        self.control_conn._read_thread = threading.Thread(target=self._read_answers, daemon=True)
        self._is_closed = threading.Event()

    def start_worker(self) -> None:
        command = [
            sys.executable,
            "-m",
            "beam_jobs.worker",
            f"--id={self.worker_id}",
            f"--provision_endpoint={self.control_address}",
        ]
        # For files that TensorFlow removes when its process ends, and not when it is killed.
        self._temporary = tempfile.TemporaryDirectory(
            prefix="multihot-", ignore_cleanup_errors=True
        )
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": self._temporary.name},
        )
        _running.append(self)
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        if self._process.poll() is not None:
            self._note_loss()
        self._is_closed.set()
        # The thread that reads the worker's data may notice its end first, and would take it for a
        # failure.
        self.data_conn._closed = True
        self._process.kill()  # it has nothing left to do, or its results are no longer wanted
        self._fail_requests("the job has ended")
        _running.remove(self)
        try:
            super().close()  # raises what ended the connection of a worker that was killed
        finally:
            self._process.wait()
            self._temporary.cleanup()

    def stop_worker(self) -> None:
        self._process.wait()

    def _watch(self) -> None:
        idle = Idle(self._process.pid, _state_and_seconds)
        while True:
            try:
                self._process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                has_work = bool(self.control_conn._futures_by_id)
                if told := idle.look(time.monotonic(), has_work=has_work):
                    print(f"warning: {told}", file=sys.stderr, flush=True)
        # More than once, since a bundle may be sent to the process after its end.
        while not self._is_closed.wait(POLL_SECONDS):
            self._note_loss()
            self._fail_requests(lost[0])
            for other in list(_running):  # the job would wait for their results
                other._process.kill()

    def _note_loss(self) -> None:
        if lost:
            return
        status = self._process.returncode
        if status == -signal.SIGKILL:
            how = (
                "was killed, perhaps because memory ran out: try fewer workers, "
                "such as --direct_num_workers=1"
            )
        else:
            how = (
                f"was ended by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
        lost.append(f"worker process {self._process.pid} {how}")

    def _fail_requests(self, error: str) -> None:
        # Not `ControlConnection.abort`: what waits for the data of a bundle notices only answers.
        for identifier, request in list(self.control_conn._futures_by_id.items()):
            request.set(beam_fn_api_pb2.InstructionResponse(instruction_id=identifier, error=error))

    def _read_answers(self) -> None:
        with contextlib.suppress(grpc.RpcError):  # raised when the process ends
            self.control_conn._read()
