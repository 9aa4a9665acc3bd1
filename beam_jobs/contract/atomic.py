"""Files and directories that appear whole or not at all: written elsewhere, then renamed."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from beam_jobs.contract.errors import UserError

OUTPUT_KEY = "output.dataset_dir"
# A run that ends in this moment removes its lock file: that is worth a second try.
LOCK_SECONDS, LOCK_POLL_SECONDS = 0.2, 0.05
LOCK = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")


# --- files -----------------------------------------------------------------------------


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a file with text, as UTF-8, or bytes."""
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: str | Path) -> Path:
    """A hidden path beside a file, to write it at before `rename`.

    It is new in every call: where Beam repeats a piece of work, an attempt that was given up may
    still be writing.
    """
    path = Path(path)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def file_of_temporary(name: str) -> str | None:
    """The name of the file that one of `temporary_path` was to become; None: it is no such file."""
    match = _TEMPORARY.fullmatch(name)
    return match and match[1]


def rename(temporary: str | Path, path: str | Path) -> None:
    """Gives a written file or directory its name; a file of that name is replaced."""
    os.replace(temporary, path)


# --- directories -----------------------------------------------------------------------


@contextlib.contextmanager
def staging(directory: Path, *, what: str = OUTPUT_KEY) -> Iterator[Path]:
    """A new directory beside `directory` to write in; what killed runs left there is removed first.

    It is removed at the end unless `publish` has moved it. Its name is new in every run, so that a
    killed run's workers, which may outlive it, write into no other run's files.

    Args:
      directory: where the files will be.
      what: the config key or flag that names it, for errors.

    Raises:
      UserError: it cannot be written, or a live run is writing it.
    """
    with exclusive(directory, what):
        try:
            _clean_up(directory)
            path = _beside(directory, f"staging-{uuid.uuid4().hex}")
            path.mkdir()
            yield path
        finally:
            _clean_up(directory)


@contextlib.contextmanager
def staging_within(parent: Path) -> Iterator[Path]:
    """A path within `parent` for a new directory, which `publish` then renames there.

    For numbered versions in one directory, whose next number is known only under the lock: runs
    take turns, each waits for the one before. What killed runs left is removed.

    Args:
      parent: the directory of the versions; made if it is missing.
    """
    parent.mkdir(parents=True, exist_ok=True)
    path, lock_file = parent / ".staging", parent / LOCK
    with FileLock(lock_file):
        try:
            shutil.rmtree(path, ignore_errors=True)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            lock_file.unlink(missing_ok=True)


def publish(staged: Path, directory: Path) -> None:
    """Moves the staged directory to its place; an older one there is replaced."""
    for file in staged.rglob("*"):
        if file.is_file():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
    target = directory.resolve()
    if target.exists():
        rename(target, _beside(directory, "old"))
    rename(staged, target)


def recover(directory: Path, *, what: str = OUTPUT_KEY) -> None:
    """Removes what killed runs left; a directory that one of them was replacing is put back.

    Raises:
      UserError: a live run is writing `directory`.
    """
    if _leftovers(directory):
        with exclusive(directory, what):
            _clean_up(directory)


def _clean_up(directory: Path) -> None:
    target, old = directory.resolve(), _beside(directory, "old")
    if old.exists() and not target.exists():
        rename(old, target)
    for path in _leftovers(directory):
        shutil.rmtree(path, ignore_errors=True)


def _leftovers(directory: Path) -> list[Path]:
    target = directory.resolve()
    if not target.parent.is_dir():
        return []
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(old|staging-[0-9a-f]{{32}})")
    return [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]


def _beside(directory: Path, suffix: str) -> Path:
    """A hidden path beside the directory itself, also where `directory` is a link to it."""
    target = directory.resolve()
    return target.parent / f".{target.name}.{suffix}"


@contextlib.contextmanager
def exclusive(directory: str | Path, what: str) -> Iterator[None]:
    """Keeps other runs from writing a directory during the block.

    Raises:
      UserError: another run does, or the folder around it cannot be written.
    """
    directory = Path(directory)
    with _locked(_beside(directory, "lock"), directory, what):
        yield


def remove_free_lock(directory: str | Path) -> None:
    """Removes the lock file of `exclusive` that a killed run has left, if nobody holds it."""
    if _beside(Path(directory), "lock").exists():
        with contextlib.suppress(UserError), exclusive(directory, OUTPUT_KEY):
            pass


@contextlib.contextmanager
def exclusive_within(directory: Path, what: str) -> Iterator[None]:
    """As `exclusive`, by a file in the directory, which is made if it is missing: the folder around
    it need not be one that may be written. Where the file system knows no locks there is none.
    """
    with _locked(directory / LOCK, directory, what, is_needed=False):
        yield


@contextlib.contextmanager
def in_turn(directory: Path, name: str, *, owns: Callable[[str], bool]) -> Iterator[None]:
    """Has those who write the same files in a directory wait for each other during the block.

    What killed ones had begun to write is removed. Where the file system knows no locks, nobody
    waits and nothing is removed.

    Args:
      directory: the directory.
      name: of the lock file in it, which is there during the block.
      owns: whether the file of a name is one of theirs.
    """
    path = directory / name
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield
        return
    try:
        for each in list(directory.iterdir()):
            begun = file_of_temporary(each.name)
            if begun is not None and owns(begun):
                each.unlink(missing_ok=True)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, see `_locked`
        lock.release()


@contextlib.contextmanager
def _locked(path: Path, directory: Path, what: str, *, is_needed: bool = True) -> Iterator[None]:
    lock = FileLock(path, timeout=LOCK_SECONDS, poll_interval=LOCK_POLL_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another run is writing {directory}; wait for it to end, or set {what} to another "
            "directory"
        ) from None
    except OSError as error:
        if is_needed or error.errno not in _NO_LOCKS:
            raise UserError(
                f"{what}: cannot write in {path.parent}: {error.strerror}; expected a directory "
                "you may write"
            ) from None
    try:
        yield
    finally:
        # While it is held: FileLock takes no lock on a file that is gone, but opens a new one.
        path.unlink(missing_ok=True)
        lock.release()
