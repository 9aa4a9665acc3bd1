"""The files that a reader reads, and how they are divided among workers."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal
from urllib.parse import unquote

from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.errors import UserError

PART_BYTES = 4 << 20  # 4 MiB: small files are read together in parts of about this size
RANGE_BYTES = (
    16 << 20
)  # 16 MiB: larger files are read in ranges of about this size, if their format allows it
_BLOCK_BYTES = 1 << 20  # 1 MiB is searched for line ends, or hashed, at a time
_THREADS = 8  # remote files answer slowly, so several are asked at once
_ZIP_MEMBER = re.compile(r"(?i)^(.*?\.zip)/(.+)$", re.DOTALL)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
# By the extension of compressed files: text is about so many times as large.
COMPRESSED = {
    ".gz": 3.0,
    ".tgz": 3.0,
    ".zst": 3.0,
    ".bz2": 4.0,
    ".tbz2": 4.0,
    ".xz": 4.0,
    ".txz": 4.0,
}


@dataclasses.dataclass(frozen=True)
class InputFile:
    """An input file, or a range of one.

    Attributes:
      name: its name in rejects and in the input's hash; unchanged if the whole input is moved.
      path: where Beam's file systems find it.
      bytes: its size; of a range, the size of the range.
      expansion: about how many bytes each of its own becomes when read; above 1 if compressed.
      unit: a range holds those of its lines or row groups that begin in the range; None: it is read
        as a whole.
      start: the range's first byte.
      end: the byte after the range; None: the range ends with the file.
      line_ends_before: line ends before `start`, where the unit is a line.
      partition: (column, value) of the directories in its path, as `year=2020/` says; null is None.
      member: of a zip archive, its file to read; None: it is no archive, or holds one file. Before
        archives are looked into, a glob pattern.
    """

    name: str
    path: str
    bytes: int
    expansion: float = 1.0
    unit: Literal["line", "row group"] | None = None
    start: int = 0
    end: int | None = None
    line_ends_before: int = 0
    partition: tuple[tuple[str, str | None], ...] = ()
    member: str | None = None

    @property
    def plain_bytes(self) -> int:
        """About how much is read from it: what the job's work and memory depend on."""
        return int(self.bytes * self.expansion)


def extension(path: str) -> str:
    """The extension of a path in lower case, such as `.gz`."""
    return os.path.splitext(path)[1].lower()


def partition_of(path: str) -> tuple[tuple[str, str | None], ...]:
    """(column, value) of each directory in a path that is named so, as Hive and Spark write them:
    `year=2020/lang=en%2FUS/part.parquet` has the year `2020` and the lang `en/US`.
    """
    found: dict[str, str | None] = {}
    for name in path.replace(os.sep, "/").split("/")[:-1]:
        column, is_partition, value = name.partition("=")
        if column and is_partition:
            found[unquote(column)] = None if value == _NULL_PARTITION else unquote(value)
    return tuple(found.items())


def match_files(
    patterns: Sequence[str], *, unit: Literal["line", "row group"] | None = None
) -> list[InputFile]:
    """The files that match any of the patterns, sorted by path and each once.

    Raises:
      UserError: a pattern matches nothing or a directory, or its file system is not installed.
    """
    here = os.path.join(os.getcwd(), "")
    found: dict[tuple[str, str], InputFile] = {}
    for pattern in patterns:
        is_remote = FileSystems.get_scheme(pattern) is not None
        # Beam finds nothing for a bare `*.jsonl`, and a worker's working directory may differ.
        absolute = pattern if is_remote else os.path.abspath(pattern)
        try:
            # A file's own name may hold the characters of a pattern: train[1].jsonl.
            if not is_remote and os.path.isfile(absolute):
                matches = [FileMetadata(absolute, os.path.getsize(absolute))]
            else:
                matches = FileSystems.match([absolute])[0].metadata_list
            member = None
            if not matches and _ZIP_MEMBER.search(absolute):
                archive, member = _ZIP_MEMBER.search(absolute).groups()
                matches = FileSystems.match([archive])[0].metadata_list
        except (ValueError, BeamIOError) as error:
            raise UserError(f"data.inputs: cannot look for {pattern!r}: {error}") from None
        if not matches:
            raise UserError(
                f"data.inputs: no file matches {pattern!r}; expected a file or a glob pattern, "
                "seen from the working directory"
            )
        for match in matches:
            if os.path.isdir(match.path):
                raise UserError(
                    f"data.inputs: {pattern!r} is a directory; expected files, such as "
                    f"{os.path.join(pattern, '*.jsonl')!r}"
                )
            is_relative = not is_remote and (
                match.path.startswith(here) or not os.path.isabs(pattern)
            )
            name = os.path.relpath(match.path) if is_relative else match.path
            expansion = COMPRESSED.get(extension(match.path), 1.0)
            found.setdefault(
                (match.path, member or ""),
                InputFile(
                    name=name,
                    path=match.path,
                    bytes=match.size_in_bytes,
                    expansion=expansion,
                    unit=unit,
                    partition=partition_of(match.path),
                    member=member,
                ),
            )
    return [found[path] for path in sorted(found)]


def input_hash(files: Sequence[InputFile]) -> str:
    """SHA-256, in hex, of the files' names, sizes and contents, by which an input is recognised.

    Names and sizes miss a change that keeps the size; times differ between copies of an input. So
    local files are read once more, at the speed of the disk, which takes some hundredths of the
    job's time for them; other file systems keep checksums. A file without a path is one of the
    user's own source: only its name and size count.
    """
    digest = hashlib.sha256()
    paths = {file.path: file for file in files}  # several files may be of one archive
    with ThreadPoolExecutor(_THREADS) as pool:
        contents = dict(zip(paths, pool.map(_checksum, paths.values()), strict=True))
    for file in files:
        digest.update(
            f"{file.name}\0{file.bytes}\0{contents[file.path]}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _checksum(file: InputFile) -> str:
    if not file.path:
        return ""
    if FileSystems.get_scheme(file.path):
        return FileSystems.checksum(file.path)
    digest = hashlib.blake2b()
    try:
        with open(file.path, "rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise UserError(f"data.inputs: cannot read {file.name}: {error.strerror}") from None
    return digest.hexdigest()


def parts(
    files: Sequence[InputFile], *, part_bytes: int = PART_BYTES, range_bytes: int = RANGE_BYTES
) -> list[list[InputFile]]:
    """Groups files, in order, into units of parallel work; large ones are cut into ranges.

    A range of lines must know how many lines precede it, so files that are cut are read once here,
    which takes a small part of the job's time for them.
    """
    groups: list[list[InputFile]] = []
    group: list[InputFile] = []
    group_bytes = 0
    for piece in _with_line_ends_before(
        [piece for file in files for piece in _ranges(file, range_bytes)]
    ):
        group.append(piece)
        group_bytes += piece.plain_bytes
        if group_bytes >= part_bytes:
            groups.append(group)
            group, group_bytes = [], 0
    return [*groups, group] if group else groups


def _ranges(file: InputFile, range_bytes: int) -> Iterator[InputFile]:
    count = max(1, round(file.plain_bytes / range_bytes)) if file.unit else 1
    bounds = [file.bytes * i // count for i in range(count + 1)]
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        is_last = end == file.bytes
        yield (
            dataclasses.replace(file, bytes=end - start, start=start, end=None if is_last else end)
            if count > 1
            else file
        )


def _with_line_ends_before(pieces: Sequence[InputFile]) -> Iterator[InputFile]:
    with ThreadPoolExecutor(_THREADS) as pool:
        counts = pool.map(_line_ends, [piece for piece in pieces if _is_followed_by_lines(piece)])
        before = 0
        for piece in pieces:
            before = before if piece.start else 0
            yield dataclasses.replace(piece, line_ends_before=before)
            if _is_followed_by_lines(piece):
                before += next(counts)


def _is_followed_by_lines(piece: InputFile) -> bool:
    return piece.unit == "line" and piece.end is not None


def _line_ends(piece: InputFile) -> int:
    count, left = 0, piece.bytes
    with FileSystems.open(piece.path, compression_type="uncompressed") as stream:
        stream.seek(piece.start)
        while left and (block := stream.read(min(left, _BLOCK_BYTES))):
            count += block.count(b"\n")
            left -= len(block)
    return count
