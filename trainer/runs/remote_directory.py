"""A run directory on an object store: a local copy, whose changes are put back in order.

Whatever reads or writes a run works on `local`. `push` uploads what has changed: files that others
name come first, then what names them, so that a kill in between leaves the state before. A
checkpoint's data precede its index, and both the list of complete checkpoints.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from beam_jobs.contract import places
from beam_jobs.contract.atomic import LOCK
from beam_jobs.contract.object_stores import StoredFile
from beam_jobs.contract.store_lock import exclusive_on_store
from trainer.runs.layout import CONFIG, THRESHOLDS

_THREADS = 8  # files at a time
# TensorFlow's list of complete checkpoints; thresholds name a calibration; a config makes a run.
_LAST = {"checkpoint", THRESHOLDS, CONFIG}

_copies: dict[str, "_Copy"] = {}


def local(run_dir: str | Path) -> Path:
    """The run directory itself, or the local copy of a remote one, made at the first call."""
    run_dir = str(run_dir)
    if not places.is_remote(run_dir):
        return Path(run_dir)
    if run_dir not in _copies:
        _copies[run_dir] = _Copy(run_dir)
    return _copies[run_dir].path


@contextlib.contextmanager
def exclusive(run_dir: str, what: str) -> Iterator[None]:
    """Keeps other processes from writing a remote run directory during the block, whose copy is
    made anew at its beginning and pushed at its end.

    Raises:
      UserError: another process writes it.
    """
    copy = _copies.get(run_dir)
    if copy is None:
        yield
        return
    with exclusive_on_store(run_dir, what) as lock:
        copy.pull()
        copy.lock = lock
        try:
            yield
        finally:
            copy.push()
            copy.lock = None


def push(run_dir: str | Path) -> None:
    """Puts what has changed in the copy of a remote run directory; only one process may."""
    if copy := _copies.get(str(run_dir)):
        copy.push()


def refresh(run_dir: str | Path) -> None:
    """Makes the copy of a remote run directory as what is there now."""
    if copy := _copies.get(str(run_dir)):
        copy.pull()


class _Copy:
    """The local copy of a run directory on a store; it is deleted when the process ends.

    Attributes:
      lock: the lock that must be held for a push; None: none is needed.
    """

    def __init__(self, url: str):
        self._url, self.lock = url, None
        self._folder = tempfile.TemporaryDirectory(prefix="multihot-run-")
        self.path = Path(self._folder.name, "run")
        self._known: dict[str, tuple[int, int]] = {}
        self._pulled: dict[str, StoredFile] = {}
        self.pull()

    def pull(self) -> None:
        found = places.list_files(self._url)
        found.pop(LOCK, None)
        have = self._files()
        for name in have.keys() - found.keys():
            (self.path / name).unlink()
        missing = [
            name
            for name, file in found.items()
            if self._pulled.get(name) != file or have.get(name) != self._known.get(name)
        ]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._download, missing))
        self._known, self._pulled = self._files(), found

    def push(self) -> None:
        files = self._files()
        changed = [name for name, status in files.items() if self._known.get(name) != status]
        if self.lock and (changed or self._known.keys() - files.keys()):
            self.lock.check()
        with ThreadPoolExecutor(_THREADS) as pool:
            for _, names in itertools.groupby(sorted(changed, key=_rank), key=_rank):
                list(pool.map(self._upload, names))
        places.delete(places.join(self._url, name) for name in self._known.keys() - files.keys())
        self._known = files

    def _download(self, name: str) -> None:
        places.download(places.join(self._url, name), self.path / name)

    def _upload(self, name: str) -> None:
        places.upload(self.path / name, places.join(self._url, name))

    def _files(self) -> dict[str, tuple[int, int]]:
        """By its path in the directory, the size of each file and when it was changed."""
        return {
            name: (status.st_size, status.st_mtime_ns)
            for name, status in _statuses(self.path)
            if not name.endswith(".tmp") and name != LOCK
        }


def _statuses(directory: Path) -> Iterable[tuple[str, os.stat_result]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path.stat()


def _rank(name: str) -> int:
    """Files of a lower rank must be there first."""
    leaf = name.rpartition("/")[2]
    return 2 if leaf in _LAST else 1 if leaf.endswith(".index") else 0
