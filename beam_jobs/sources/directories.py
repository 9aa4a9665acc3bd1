"""Directories of text files, one directory per label, also within tar and zip archives."""

import dataclasses
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

import charset_normalizer
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.sections.data import DirectoriesData
from beam_jobs.sources import posts, streams, zip_archives
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.fields import too_long
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow, checked_labels

_USUAL_ENCODING = "cp1252"  # what browsers take for the encoding of old pages that declare none
_TAR_END_BYTES = 1024  # two blocks of zeros end an archive
_DAMAGE = (*streams.DAMAGE, tarfile.TarError)


@dataclasses.dataclass(frozen=True)
class DirectoriesReader:
    """One document per file.

    Inputs are files, directories with all below them, and archives; hidden files are skipped.

    The source of a document in an archive is the archive's name, a slash and its own name there.
    """

    data: DirectoriesData

    def files(self) -> list[InputFile]:
        patterns = [
            _all_below(pattern) if _is_directory(pattern) else pattern
            for pattern in self.data.inputs
        ]
        tops = [_fixed_part(pattern) for pattern in patterns]
        files = match_files(patterns)
        # A directory above an input may be hidden: the user has named it.
        return [
            file
            for file in files
            if any(
                file.path.startswith(top) and not _is_hidden(file.path[len(top) :]) for top in tops
            )
        ]

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        members = 0
        try:
            if streams.is_zip(file.path):
                with FileSystems.open(file.path, compression_type="uncompressed") as raw:
                    for name, stream in zip_archives.open_all(raw, file.member):
                        content = stream.read(self.data.max_row_bytes + 1)
                        yield self._document(name, content, f"{file.name}/{name}")
                        members += 1
                return
            with streams.open_stream(file.path) as stream:
                if not is_archive(file.path):
                    yield self._document(
                        file.name, stream.read(self.data.max_row_bytes + 1), file.name
                    )
                    return
                watched = _WatchedStream(stream)
                with tarfile.open(fileobj=watched, mode="r|") as archive:
                    for number, info in enumerate(archive, start=1):
                        if info.isreg() and not _is_hidden(info.name):
                            content = _member(archive, info).read(self.data.max_row_bytes + 1)
                            name = posixpath.normpath(info.name)
                            yield self._document(name, content, f"{file.name}/{name}")
                        members = number
                watched.check_end()
        except _DAMAGE as error:
            yield streams.unreadable(file, members + 1, error)

    def _document(self, name: str, content: bytes, source: str) -> Document | Reject:
        try:
            if len(content) > self.data.max_row_bytes:
                raise too_long(self.data.max_row_bytes)
            label = posixpath.basename(posixpath.dirname(name.replace(os.sep, "/")))
            if label in ("", ".."):
                raise InvalidRow(
                    "no labels",
                    f"{name} is not in a directory of its own; expected a directory per label",
                )
            labels = checked_labels([label], "directory", name)
            text = posts.without(self._decoded(content), self.data.remove)
        except InvalidRow as error:
            return error.reject(source, 1, content.decode("utf-8", "replace"))
        return Document(id=name, texts=(text,), labels=labels, weight=1.0, source=source, row=1)

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode(self.data.encoding or "utf-8-sig")
        except UnicodeError as error:
            if self.data.encoding is not None:
                raise InvalidRow(
                    "wrong encoding", f"{error}; data.encoding may be left out"
                ) from None
        encoding = likely_encoding(content)
        if encoding is None:
            raise InvalidRow(
                "wrong encoding",
                "received bytes of no known encoding; expected text, or data.encoding",
            )
        return content.decode(encoding)


def likely_encoding(content: bytes) -> str | None:
    """How text that is not UTF-8 may be encoded, by Python's name; None: it looks like no text."""
    guesses = charset_normalizer.from_bytes(content)
    best = guesses.best()
    if best is None:
        return None
    # Where several fit equally well, the order of their names would decide: cp1250 for French.
    usual = (
        guess
        for guess in guesses
        if guess.encoding == _USUAL_ENCODING
        and (guess.chaos, -guess.coherence) <= (best.chaos, -best.coherence)
    )
    return next(usual, best).encoding


class _WatchedStream:
    """A tar archive that knows how it ends: tarfile takes one that is cut off for a whole one."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._last = b""

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._last = (self._last + content)[-_TAR_END_BYTES:]
        return content

    def check_end(self) -> None:
        """Raises EOFError unless the stream ends as an archive must."""
        while self.read(1 << 20):
            pass
        if self._last.strip(b"\0") or len(self._last) < _TAR_END_BYTES:
            raise EOFError("the archive ends before its end mark")


def _is_directory(pattern: str) -> bool:
    # Object stores have no directories, only names with slashes.
    return pattern.endswith("/") if FileSystems.get_scheme(pattern) else os.path.isdir(pattern)


def _all_below(directory: str) -> str:
    return FileSystems.join(directory, "**")


def _fixed_part(pattern: str) -> str:
    """The leading directories of a pattern that have no wildcard; all of it if it has none."""
    absolute = pattern if FileSystems.get_scheme(pattern) else os.path.abspath(pattern)
    fixed = re.split(r"[*?\[]", absolute, maxsplit=1)[0]
    return absolute if fixed == absolute else fixed[: fixed.rfind("/") + 1]


def is_archive(path: str) -> bool:
    return path.lower().endswith((".tar", ".tgz", ".tbz2", ".txz")) or os.path.splitext(path)[
        0
    ].lower().endswith(".tar")


def _is_hidden(name: str) -> bool:
    return any(
        part.startswith(".") and part not in (".", "..")
        for part in name.replace(os.sep, "/").split("/")
    )


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    stream = archive.extractfile(info)
    if stream is None:
        raise tarfile.ReadError(f"{info.name} is not a file")
    return stream
