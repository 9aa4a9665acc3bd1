"""Changes below a folder as the kernel tells of them: also what TensorFlow and SQLite write."""

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

# <sys/inotify.h>
_MODIFY, _MOVED_FROM, _MOVED_TO = 0x2, 0x40, 0x80
_CREATE, _DELETE, _CLOSE_WRITE, _IS_DIRECTORY = 0x100, 0x200, 0x8, 0x40000000
_ALL = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _CLOSE_WRITE
_NAMES = {
    _MODIFY: "modified",
    _MOVED_FROM: "moved from",
    _MOVED_TO: "moved to",
    _CREATE: "created",
    _DELETE: "deleted",
    _CLOSE_WRITE: "closed",
}


class Watch:
    """A thread that counts changes below a folder, and calls `reached` after the n-th.

    A context manager. `changes` are told in their order.
    """

    def __init__(self, folder: Path, at: int = 0, reached: Callable[[], None] = lambda: None):
        self.changes: list[str] = []
        self._folder, self._at, self._reached = folder, at, reached
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._descriptor = self._libc.inotify_init()
        self._paths: dict[int, str] = {}
        self._add(str(self._folder))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._descriptor)

    def _add(self, folder: str) -> None:
        for path, _, _ in os.walk(folder):
            number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _ALL)
            if number >= 0:
                self._paths[number] = path

    def _run(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._descriptor], [], [], 0.05)[0]:
                continue
            data, offset = os.read(self._descriptor, 1 << 16), 0
            while offset < len(data):
                number, mask, _, length = struct.unpack_from("iIII", data, offset)
                name = data[offset + 16 : offset + 16 + length].rstrip(b"\0").decode()
                offset += 16 + length
                self._changed(os.path.join(self._paths.get(number, ""), name), mask)

    def _changed(self, path: str, mask: int) -> None:
        what = [name for bit, name in _NAMES.items() if mask & bit]
        if not what:
            return
        self.changes.append(f"{what[0]} {os.path.relpath(path, self._folder)}")
        if len(self.changes) == self._at:
            self._reached()
        if mask & _IS_DIRECTORY and mask & (_CREATE | _MOVED_TO):
            self._add(path)
