"""Operations on files, as they happen in a process: written to a log, and killed just before one.

Python's audit hooks tell of every file that Python opens for writing, renames or deletes, and of
every request to a store. What TensorFlow and SQLite write themselves they do not see; `watching`
does.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

LOG, AT, ROOT, GROUP = "SOAK_LOG", "SOAK_AT", "SOAK_ROOT", "SOAK_GROUP"
# Put on PYTHONPATH, so that the processes of a process have the hook too.
STARTUP = str(Path(__file__).parent / "startup")
_RECORD_BYTES = 160
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_WITH_A_TARGET = {"os.rename", "os.link", "os.symlink"}
_WITH_A_PATH = {"os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_REQUESTS = (b"PUT ", b"POST ", b"DELETE ")


def install() -> None:
    """Watches this process, as the environment says: the log, the number to kill at, the folder.

    The first one's group is what is killed, also by a process of its own in another group.
    """
    if LOG not in os.environ:
        return
    group = int(os.environ.setdefault(GROUP, str(os.getpid())))
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    at, root, lock = int(os.environ[AT]), os.environ[ROOT], threading.Lock()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        try:
            told = _told(event, arguments, root)
        except (TypeError, ValueError, AttributeError, IndexError):
            return
        if told is None:
            return
        record = told.encode("utf-8", "replace")[: _RECORD_BYTES - 1].ljust(_RECORD_BYTES - 1)
        with lock:
            os.write(log, record + b"\n")
            number = os.lseek(log, 0, os.SEEK_CUR) // _RECORD_BYTES
        if number == at:  # counted over all processes: what is appended is appended in turn
            os.killpg(group, signal.SIGKILL)

    sys.addaudithook(hook)


def _told(event: str, arguments: tuple[Any, ...], root: str) -> str | None:
    """The operation in words; None: it changes nothing below the folder, outside of its `tmp`."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes | os.PathLike) or not flags & _CHANGES:
            return None
    elif event in _WITH_A_TARGET:
        path = arguments[1]
    elif event in _WITH_A_PATH:
        path = arguments[0]
    elif event == "http.client.send" and arguments[1][:7].startswith(_REQUESTS):
        return arguments[1].partition(b" HTTP")[0].decode("utf-8", "replace")
    else:
        return None
    path = os.path.relpath(os.path.abspath(os.fsdecode(path)), root)
    is_elsewhere = path.startswith((os.pardir, "tmp"))
    return None if is_elsewhere else f"{event} {path}"


def read_log(path: Path) -> list[str]:
    """The operations of a process that has ended, and of its own processes, in their order."""
    if not path.exists():
        return []
    return [
        line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]


def publishes(operation: str) -> bool:
    """Whether an operation gives something its name: a rename, or a request to a store."""
    return operation.startswith(("os.rename", "PUT", "POST"))
