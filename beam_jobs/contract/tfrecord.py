"""TFRecord framing: one writer, one reader, and the checksums of both."""

import gzip
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from beam_jobs.contract.errors import UserError


def frame(record: bytes) -> bytes:
    """A record in TFRecord framing: length, masked CRC-32C of the length, record, masked CRC-32C of the record."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file, gzipped where its name ends in .gz.

    Raises:
      UserError: a checksum is wrong or the file ends within a record.
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        for number in itertools.count(1):
            try:
                header = stream.read(12)
                if not header:
                    return
                if len(header) < 12 or not _is_checked(header[:8], header[8:]):
                    raise _damaged(path, f"record {number:,} has a wrong length")
                (length,) = struct.unpack("<Q", header[:8])
                record, crc = stream.read(length), stream.read(4)
                if len(record) < length or not _is_checked(record, crc):
                    raise _damaged(path, f"record {number:,} has a wrong checksum")
            except (EOFError, OSError, zlib.error) as error:
                raise _damaged(path, f"cannot be read from record {number:,} on: {error}") from None
            yield record


def _is_checked(data: bytes, crc: bytes) -> bool:
    value = google_crc32c.value(data)
    return crc == struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _damaged(path: Path, how: str) -> UserError:
    return UserError(
        f"{path} {how}: the dataset is damaged; run the preprocessing again with --overwrite"
    )
