"""The worker pool, as an engine asks it for workers."""

import os
import sys
import time
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, endpoints_pb2

from beam_jobs import worker_pool
from beam_jobs.runtime import agreement
from tests.command_lines import fail_cleanly


def request(**params: str):
    endpoint = endpoints_pb2.ApiServiceDescriptor
    return beam_fn_api_pb2.StartWorkerRequest(
        worker_id="w1",
        provision_endpoint=endpoint(url="localhost:1"),
        control_endpoint=endpoint(url="localhost:2"),
        params=params,
    )


@pytest.fixture
def pool(monkeypatch, tmp_path):
    """A pool whose workers write down their arguments, and wait until they are ended."""
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/part\nmv {tmp_path}/part {tmp_path}/got\n'
        "exec sleep 600\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    pool = worker_pool.Pool()
    yield pool
    pool.close()


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def test_a_worker_is_started_as_beams_container_contract_says_and_ended_when_it_is_not_needed(
    pool, tmp_path, capfd
):
    assert pool.StartWorker(request(**agreement.here()), None).error == ""
    arguments = "--id=w1 --provision_endpoint=localhost:1 --control_endpoint=localhost:2"
    assert wait_for(tmp_path / "got") == f"-m beam_jobs.worker {arguments}\n"
    number = int(capfd.readouterr().out.rpartition(" ")[2])
    pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="w1"), None)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    assert capfd.readouterr().out == f"ended worker w1, process {number}\n"


def test_a_job_of_another_installation_is_refused_by_name(pool, tmp_path, capfd):
    error = pool.StartWorker(request(**agreement.here() | {"python": "3.9"}), None).error
    assert "python 3." in error and "3.9 where the job was started; expected the same" in error
    assert error in capfd.readouterr().err and not (tmp_path / "got").exists()


def test_a_port_that_another_program_has_is_one_message(tmp_path):
    server = grpc.server(None)
    port = server.add_insecure_port("localhost:0")
    message = fail_cleanly("beam_jobs.worker_pool", "--port", port, cwd=tmp_path)
    assert f"received localhost:{port}, where nothing can listen" in message
    server.stop(0)
