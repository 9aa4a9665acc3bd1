"""Opening files of any file system, decompressed by extension, and reading lines up to a length."""

import bz2
import contextlib
import dataclasses
import gzip
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import zstandard
from apache_beam.io.filesystems import FileSystems

from beam_jobs.sources.documents import UNREADABLE, Reject
from beam_jobs.sources.input_files import COMPRESSED, InputFile, extension

# What reading raises where a file has gone, is cut off or is damaged.
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
_BLOCK_BYTES = 1 << 20  # 1 MiB


def ranges_where_plain(files: Iterable[InputFile]) -> list[InputFile]:
    """The files, of which those that are compressed can only be read as a whole."""
    return [
        dataclasses.replace(file, unit=None) if extension(file.path) in COMPRESSED else file
        for file in files
    ]


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[BinaryIO]:
    """A buffered stream of a file's bytes; `.gz`, `.bz2`, `.xz` and `.zst` files are decompressed.

    Raises, here or while the stream is read, one of DAMAGE.
    """
    # Beam's own decompression takes a file that is cut off for a whole one.
    with FileSystems.open(path, compression_type="uncompressed") as raw:
        opener = _OPENERS.get(extension(path))
        if opener is None:
            yield raw
        else:
            with (
                opener(raw) as stream,
                io.BufferedReader(_SingleReads(stream), _BLOCK_BYTES) as buffered,
            ):
                yield buffered


def unreadable(file: InputFile, row: int, error: Exception) -> Reject:
    """The reject for the rest of a file, from `row` on."""
    return Reject(file.name, row, UNREADABLE, f"{type(error).__name__}: {error}", "")


def numbered_lines(
    stream: BinaryIO, file: InputFile, max_bytes: int
) -> Iterator[tuple[int, bytes, bool]]:
    """(row, line, whether it is whole) of the lines that begin in the file's range.

    A line of more than `max_bytes` is cut there; the rest is skipped without being held in memory.
    """
    row, position = 0, file.start
    if file.start:
        # The line of the byte before the range is another range's, unless it ends there.
        stream.seek(file.start - 1)
        skipped = _skip_line(stream)
        row = file.line_ends_before + (skipped > 1)
        position = file.start - 1 + skipped
    while (file.end is None or position < file.end) and (line := stream.readline(max_bytes + 1)):
        row += 1
        position += len(line)
        is_whole = len(line) <= max_bytes or line.endswith(b"\n")
        if not is_whole:
            position += _skip_line(stream)
        yield row, line, is_whole


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while block := stream.readline(_BLOCK_BYTES):
        skipped += len(block)
        if block.endswith(b"\n"):
            break
    return skipped


class _SingleReads(io.RawIOBase):
    """Returns each decompressed piece at once, so that what precedes damage is not lost."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        piece = self._stream.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _ZstdStream:
    """Decompresses Zstandard frames; zstandard's reader takes a truncated file for whole."""

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._frame = None
        self._compressed = self._plain = b""

    def __enter__(self) -> "_ZstdStream":
        return self

    def __exit__(self, *exc_info) -> None:
        pass

    def read1(self, size: int) -> bytes:
        while not self._plain:
            self._compressed = self._compressed or self._raw.read(_BLOCK_BYTES >> 3)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("compressed file ended before the end of a frame was reached")
                return b""
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._plain = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        piece, self._plain = self._plain[:size], self._plain[size:]
        return piece


_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _ZstdStream}
_OPENERS |= {".tgz": gzip.open, ".tbz2": bz2.open, ".txz": lzma.open}
