"""A file whose size and SHA-256 are known once it is written."""

import hashlib
from typing import BinaryIO


class Described:
    """A file being written, with the size and the SHA-256 of what is in it."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self._stream.write(content)
        self.digest.update(content)
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """GzipFile flushes at its end; the file itself is flushed where it is closed."""
