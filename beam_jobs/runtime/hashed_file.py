"""A file whose size and SHA-256 are known once it is written."""

import hashlib
from typing import BinaryIO


class HashingWriter:
    """Writes to a stream and keeps the size and the SHA-256 of what was written."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self._stream.write(content)
        self.digest.update(content)
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """Does nothing: GzipFile calls it at its end, and closing the file flushes it."""
