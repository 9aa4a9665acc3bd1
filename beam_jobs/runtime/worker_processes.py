"""The worker processes of Beam's local runner, seen from the process that starts them."""

import contextlib
import signal
import subprocess
import sys
import threading

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)

POLL_SECONDS = 0.1

lost: list[
    str
] = []  # what is to be told of the first worker process of this run that ended before the job did
_running: list["WorkerProcess"] = []


@WorkerHandler.register_environment(
    python_urns.SUBPROCESS_SDK, bytes
)  # in the place of Beam's own, once this module is imported
class WorkerProcess(GrpcWorkerHandler):
    """One worker process. Its end, before the job's, ends all others and fails the job.

    Beam's own handler waits for ever for the answer of a worker that was killed, such as for want of memory; and when the
    job is interrupted, for workers that nobody told of it.
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
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        _running.append(self)
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        if self._process.poll() is not None:
            self._note_loss()
        self._is_closed.set()
        self._process.kill()  # it has nothing left to do, or nobody wants what it does
        self._fail_requests("the job has ended")
        _running.remove(self)
        super().close()

    def stop_worker(self) -> None:
        self._process.wait()

    def _watch(self) -> None:
        self._process.wait()
        while not self._is_closed.wait(
            POLL_SECONDS
        ):  # more than once, since a bundle may be sent to it after its end
            self._note_loss()
            self._fail_requests(lost[0])
            for other in list(_running):  # the job would wait for what they are at
                other._process.kill()

    def _note_loss(self) -> None:
        if lost:
            return
        status = self._process.returncode
        if status == -signal.SIGKILL:
            how = "was killed, perhaps for want of memory: try fewer workers, such as --direct_num_workers=1"
        else:
            how = (
                f"was ended by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
        lost.append(f"worker process {self._process.pid} {how}")

    def _fail_requests(self, error: str) -> None:
        # `ControlConnection.abort` would not do: what waits for the data of a bundle sees answers only.
        for identifier, request in list(self.control_conn._futures_by_id.items()):
            request.set(beam_fn_api_pb2.InstructionResponse(instruction_id=identifier, error=error))

    def _read_answers(self) -> None:
        with contextlib.suppress(grpc.RpcError):  # the end of the process ends them
            self.control_conn._read()
