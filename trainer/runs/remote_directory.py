"""A run directory on an object store: a local copy, whose changes are put back in order.

Whatever reads or writes a run works on `local`. `push` uploads what has changed: files that others
name come first, then what names them, so that a kill in between leaves the state before. A
checkpoint's data precede its index, and both the list of complete checkpoints.
"""

import itertools
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from beam_jobs.contract import places
from beam_jobs.contract.atomic import LOCK
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


def push(run_dir: str | Path) -> None:
    """Puts what has changed in the copy of a remote run directory; only one process may."""
    if copy := _copies.get(str(run_dir)):
        copy.push()


def refresh(run_dir: str | Path) -> None:
    """Makes the copy of a remote run directory again, from what is there now."""
    if copy := _copies.get(str(run_dir)):
        copy.pull()


class _Copy:
    """The local copy of a run directory on a store; it is deleted when the process ends."""

    def __init__(self, url: str):
        self._url = url
        self._folder = tempfile.TemporaryDirectory(prefix="multihot-run-")
        self.path = Path(self._folder.name, "run")
        self._known: dict[str, tuple[int, int]] = {}
        self.pull()

    def pull(self) -> None:
        found = places.list_files(self._url)
        for name in self._files().keys() - found.keys():
            (self.path / name).unlink()
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._download, found))
        self._known = self._files()

    def push(self) -> None:
        files = self._files()
        changed = [name for name, status in files.items() if self._known.get(name) != status]
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
