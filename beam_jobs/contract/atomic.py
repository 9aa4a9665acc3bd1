"""A dataset appears whole or not at all: it is written beside its place and renamed."""

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from beam_jobs.contract.errors import UserError

OUTPUT_KEY = "output.dataset_dir"


@contextlib.contextmanager
def staging(dataset_dir: Path, *, what: str = OUTPUT_KEY) -> Iterator[Path]:
    """A new directory beside `dataset_dir` to write in; what killed runs left there is removed first.

    The directory is removed at the end unless `publish` has moved it. Its name is new in every run, so that
    a killed run's workers, which may outlive it, write into no other run's files.

    Raises:
      UserError: it cannot be written, or a live run is writing it.
    """
    with _locked(dataset_dir, what):
        try:
            _clean_up(dataset_dir)
            path = _beside(dataset_dir, f"staging-{uuid.uuid4().hex}")
            path.mkdir()
            yield path
        finally:
            _clean_up(dataset_dir)


def publish(staged: Path, dataset_dir: Path) -> None:
    """Moves the staged directory to its place; an older dataset there is replaced."""
    for file in staged.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    place = dataset_dir.resolve()
    if place.exists():
        os.replace(place, _beside(dataset_dir, "old"))
    os.replace(staged, place)


def recover(dataset_dir: Path) -> None:
    """Removes what killed runs left; a dataset that one of them was replacing is put back in its place.

    Raises:
      UserError: a live run is writing `dataset_dir`.
    """
    if _leftovers(dataset_dir):
        with _locked(dataset_dir):
            _clean_up(dataset_dir)


def _clean_up(dataset_dir: Path) -> None:
    place, old = dataset_dir.resolve(), _beside(dataset_dir, "old")
    if old.exists() and not place.exists():
        os.replace(old, place)
    for path in _leftovers(dataset_dir):
        shutil.rmtree(path, ignore_errors=True)


def _leftovers(dataset_dir: Path) -> list[Path]:
    place = dataset_dir.resolve()
    pattern = re.compile(rf"\.{re.escape(place.name)}\.(old|staging-[0-9a-f]{{32}})")
    return (
        [path for path in place.parent.iterdir() if pattern.fullmatch(path.name)]
        if place.parent.is_dir()
        else []
    )


def _beside(dataset_dir: Path, suffix: str) -> Path:
    """A hidden path beside the directory itself, also where `dataset_dir` is a link to it."""
    place = dataset_dir.resolve()
    return place.parent / f".{place.name}.{suffix}"


@contextlib.contextmanager
def _locked(dataset_dir: Path, what: str = OUTPUT_KEY) -> Iterator[None]:
    path = _beside(dataset_dir, "lock")
    lock = _take_lock(path, dataset_dir, what)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()


def _take_lock(path: Path, dataset_dir: Path, what: str) -> TextIO:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = open(path, "w")
        except OSError as error:
            raise UserError(
                f"{what}: cannot write in {path.parent}: {error.strerror}; expected a directory you may write"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UserError(
                f"another run is writing {dataset_dir}; wait for it to end, or set {what} to another directory"
            ) from None
        # The run that held the lock may have removed the file since it was opened here: such a lock keeps nobody out.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()
