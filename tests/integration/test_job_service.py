"""Jobs on an engine that is reached by Beam's job service: how they are ended there."""

import os
import signal
import threading
from concurrent import futures

import apache_beam as beam
import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from beam_jobs.runtime import runners

State = beam_job_api_pb2.JobState


class JobService(beam_job_api_pb2_grpc.JobServiceServicer):
    """A job service whose jobs run until they are cancelled.

    Args:
      number: a signal for this process, which comes as soon as a job runs.
      fails: the job fails as soon as it runs.
    """

    def __init__(self, number: int | None, *, fails: bool = False):
        self.cancelled: list[str] = []
        self._number, self._fails = number, fails
        self._state, self._changed = State.STOPPED, threading.Event()

    def DescribePipelineOptions(self, request, context):
        return beam_job_api_pb2.DescribePipelineOptionsResponse()

    def Prepare(self, request, context):
        return beam_job_api_pb2.PrepareJobResponse(preparation_id="prepared")

    def Run(self, request, context):
        self._state = State.FAILED if self._fails else State.RUNNING
        return beam_job_api_pb2.RunJobResponse(job_id="job-1")

    def GetState(self, request, context):
        return beam_job_api_pb2.JobStateEvent(state=self._state)

    def GetStateStream(self, request, context):
        if request.job_id != "job-1":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        yield beam_job_api_pb2.JobStateEvent(state=self._state)
        if not self._fails:
            os.kill(os.getpid(), self._number)
            self._changed.wait(30)
            yield beam_job_api_pb2.JobStateEvent(state=self._state)

    def GetMessageStream(self, request, context):
        return iter(())

    def Cancel(self, request, context):
        self.cancelled.append(request.job_id)
        self._state = State.CANCELLED
        self._changed.set()
        return beam_job_api_pb2.CancelJobResponse(state=self._state)


@pytest.fixture
def serve():
    """Starts a job service; its HOST:PORT."""
    servers = []

    def start(service: JobService) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(8))
        beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0)


def run(address: str) -> None:
    options = runners.pipeline_options(
        [
            *("--runner=PortableRunner", f"--job_endpoint={address}"),
            *("--environment_type=EXTERNAL", "--environment_config=127.0.0.1:9"),
        ],
        1,
    )
    pipeline = runners.make_pipeline(options)
    _ = pipeline | beam.Create([1])
    runners.run(pipeline, options)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_cancels_the_job_on_its_engine_before_this_process_ends(serve, number, expected):
    service = JobService(number)
    address = serve(service)
    before = signal.getsignal(number)
    with pytest.raises(expected):
        run(address)
    assert service.cancelled == ["job-1"]
    assert signal.getsignal(number) is before


def test_a_job_that_fails_on_its_engine_is_a_failure_and_not_cancelled(serve):
    service = JobService(None, fails=True)
    with pytest.raises(RuntimeError, match="FAILED"):
        run(serve(service))
    assert service.cancelled == []
