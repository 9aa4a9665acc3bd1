"""The worker processes of Beam's local runner, seen from the process that starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)

POLL_SECONDS = 0.1

# How the first worker process of this run that ended before the job ended; empty if none has.
lost: list[str] = []
_running: list["WorkerProcess"] = []


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
        self._process.kill()  # it has nothing left to do, or its results are no longer wanted
        self._fail_requests("the job has ended")
        _running.remove(self)
        super().close()
        self._process.wait()
        self._temporary.cleanup()

    def stop_worker(self) -> None:
        self._process.wait()

    def _watch(self) -> None:
        self._process.wait()
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
