"""A worker process that hangs is told of, and one that is ended at the end of a job is not."""

import os
import subprocess
import tempfile
import threading
import types

import grpc
import pytest
from apache_beam.runners.worker.data_plane import _GrpcDataChannel

from beam_jobs.runtime import worker_processes
from beam_jobs.runtime.worker_processes import Idle, WorkerProcess, _state_and_seconds


def told(looks) -> list[str | None]:
    """What is told of a process at each look: (clock, whether it has work, state, seconds used)."""
    seen = iter(looks)
    idle = Idle(7, lambda pid: current[2:])
    messages = []
    for current in seen:
        messages.append(idle.look(current[0], has_work=current[1]))
    return messages


def test_a_worker_that_uses_no_processor_while_the_job_waits_is_told_of_each_minute():
    looks = [(second, True, "T", 3.0) for second in range(0, 130, 5)]
    messages = [message for message in told(looks) if message]
    assert messages == 2 * [
        "worker process 7 has done nothing for 60 s: it was stopped (SIGSTOP); the job waits for "
        "it, and `kill 7` ends both"
    ]
    looks = [(second, True, "S", 3.0) for second in range(0, 70, 5)]
    assert (
        "waits for a disk or store, or hangs" in [message for message in told(looks) if message][0]
    )


def test_nothing_is_told_of_a_worker_that_works_or_has_nothing_to_do():
    assert not any(told([(second, True, "S", second * 0.1) for second in range(0, 300, 5)]))
    assert not any(told([(second, False, "S", 3.0) for second in range(0, 300, 5)]))
    assert not any(told([(0, True, "S", 3.0), (30, True, "S", 3.0), (40, True, "R", 9.0)]))
    idle = Idle(7, lambda pid: None)  # it has ended, or nobody can tell
    assert not any(idle.look(second, has_work=True) for second in range(0, 300, 5))


def test_this_process_runs_and_has_used_a_processor():
    state, seconds = _state_and_seconds(os.getpid())
    assert state in "RS" and seconds > 0
    assert _state_and_seconds(2**22 + 1) is None


@pytest.mark.parametrize("lost", [[], ["worker process 7 was killed"]])
def test_a_connection_that_a_killed_worker_ends_is_not_told_of_and_any_other_is(monkeypatch, lost):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda raised: told.append(raised.exc_type))
    monkeypatch.setattr(worker_processes, "lost", [])

    def fail(error):
        raise error

    with worker_processes.lost_connections_told_once():
        for error in (grpc.RpcError(), ValueError()):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
        assert told == [ValueError]
        worker_processes.lost += lost
    assert told == [ValueError] + [grpc.RpcError] * (not lost)


def test_a_worker_that_is_closed_ends_its_connections_without_a_failure(monkeypatch):
    """Its data's thread notices the end before the thread that ends it goes on."""
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda raised: told.append(raised.exc_type))
    monkeypatch.setattr(worker_processes, "_running", [])
    monkeypatch.setattr(worker_processes, "lost", [])
    worker = object.__new__(WorkerProcess)
    worker._process = subprocess.Popen(["sleep", "600"])
    worker._temporary = tempfile.TemporaryDirectory()
    worker._is_closed = threading.Event()
    worker.data_conn = _GrpcDataChannel()
    worker.control_conn = types.SimpleNamespace(_futures_by_id={}, close=worker.data_conn.wait)
    worker_processes._running.append(worker)

    def data():
        worker._process.wait()
        raise grpc.RpcError
        yield

    worker.data_conn.set_inputs(data())
    worker.close()
    assert told == worker_processes.lost == worker_processes._running == []
    assert not os.path.exists(worker._temporary.name)
