"""Files wherever they are: on a local disk, or by the URL of an object store or of HDFS.

Every file that is written here appears whole or not at all, and several may write the same one at
once: on a disk it is written beside its place under a name of its own, then renamed; on an object
store it is put there by one call.
"""

import contextlib
import fnmatch
import functools
import glob
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from beam_jobs.contract.atomic import rename, temporary_path
from beam_jobs.contract.errors import UserError, first_line
from beam_jobs.contract.object_stores import EXTRAS, STORES, Store, StoredFile

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_URL = re.compile(rf"({'|'.join(STORES)})://[^/]+(/|$)")
_BLOCK_BYTES = 1 << 20  # 1 MiB is copied at a time
_SPOOL_BYTES = 32 << 20  # 32 MiB are collected in memory before a temporary file takes them

_options: Mapping[str, Any] = {}


# --- paths -----------------------------------------------------------------------------


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is the URL of a store."""
    return _SCHEME.match(str(path)) is not None


def check(path: str) -> str:
    """The path; raises ValueError if it names a storage that is not known.

    The system would take such a path for one of a local folder named `gs:`.
    """
    if is_remote(path) and not _URL.match(path):
        raise ValueError("expected a local path, gs://BUCKET/..., s3://BUCKET/... or hdfs://...")
    return path


def join(place: str | os.PathLike, *names: str) -> str:
    """The path of a file at a place."""
    return "/".join([str(place).rstrip("/"), *names]) if names else str(place)


def configure(options: Mapping[str, Any]) -> None:
    """Sets how stores are reached in this process: Beam's options `s3_*`, `hdfs_*`, `project`."""
    global _options
    if dict(options) != _options:
        _options = dict(options)
        _store.cache_clear()


@functools.lru_cache(maxsize=len(STORES))
def _store(scheme: str) -> Store:
    try:
        return STORES[scheme](_options)
    except ImportError as error:
        raise UserError(
            f"{scheme}:// needs what `pip install 'multihot[{EXTRAS[scheme]}]'` installs: {error}"
        ) from None


def _store_of(path: str) -> Store:
    try:
        check(path)
    except ValueError as error:
        raise UserError(f"received {path!r}; {error}") from None
    return _store(path.partition(":")[0])


@contextlib.contextmanager
def _told(path: str, what: str) -> Iterator[None]:
    """Turns what a store's client raises into a UserError that names the path."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except Exception as error:
        raise UserError(
            f"{path} cannot be {what}: {type(error).__name__}: {first_line(error)}; expected a "
            "store that answers, credentials that it takes, and a bucket that is there"
        ) from error


# --- reading ---------------------------------------------------------------------------


def read_bytes(path: str | os.PathLike, offset: int = 0, length: int | None = None) -> bytes:
    """The content of a file, or `length` bytes of it from `offset` on.

    Raises:
      FileNotFoundError: it is not there.
      UserError: the store does not answer.
    """
    if is_remote(path):
        with _told(str(path), "read"):
            return _store_of(str(path)).read(str(path), offset, length)
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(-1 if length is None else length)


def read_text(path: str | os.PathLike, *, encoding: str = "utf-8") -> str:
    """A text, its line ends as `\\n`; raises what `read_bytes` does, or UnicodeDecodeError."""
    return io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding=encoding).read()


@contextlib.contextmanager
def open_local(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file as a local one that is open for reading; a remote one is downloaded first."""
    if not is_remote(path):
        with open(path, "rb") as stream:
            yield stream
        return
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as stream:
        with _told(str(path), "read"):
            _store_of(str(path)).download(str(path), stream)
        stream.seek(0)
        yield stream


def list_files(directory: str | os.PathLike) -> dict[str, StoredFile]:
    """By its path within a directory, each file below it; empty if the directory is not there."""
    directory = str(directory)
    if is_remote(directory):
        start = len(directory.rstrip("/")) + 1
        with _told(directory, "listed"):
            return {file.path[start:]: file for file in _store_of(directory).list(directory)}
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):  # it may be a file that others write
                status = os.stat(path)
                found[os.path.relpath(path, directory)] = StoredFile(
                    path, status.st_size, status.st_mtime
                )
    return found


def cache_directory() -> Path:
    """Where copies of remote files are kept: MULTIHOT_CACHE_DIR, or the user's cache."""
    given = os.environ.get("MULTIHOT_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(given) if given else Path(user, "multihot")


def download(path: str, target: Path) -> str:
    """Copies a remote file to a local one, which appears whole; returns its SHA-256, in hex."""
    digest = hashlib.sha256()
    with open_local(path) as source, create(target) as stream:
        while block := source.read(_BLOCK_BYTES):
            stream.write(block)
            digest.update(block)
    return digest.hexdigest()


def local_directory(directory: str, *, patterns: Sequence[str] = ("*",)) -> str:
    """A directory itself, or a copy of a remote one in the cache, of its files as they are now.

    Args:
      directory: its path; a remote one without files is answered as it is.
      patterns: of the paths in it of the files that are needed, as of `fnmatch`.

    Raises:
      UserError: the store does not answer.
    """
    if not is_remote(directory):
        return directory
    files = {
        name: file
        for name, file in sorted(list_files(directory).items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not files:
        return directory
    content = json.dumps(
        [directory, *((n, f.size, f.updated, f.version) for n, f in files.items())]
    )
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    folder = cache_directory() / "copies" / key
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            for name, file in files.items():
                download(file.path, Path(temporary, "copy", name))
            with contextlib.suppress(OSError):  # another process was faster
                os.replace(Path(temporary, "copy"), folder)
    return str(folder)


def local_file(path: str) -> str:
    """A file itself, or a copy of a remote one in the cache; see `local_directory`."""
    if not is_remote(path):
        return path
    directory, _, name = path.rpartition("/")
    copy = local_directory(directory, patterns=[glob.escape(name)])
    if copy == directory:
        raise FileNotFoundError(path)
    return os.path.join(copy, name)


def upload(path: Path, target: str) -> None:
    """Copies a local file to a remote one, which appears whole."""
    with open(path, "rb") as source, _told(target, "written"):
        _store_of(target).put(target, source)


# --- writing ---------------------------------------------------------------------------


@contextlib.contextmanager
def create(path: str | os.PathLike, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A stream whose content is the file's at the end of the block, unless the block raises.

    Args:
      path: the file.
      durable: wait until it is on the disk.
    """
    if is_remote(path):
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as stream:
            yield stream
            stream.seek(0)
            with _told(str(path), "written"):
                _store_of(str(path)).put(str(path), stream)
        return
    temporary = temporary_path(path)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        rename(temporary, path)
        if durable:
            _sync(temporary.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_new(path: str, content: str) -> bool:
    """Writes a remote file, as UTF-8, unless it is there; whether it has written it.

    A store that cannot put a file only where there is none writes it in any case.
    """
    with _told(path, "written"):
        return _store_of(path).put_new(path, content.encode())


def write(path: str | os.PathLike, content: str | bytes, *, durable: bool = False) -> None:
    """Writes a file with text, as UTF-8, or bytes; see `create`."""
    with create(path, durable=durable) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def delete(paths: Iterable[str]) -> None:
    """Deletes files; those that are not there are no error."""
    remote: dict[str, list[str]] = {}
    for path in paths:
        if is_remote(path):
            remote.setdefault(path.partition(":")[0], []).append(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    for some in remote.values():
        with _told(some[0], "deleted"):
            _store_of(some[0]).delete(some)


def delete_directory(directory: str | os.PathLike) -> None:
    """Deletes all files below a directory, which may not be there."""
    if is_remote(directory):
        delete(file.path for file in list_files(directory).values())
    else:
        shutil.rmtree(directory, ignore_errors=True)


def sync(directory: str | os.PathLike) -> None:
    """Waits until what is below a local directory is on the disk; stores answer when it is."""
    if is_remote(directory):
        return
    for folder, _, names in os.walk(directory):
        for path in [folder, *(os.path.join(folder, name) for name in names)]:
            _sync(path)


def _sync(path: str | os.PathLike) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
