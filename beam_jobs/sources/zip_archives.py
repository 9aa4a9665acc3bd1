"""The files within a zip archive, each of which is read as a file."""

import contextlib
import fnmatch
import posixpath
import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

MAGIC = b"PK\x03\x04"
_SPREADSHEET = {"[Content_Types].xml", "content.xml"}  # members of those of Excel and LibreOffice
_SHOWN_MEMBERS = 10  # in an error


class NotReadable(OSError):
    """An archive, or a member of one, that cannot be read: how it can be."""


@contextlib.contextmanager
def opened(raw: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """An archive; whatever is wrong with it as a whole is a BadZipFile."""
    try:
        archive = zipfile.ZipFile(raw)
    except (NotImplementedError, ValueError, OverflowError, LookupError, struct.error) as error:
        raise zipfile.BadZipFile(str(error)) from None
    with archive:
        yield archive


def members(archive: zipfile.ZipFile, pattern: str | None = None) -> list[zipfile.ZipInfo]:
    """The files of an archive but hidden ones, sorted by name; those of a name or glob pattern.

    Raises:
      NotReadable: there are none, they are encrypted, or the archive is a spreadsheet.
    """
    files = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if _SPREADSHEET & {info.filename for info in files}:
        raise NotReadable(
            "received a spreadsheet or a document, which is a zip archive of XML files, expected "
            "files of text; save it as CSV"
        )
    visible = [info for info in files if not _is_hidden(info.filename)] or files
    found = [info for info in visible if pattern is None or _matches(info.filename, pattern)]
    if not found:
        names = ", ".join(info.filename for info in visible[:_SHOWN_MEMBERS]) or "none"
        more = f" and {len(visible) - _SHOWN_MEMBERS:,} more" * (len(visible) > _SHOWN_MEMBERS)
        wanted = "files" if pattern is None else f"one that matches {pattern!r}"
        raise NotReadable(
            f"received a zip archive of {len(visible):,} files, expected {wanted}; it holds "
            f"{names}{more}"
        )
    if any(info.flag_bits & 1 for info in found):
        raise NotReadable("received a zip archive with a password, expected one without; unpack it")
    return sorted(found, key=lambda info: info.filename)


@contextlib.contextmanager
def open_member(raw: BinaryIO, name: str | None = None) -> Iterator[BinaryIO]:
    """A member's bytes, decompressed; None: of the only one.

    Raises:
      NotReadable: see `members`; or the archive holds several, or is compressed in an odd way.
    """
    with opened(raw) as archive:
        if name is None:
            found = members(archive)
            if len(found) != 1:
                raise NotReadable(
                    f"received a zip archive of {len(found):,} files, expected one; unpack it"
                )
            name = found[0].filename
        try:
            member = archive.open(name)
        except (RuntimeError, NotImplementedError, KeyError) as error:
            raise NotReadable(f"received a zip archive that cannot be read: {error}") from None
        with member:
            yield member


def open_all(raw: BinaryIO, pattern: str | None = None) -> Iterator[tuple[str, BinaryIO]]:
    """(name, its bytes) of each member, one open at a time."""
    with opened(raw) as archive:
        found: Sequence[zipfile.ZipInfo] = members(archive, pattern)
    for info in found:
        with open_member(raw, info.filename) as stream:
            yield info.filename, stream


def _matches(name: str, pattern: str) -> bool:
    """Whether a member is the pattern or matches it; without a slash, its base name is enough."""
    names = [name] if "/" in pattern else [name, posixpath.basename(name)]
    return any(one == pattern or fnmatch.fnmatchcase(one, pattern) for one in names)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
