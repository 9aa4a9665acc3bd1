"""Workers meet before TensorFlow connects them, and those that do not come are named."""

import contextlib
import socket
import threading
import time

import pytest

from beam_jobs.contract.command_line import EXIT_LOST_WORKER
from beam_jobs.contract.errors import UserError
from trainer.distribution import meeting as meeting_module
from trainer.distribution.cluster import Cluster
from trainer.distribution.meeting import LostWorkerError, meeting


def free_addresses(count: int) -> tuple[str, ...]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return addresses


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def meet(addresses, index, *, seconds=30.0):
    return meeting(Cluster(addresses, index, "test"), timeout_seconds=seconds)


def test_workers_wait_for_the_last_of_them_and_can_then_open_their_ports():
    addresses = free_addresses(3)
    met, all_there, last_has_come = {}, threading.Barrier(3), threading.Event()

    def work(index, delay):
        time.sleep(delay)
        if delay:
            last_has_come.set()
        with meet(addresses, index):
            met[index] = last_has_come.is_set()
            with socket.create_server(("127.0.0.1", port(addresses[index]))):  # as TensorFlow does
                all_there.wait(timeout=60)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((0.0, 0.0, 0.3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert met == {0: True, 1: True, 2: True}


def test_a_worker_that_never_comes_is_named_and_one_of_an_earlier_attempt_does_not_count():
    addresses = free_addresses(2)
    with (
        socket.create_server(("127.0.0.1", port(addresses[1]))) as earlier,
        pytest.raises(LostWorkerError) as raised,
    ):
        # What TensorFlow's server sends first.
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    earlier.accept()[0].sendall(b"\0\0\0\4\0\0\0\0\0")

        threading.Thread(target=serve, daemon=True).start()
        with meet(addresses, 0, seconds=0.5):
            raise AssertionError("it was let go")
    assert str(raised.value).startswith(
        "worker 0 waited 0.5 s (train.worker_timeout_seconds), and there was no answer from "
        f"worker 1 ({addresses[1]}); expected all 2 workers of test"
    )


def test_a_worker_that_answers_as_another_one_is_told():
    addresses = free_addresses(2)
    with socket.create_server(("127.0.0.1", port(addresses[0]))) as other:

        def serve():
            with contextlib.suppress(OSError):
                other.accept()[0].sendall(b"multihot worker 0 of 3\n")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(UserError, match=r"answer of worker 0 of 3 from .*worker 0 of 2"):
            with meet(addresses, 1):
                raise AssertionError("it was let go")


def test_own_port_in_use_is_told_at_once():
    addresses = free_addresses(2)
    with (
        socket.create_server(("", port(addresses[1]))),
        pytest.raises(UserError, match="port .* of our own address .*: is another run"),
        meet(addresses, 1),
    ):
        raise AssertionError("it was let go")


def test_a_worker_that_ends_while_they_are_connected_ends_the_others(monkeypatch, capfd):
    addresses = free_addresses(2)
    ended = threading.Event()
    statuses = []

    def end(status):
        statuses.append(status)
        ended.set()

    def stay():
        with meet(addresses, 0):
            ended.wait(timeout=60)

    monkeypatch.setattr(meeting_module.os, "_exit", end)
    thread = threading.Thread(target=stay)
    thread.start()
    with pytest.raises(ZeroDivisionError), meet(addresses, 1):
        raise ZeroDivisionError
    thread.join(timeout=60)
    assert statuses == [EXIT_LOST_WORKER]
    assert "worker 0 has lost another worker while they were" in capfd.readouterr().err
