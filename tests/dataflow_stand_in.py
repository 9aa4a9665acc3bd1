"""A stand-in for Dataflow's service on localhost: it takes jobs by its protocol, and runs what was
staged for their workers on Beam's local runner.
"""

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from beam_jobs.contract import places


class Service:
    """The jobs that were created, as Dataflow's protocol describes them.

    Args:
      runs: run each job to its end when it is created; else it runs until it is cancelled.
      refuses: create none.
    """

    def __init__(self, *, runs: bool = False, refuses: bool = False):
        self.address = ""
        self.jobs: list[dict] = []
        self.created = threading.Event()
        self._runs = runs
        self.refuses = refuses

    def create(self, job: dict) -> dict:
        job |= {"id": f"job-{len(self.jobs)}", "currentState": "JOB_STATE_RUNNING"}
        self.jobs.append(job)
        if self._runs:
            _run_staged(job)
            job["currentState"] = "JOB_STATE_DONE"
        self.created.set()
        return job

    def update(self, number: int, change: dict) -> dict:
        if change.get("requestedState") in (
            "JOB_STATE_CANCELLED",
            5,
        ):  # Beam's client sends numbers
            self.jobs[number]["currentState"] = "JOB_STATE_CANCELLED"
        return self.jobs[number]


def options_of(job: dict) -> dict:
    """The pipeline options that a job was created with."""
    return job["environment"]["sdkPipelineOptions"]["options"]


def _run_staged(job: dict) -> None:
    """Runs the pipeline that was staged, on Beam's local runner in this process."""
    staged = options_of(job)["pipelineUrl"]
    pipeline = beam_runner_api_pb2.Pipeline.FromString(places.read_bytes(staged))
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


@contextlib.contextmanager
def serve(service: Service) -> Iterator[None]:
    """Serves at `service.address` during the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({} if self.path.split("?")[0].endswith("/messages") else self.job())

        def do_POST(self):
            if service.refuses:
                error = {"code": 403, "message": "not yours", "status": "PERMISSION_DENIED"}
                self.answer({"error": error}, status=403)
            else:
                self.answer(service.create(self.body()))

        def do_PUT(self):
            self.answer(service.update(self.number(), self.body()))

        def job(self) -> dict:
            return service.jobs[self.number()]

        def number(self) -> int:
            return int(re.search(r"/jobs/job-(\d+)", self.path)[1])

        def body(self) -> dict:
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, content: dict, *, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    service.address = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
