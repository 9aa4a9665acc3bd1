"""TFRecord files: one writer, one reader and one checksum, without TensorFlow.

A record is its length (uint64), the masked CRC-32C of the length, its bytes, and their masked
CRC-32C (uint32); all little-endian
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
"""

import gzip
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size


class CorruptRecord(UserError):
    """A record that is not as it was written.

    Attributes:
      offset: where it begins in the file, in bytes; where the file is gzipped, in what it holds.
      fault: what is wrong with it.
    """

    def __init__(self, path: str | Path, number: int, offset: int, fault: str):
        super().__init__(
            f"{path}: record {number:,}, at byte {offset:,}, {fault}: the dataset is damaged; run "
            "the preprocessing again with --force"
        )
        self.offset, self.fault = offset, fault


def frame(record: bytes) -> bytes:
    """A record in the framing of a TFRecord file."""
    length = _LENGTH.pack(len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def read_records(path: str | Path) -> Iterator[bytes]:
    """The records of a TFRecord file, gzipped if its name ends in .gz; checks every checksum.

    Raises:
      CorruptRecord: a checksum is wrong or the file ends within a record.
    """
    offset = 0
    with places.open_local(path) as raw:
        stream = gzip.open(raw) if str(path).endswith(".gz") else raw
        for number in itertools.count(1):
            try:
                header = stream.read(_HEADER_BYTES)
                if not header:
                    return
                length_bytes, crc = header[: _LENGTH.size], header[_LENGTH.size :]
                if _masked_crc(length_bytes) != crc:
                    raise CorruptRecord(path, number, offset, "has a length of a wrong checksum")
                (length,) = _LENGTH.unpack(length_bytes)
                record, crc = stream.read(length), stream.read(_CRC.size)
            except (EOFError, OSError, zlib.error) as error:
                raise CorruptRecord(path, number, offset, f"cannot be read: {error}") from None
            if len(record) < length or len(crc) < _CRC.size:
                raise CorruptRecord(path, number, offset, f"ends before its {length:,} bytes do")
            if _masked_crc(record) != crc:
                raise CorruptRecord(path, number, offset, "has bytes of a wrong checksum")
            yield record
            offset += _HEADER_BYTES + length + _CRC.size


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
