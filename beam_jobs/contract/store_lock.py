"""A lock on a directory of an object store: an object that its holder writes again and again.

Stores have no locks that end with a process. So a lock whose content stays the same for a minute is
one of a process that is gone, whatever the clocks of the machines say, and is taken over. A holder
that was cut off for so long finds another content when it looks next, and must write no more.

Where the store puts an object only if there is none (Amazon's S3, Google Cloud Storage, HDFS), of
two processes that begin at the same time one is refused at once; elsewhere, the one that wrote
first ends when it looks next.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from beam_jobs.contract import places
from beam_jobs.contract.atomic import LOCK
from beam_jobs.contract.errors import UserError

_BEAT_SECONDS = 15.0
_EXPIRY_SECONDS = 60.0
_POLL_SECONDS = 2.0


class StoreLock:
    """A lock that this process holds, see `exclusive_on_store`."""

    def __init__(self, place: str, what: str):
        self._path, self._place, self._what = places.join(place, LOCK), place, what
        self._machine, self._token, self._beats = _machine(), uuid.uuid4().hex, 0
        self._released, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def check(self) -> None:
        """Raises UserError if this process does not hold the lock any more."""
        with self._writing:  # by HttpFS there is none for a moment while it is replaced
            content = _read(self._path)
        if not self._is_own(content):
            raise UserError(
                f"{self._what}: {_holder(content)} writes {self._place} in place of this process, "
                f"which therefore ends; expected {self._path} to stay as this process wrote it"
            )

    def acquire(self) -> None:
        """Takes the lock; where there is one, waits to see whether its process is alive.

        Raises:
          UserError: it is alive.
        """
        if _read(self._path) is not None or not self._write_new():
            self._wait_until_expired()
            places.write(self._path, self._content())
            time.sleep(_POLL_SECONDS)  # for another process that has waited, too
        if not self._is_own(content := _read(self._path)):
            raise self._refusal(content)
        self._thread.start()

    def release(self) -> None:
        """Gives the lock back, if it is still ours."""
        self._released.set()
        self._thread.join()
        if self._is_own(_read(self._path)):
            places.delete([self._path])

    def _write_new(self) -> bool:
        """Whether the lock, where there was none, is now ours.

        A client library that has received no answer asks again, and is told of its own lock.
        """
        return places.write_new(self._path, self._content()) or self._is_own(_read(self._path))

    def _beat(self) -> None:
        while not self._released.wait(_BEAT_SECONDS):
            with self._writing, contextlib.suppress(UserError):  # no answer: the next time
                if self._is_own(_read(self._path)):
                    places.write(self._path, self._content())

    def _wait_until_expired(self) -> None:
        first = _read(self._path)
        deadline = time.monotonic() + _EXPIRY_SECONDS
        while first is not None and not self._has_died(first) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            content = _read(self._path) or _read(self._path)
            if content is not None and content != first:
                raise self._refusal(content)
            first = content

    def _has_died(self, content: dict[str, Any]) -> bool:
        """Whether it was a process of this machine that has ended."""
        if content.get("machine") != self._machine or not isinstance(content.get("process"), int):
            return False
        try:
            os.kill(content["process"], 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False

    def _refusal(self, content: dict[str, Any] | None) -> UserError:
        return UserError(
            f"{self._what}: {self._place} is being written by {_holder(content)}; wait for it to "
            f"end, or set {self._what} to another directory. To have it write no more, delete "
            f"{self._path}"
        )

    def _is_own(self, content: dict[str, Any] | None) -> bool:
        return content is not None and content.get("token") == self._token

    def _content(self) -> str:
        self._beats += 1
        return json.dumps(
            {
                "holder": f"process {os.getpid()} of {socket.gethostname()}",
                "machine": self._machine,
                "process": os.getpid(),
                "token": self._token,
                "beats": self._beats,
            }
        )


@contextlib.contextmanager
def exclusive_on_store(place: str, what: str) -> Iterator[StoreLock]:
    """Keeps other processes from writing a directory of a store during the block.

    Args:
      place: its URL.
      what: the config key or flag that names it, for errors.

    Raises:
      UserError: another process does.
    """
    lock = StoreLock(place, what)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _read(path: str) -> dict[str, Any] | None:
    """The content of a lock; None: there is none."""
    try:
        content = json.loads(places.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _holder(content: dict[str, Any] | None) -> str:
    return str((content or {}).get("holder") or "another process")


def _machine() -> str:
    """This start of this machine, and the space of its process numbers; one of its own where the
    system does not say.
    """
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return f"{stream.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return uuid.uuid4().hex
