"""The workers of a run meet before TensorFlow connects them.

TensorFlow itself waits for an hour and does not say for which worker. It would also take a worker
of an attempt that is about to end for one of this attempt: launchers start each worker by itself.
"""

import contextlib
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator

from beam_jobs.contract.command_line import EXIT_LOST_WORKER
from beam_jobs.contract.errors import UserError
from trainer.distribution.cluster import Cluster

_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 5
_GREETING = re.compile(r"multihot worker (\d+) of (\d+)\n")
_GO, _JOINED = b"go\n", b"joined\n"
_LINE_BYTES = 100


class LostWorkerError(Exception):
    """Another worker of the run has ended or has not come, so this one cannot go on."""


@contextlib.contextmanager
def meeting(cluster: Cluster, *, timeout_seconds: float) -> Iterator[None]:
    """Enters the block when all workers are about to enter it: in it TensorFlow connects them.

    While it waits, a worker greets whoever connects to its address. One that every other worker has
    greeted says so to the chief, and when all have, the chief lets them go. Should a worker end
    while others are in the block, where TensorFlow would wait for it, they end at once with the
    status EXIT_LOST_WORKER.

    Raises:
      UserError: our own port is in use, or a worker says that it is another one than expected.
      LostWorkerError: a worker does not come in time.
    """
    deadline = time.monotonic() + timeout_seconds
    is_chief = cluster.index == 0
    missing = [i for i in range(len(cluster.addresses)) if i != cluster.index]
    with _Door(cluster) as door:
        while True:
            missing = [i for i in missing if not _greets(cluster, i)]
            late = missing or (door.not_ready() if is_chief else [0])
            if not missing:
                connections = door.let_go() if is_chief else _report(cluster, deadline)
                if connections:
                    break
            if time.monotonic() > deadline:
                raise LostWorkerError(_late(cluster, late, timeout_seconds))
            time.sleep(_POLL_SECONDS)
    with _watched(cluster, connections):
        yield


def _late(cluster: Cluster, missing: list[int], timeout_seconds: float) -> str:
    names = ", ".join(f"worker {i} ({cluster.addresses[i]})" for i in missing)
    return (
        f"worker {cluster.index} waited {timeout_seconds:g} s (train.worker_timeout_seconds), and "
        f"there was no answer from {names}; expected all {len(cluster.addresses)} workers of "
        f"{cluster.origin}: were they started, and can they reach each other?"
    )


# --- greetings -------------------------------------------------------------------------


def _greets(cluster: Cluster, index: int) -> bool:
    """Whether a worker greets us now."""
    with contextlib.suppress(OSError), _connect(cluster, index):
        return True
    return False


def _connect(cluster: Cluster, index: int) -> socket.socket:
    """A connection to a worker that has greeted us; raises OSError if it does not.

    TensorFlow's server, of an earlier attempt, does not say this.
    """
    host, _, port = cluster.addresses[index].rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(connection)
        greeting = _GREETING.fullmatch(_read_line(connection).decode("ascii", "replace"))
        if not greeting:
            raise ConnectionRefusedError("no worker that waits")
        received = int(greeting[1]), int(greeting[2])
        if received != (index, len(cluster.addresses)):
            raise UserError(
                f"{cluster.origin}: worker {cluster.index} received the answer of worker "
                f"{received[0]} of {received[1]} from {cluster.addresses[index]}, expected worker "
                f"{index} of {len(cluster.addresses)}: every worker needs the same addresses in "
                "the same order, and an index of its own"
            )
        stack.pop_all()
    return connection


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES:
        received = connection.recv(1)
        if not received:
            break
        line += received
    return line


def _report(cluster: Cluster, deadline: float) -> list[socket.socket]:
    """Tells the chief that all have greeted us; the connection to it when it lets us go, or []."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        connection = stack.enter_context(_connect(cluster, 0))
        connection.sendall(b"%d\n" % cluster.index)
        connection.settimeout(max(deadline - time.monotonic(), _POLL_SECONDS))
        if _read_line(connection) == _GO:
            stack.pop_all()
            return [connection]
    return []


class _Door:
    """Our own port while we wait: whoever connects is greeted, and may say that it is ready."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._ready: dict[int, socket.socket] = {}
        self._open: list[socket.socket] = []
        self._closing = threading.Event()
        self._own = socket.socket()
        port = int(cluster.addresses[cluster.index].rpartition(":")[2])
        # A connection that a worker of an earlier run has left in TIME_WAIT is no obstacle.
        self._own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._own.bind(("", port))
        except OSError as error:
            self._own.close()
            raise UserError(
                f"{cluster.origin}: the port {port} of our own address "
                f"{cluster.addresses[cluster.index]} cannot be opened ({error.strerror}); "
                "expected a free one: is another run, or an earlier one, still there?"
            ) from None
        self._own.listen(2 * len(cluster.addresses))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Door":
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._closing.set()
        self._thread.join()
        for connection in [self._own, *self._open]:
            connection.close()

    def _serve(self) -> None:
        greeting = f"multihot worker {self._cluster.index} of {len(self._cluster.addresses)}\n"
        while not self._closing.is_set():
            for connection in select.select([self._own, *self._open], [], [], _POLL_SECONDS)[0]:
                with contextlib.suppress(OSError):
                    if connection is self._own:
                        guest, _ = self._own.accept()
                        guest.settimeout(_ANSWER_SECONDS)
                        self._open.append(guest)
                        guest.sendall(greeting.encode())
                        continue
                self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        """Notes a worker that says that it is ready, and forgets one that has hung up."""
        line = b""
        with contextlib.suppress(OSError):
            line = _read_line(connection)
        if line.strip().isdigit():
            self._ready[int(line)] = connection
            return
        self._open.remove(connection)
        connection.close()
        for index in [i for i, ready in self._ready.items() if ready is connection]:
            del self._ready[index]

    def not_ready(self) -> list[int]:
        """The workers that have not said that they are ready; of the chief."""
        return sorted(set(range(1, len(self._cluster.addresses))) - self._ready.keys())

    def let_go(self) -> list[socket.socket]:
        """Lets all workers go, if all are ready; the connections to them, or []: not all are."""
        if self.not_ready():
            return []
        self._closing.set()
        self._thread.join()
        connections = list(self._ready.values())
        for connection in connections:
            self._open.remove(connection)
            with contextlib.suppress(OSError):  # it has ended: who watches it will see
                connection.sendall(_GO)
        return connections


# --- while TensorFlow connects ---------------------------------------------------------


@contextlib.contextmanager
def _watched(cluster: Cluster, connections: list[socket.socket]) -> Iterator[None]:
    """Ends this process, should another worker end while it is in the block."""
    done = threading.Event()

    def watch() -> None:
        waiting = list(connections)
        while waiting and not done.is_set():
            for connection in select.select(waiting, [], [], _POLL_SECONDS)[0]:
                line = b""
                with contextlib.suppress(OSError):
                    line = _read_line(connection)
                if line != _JOINED and not done.is_set():
                    print(
                        f"error: worker {cluster.index} has lost another worker while they were "
                        "being connected",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(EXIT_LOST_WORKER)
                waiting.remove(connection)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall(_JOINED)
    finally:
        done.set()
        thread.join()
        for connection in connections:
            connection.close()
