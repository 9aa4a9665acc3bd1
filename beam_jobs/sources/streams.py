"""Opening files of any file system, decompressed, and reading lines up to a length.

How a file is compressed and encoded is recognised by its first bytes, whatever its name.
"""

import bz2
import codecs
import contextlib
import dataclasses
import gzip
import io
import itertools
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import zstandard
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.errors import UserError
from beam_jobs.sources import zip_archives
from beam_jobs.sources.documents import UNREADABLE, Reject
from beam_jobs.sources.input_files import InputFile, extension, partition_of

# What reading raises where a file has gone, is cut off or is damaged.
DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    zipfile.BadZipFile,
)
_BLOCK_BYTES = 1 << 20  # 1 MiB
_FIRST_BYTES = 16  # by which a file's compression and encoding are recognised
_EXPANSION = 3.0  # text is about so many times as large as it is compressed
_THREADS = 8  # remote files answer slowly, so several are asked at once


def ranges_where_plain(files: Iterable[InputFile]) -> list[InputFile]:
    """The files, of which those that are compressed, or not UTF-8, can only be read as a whole; for
    a zip archive, its members.

    Raises:
      UserError: an archive holds nothing that can be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(itertools.chain.from_iterable(pool.map(_files_in, files)))


def _files_in(file: InputFile) -> list[InputFile]:
    first = b""
    try:
        with FileSystems.open(file.path, compression_type="uncompressed") as raw:
            first = _first_bytes(raw)
            if first.startswith(zip_archives.MAGIC):
                return _members(file, raw)
        if file.member is not None:
            raise zip_archives.NotReadable(
                f"received a file that is no zip archive, expected one that holds {file.member!r}"
            )
    except zip_archives.NotReadable as error:
        raise UserError(f"data.inputs: {file.name}: {error}") from None
    except DAMAGE:
        pass  # reported with its row when the file is read
    if _opener(file.path, first) is not None:
        expansion = max(file.expansion, _EXPANSION)
        return [dataclasses.replace(file, unit=None, expansion=expansion)]
    return [dataclasses.replace(file, unit=None) if _encoding(first) else file]


def _members(file: InputFile, raw: BinaryIO) -> list[InputFile]:
    """The members of an archive, named `archive.zip/member` where it is not the only one."""
    with zip_archives.opened(raw) as archive:
        found = zip_archives.members(archive, file.member)
        if len(found) == 1 and file.member is None:
            expansion = max(file.expansion, _EXPANSION)
            return [dataclasses.replace(file, unit=None, expansion=expansion)]
        return [
            dataclasses.replace(
                file,
                name=f"{file.name}/{info.filename}",
                bytes=info.compress_size,
                expansion=max(1.0, info.file_size / max(1, info.compress_size)),
                unit=None,
                partition=file.partition + partition_of(info.filename),
                member=info.filename,
            )
            for info in found
        ]


@contextlib.contextmanager
def open_stream(path: str, member: str | None = None) -> Iterator[BinaryIO]:
    """A buffered stream of a file's bytes, decompressed: gzip, bzip2, xz, Zstandard and zip, of
    which it is a member, or the only one.

    Raises, here or while the stream is read, one of DAMAGE.
    """
    # Beam's own decompression takes a file that is cut off for a whole one.
    with FileSystems.open(path, compression_type="uncompressed") as raw:
        opener = _opener(path, _first_bytes(raw))
        if opener is None:
            yield raw
        elif opener is zip_archives.open_member:
            with zip_archives.open_member(raw, member) as stream, _buffered(stream) as packed:
                opener = _opener(member or "", _first_bytes(packed))
                if opener is zip_archives.open_member:
                    raise zip_archives.NotReadable(
                        "received a zip archive within a zip archive, expected files; unpack it"
                    )
                if opener is None:
                    yield packed
                else:
                    with opener(packed) as plain, _buffered(plain) as buffered:
                        yield buffered
        else:
            with opener(raw) as stream, _buffered(stream) as buffered:
                yield buffered


def _buffered(stream: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_SingleReads(stream), _BLOCK_BYTES)


@contextlib.contextmanager
def open_utf8(path: str, member: str | None = None) -> Iterator[BinaryIO]:
    """As `open_stream`, of text: UTF-16 and UTF-32 with a byte order mark become UTF-8."""
    with open_stream(path, member) as stream:
        encoding = _encoding(_first_bytes(stream))
        if encoding is None:
            yield stream
        else:
            with _buffered(_Transcoded(stream, encoding)) as text:
                yield text


def is_zip(path: str) -> bool:
    """Whether a file is a zip archive, whatever its name."""
    with FileSystems.open(path, compression_type="uncompressed") as raw:
        return _first_bytes(raw).startswith(zip_archives.MAGIC)


def _first_bytes(stream: BinaryIO) -> bytes:
    """Those of a stream at its start, which stays there."""
    if isinstance(stream, io.BufferedReader):
        return stream.peek(_FIRST_BYTES)[:_FIRST_BYTES]
    first = stream.read(_FIRST_BYTES)
    stream.seek(0)
    return first


def _encoding(first: bytes) -> str | None:
    """The encoding that a file's byte order mark names, other than UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if first.startswith(mark):
            return encoding
    return None


def packing(path: str) -> str:
    """What to say of a file that should not be compressed, if its first bytes say that it is."""
    with (
        contextlib.suppress(*DAMAGE),
        FileSystems.open(path, compression_type="uncompressed") as raw,
    ):
        first = _first_bytes(raw)
        for magic, opener in _MAGIC.items():
            if first.startswith(magic):
                return f"; its first bytes are those of a {_PACKED[opener]} file, so unpack it"
    return ""


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


class _Transcoded:
    """Text in another encoding, as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str):
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._plain = memoryview(b"")

    def read1(self, size: int) -> bytes:
        while not self._plain:
            block = self._stream.read(_BLOCK_BYTES >> 3)
            try:
                text = self._decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise EOFError(f"damaged or cut text: {error}") from None
            self._plain = memoryview(text.encode("utf-8", "surrogatepass"))
            if not block:
                break
        piece, self._plain = self._plain[:size], self._plain[size:]
        return piece


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


def _opener(path: str, first: bytes) -> Callable | None:
    """What decompresses a file of this name that begins so; None: nothing need to."""
    for magic, opener in _MAGIC.items():
        if first.startswith(magic):
            return opener
    return _OPENERS.get(extension(path))


_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _ZstdStream}
COMPRESSIONS = (*_OPENERS, ".zip")  # endings of the names of compressed files
_OPENERS |= {".tgz": gzip.open, ".tbz2": bz2.open, ".txz": lzma.open}
_MAGIC = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh91AY&SY": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _ZstdStream,
    zip_archives.MAGIC: zip_archives.open_member,
}
_PACKED = {
    gzip.open: "gzip",
    bz2.open: "bzip2",
    lzma.open: "xz",
    _ZstdStream: "Zstandard",
    zip_archives.open_member: "zip",
}
# The longer marks come first, as one of UTF-32 begins as one of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
