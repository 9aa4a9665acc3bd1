"""A worker pool: it starts worker processes where it runs, whenever an engine asks for one."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading

from beam_jobs.contract import child_process
from beam_jobs.contract.command_line import run_main
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.quiet import no_beam_warnings

DESCRIPTION = """\
Starts worker processes of multihot's Beam jobs on this machine, whenever an engine asks for one.
Run it on each machine that runs tasks of a Flink or Spark cluster, beside the task manager or
executor, and give the job
  -- --environment_type=EXTERNAL --environment_config=localhost:50000
with which every task asks the pool of its own machine. Ctrl-C or SIGTERM ends the pool and its
workers."""

EPILOG = """\
Workers run this installation, so multihot, Beam, TensorFlow and Python must be those of the machine
that starts the job; a pool that has others refuses its jobs and says so. They reach the job's
inputs, outputs and your own Python modules as they find them: start the pool in the directory of
the modules, or with PYTHONPATH, and with the credentials of your object store.

Who can reach the port can run code as you: the pool listens on this machine's own address alone
unless --host says another. Open another one within a private network only."""

_DEFAULT_PORT = 50000
_SECONDS_TO_END = 5.0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot-worker-pool",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=int,
        default=_DEFAULT_PORT,
        help="where the pool listens; 0 takes one that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="localhost",
        help="the address of this machine that it listens on, such as 0.0.0.0 for all of them "
        "(default: %(default)s)",
    )
    return parser


def main(argv: list[str]) -> None:
    """Serves until a signal ends the process.

    Raises:
      UserError: nothing can listen there.
      SystemExit: SIGTERM; its status is 143.
    """
    arguments = make_parser().parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes errors of its own beside ours
    # What is imported here takes seconds, and --help needs none of it.
    with no_beam_warnings():
        import grpc
        from apache_beam.portability.api import beam_fn_api_pb2_grpc
        from apache_beam.utils import thread_pool_executor

        from beam_jobs.runtime import agreement

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    pool = Pool()
    # Two pools on one port would share its requests.
    server = grpc.server(
        thread_pool_executor.shared_unbounded_instance(), options=[("grpc.so_reuseport", 0)]
    )
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    address = f"{arguments.host}:{arguments.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise UserError(
            f"--host, --port: received {address}, where nothing can listen; expected an address "
            "of this machine and a port that no other program has, such as another pool"
        )
    server.start()
    has = ", ".join(f"{name} {version}" for name, version in agreement.here().items())
    print(f"worker pool at {arguments.host}:{port}: {has}", flush=True)
    try:
        threading.Event().wait()
    finally:
        server.stop(0)
        pool.close()


class Pool:
    """Answers engines by the protocol of Beam's worker pools, and keeps the processes."""

    def __init__(self) -> None:
        self._processes: dict[str, tuple[subprocess.Popen, tempfile.TemporaryDirectory]] = {}
        self._lock = threading.Lock()

    def StartWorker(self, request, context):
        """Starts a worker process for an engine."""
        from apache_beam.portability.api import beam_fn_api_pb2

        from beam_jobs.runtime import agreement

        other = agreement.difference(request.params)
        if other is not None:
            error = (
                f"the worker pool cannot run this job: {other}; expected the same on both, so "
                "install one of them anew and start the pool again"
            )
            print(f"refused a worker: {error}", file=sys.stderr, flush=True)
            return beam_fn_api_pb2.StartWorkerResponse(error=error)
        try:
            process = self._start(request)
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"no worker can be started: {error}")
        print(f"started worker {request.worker_id}, process {process.pid}", flush=True)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request, context):
        """Ends a worker process that an engine needs no more."""
        from apache_beam.portability.api import beam_fn_api_pb2

        with self._lock:
            ended = self._processes.pop(request.worker_id, None)
        if ended is not None:
            _end(*ended)
            print(f"ended worker {request.worker_id}, process {ended[0].pid}", flush=True)
        return beam_fn_api_pb2.StopWorkerResponse()

    def close(self) -> None:
        """Ends all worker processes."""
        with self._lock:
            ended = list(self._processes.values())
            self._processes.clear()
        for process, folder in ended:
            _end(process, folder)

    def _start(self, request) -> subprocess.Popen:
        # For files that TensorFlow removes when its process ends, and not when it is killed.
        folder = tempfile.TemporaryDirectory(prefix="multihot-", ignore_cleanup_errors=True)
        command = [
            *(sys.executable, "-m", "beam_jobs.worker", f"--id={request.worker_id}"),
            f"--provision_endpoint={request.provision_endpoint.url}",
            f"--control_endpoint={request.control_endpoint.url}",
        ]
        environment = child_process.environment() | {"TMPDIR": folder.name}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        with self._lock:
            self._processes[request.worker_id] = process, folder
        threading.Thread(target=self._watch, args=(request.worker_id, process), daemon=True).start()
        return process

    def _watch(self, worker_id: str, process: subprocess.Popen) -> None:
        """Tells of a worker that ends although no engine has said so."""
        status = process.wait()
        with self._lock:
            held = self._processes.get(worker_id)
            if held is None or held[0] is not process:
                return
            del self._processes[worker_id]
        held[1].cleanup()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        if status:
            print(f"worker {worker_id}, process {process.pid}, ended {how}", flush=True)


def _end(process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()


def run() -> None:
    run_main(main)


if __name__ == "__main__":
    run()
