"""One JSON array, divided into its elements as it is read: memory stays flat, and a broken element
spoils only itself.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

_BLOCK_BYTES = 1 << 20  # 1 MiB
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_IN_ARRAY = re.compile(_STRING + rb'|["\[\]{},]', re.DOTALL)
_IN_ELEMENT = re.compile(_STRING + rb'|["\[\]{}]', re.DOTALL)  # where commas part no elements
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")


def elements(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """(number from 1, element, whether it is whole) of the array that a stream in UTF-8 holds.

    An element of more than `max_bytes` is cut there; the rest is skipped without being held in
    memory. Strings and brackets alone decide where elements end: whether one is JSON is not known.

    Raises:
      EOFError: the stream ends within the array, or goes on after it.
    """
    scanner = _Scanner(max_bytes)
    while block := stream.read(_BLOCK_BYTES):
        yield from scanner.elements_ended_by(block)
    if scanner.depth or scanner.is_in_string:
        raise EOFError("the file ends within its JSON array")


class _Scanner:
    """Where one is in the array, between two blocks of it."""

    def __init__(self, max_bytes: int):
        self.depth = 0  # of brackets: 1 between elements
        self.is_in_string = False
        self._has_begun = False
        self._max_bytes = max_bytes
        self._number = 0
        self._element = bytearray()  # what is known of it, up to the block
        self._before = b""  # a backslash that ended the block before

    def elements_ended_by(self, block: bytes) -> Iterator[tuple[int, bytes, bool]]:
        block, self._before = self._before + block, b""
        start = position = 0
        if not self._has_begun:
            position = block.find(b"[") + 1
            if not position:
                return
            start, self.depth, self._has_begun = position, 1, True
        while True:
            if self.is_in_string:
                position = self._end_of_string(block, position)
                if position < 0:
                    break
            if not self.depth:
                break
            found = (_IN_ARRAY if self.depth == 1 else _IN_ELEMENT).search(block, position)
            if found is None:
                break
            mark, position = block[found.start()], found.end()
            if mark == ord('"'):
                self.is_in_string = found.end() == found.start() + 1
            elif mark in _OPENING:
                self.depth += 1
            elif mark in _CLOSING:
                self.depth -= 1
            if not self.depth or (mark == ord(",") and self.depth == 1):
                self._add(block[start : found.start()])
                if self.depth or self._number or self._element.strip():
                    yield self._ended()
                start = position
        if self._has_begun and not self.depth and block[start:].strip():
            raise EOFError("the file goes on after its JSON array")
        self._add(block[start : len(block) - len(self._before)])

    def _end_of_string(self, block: bytes, position: int) -> int:
        """The index after the string that the block begins in or has begun; -1: it goes on."""
        end = _REST_OF_STRING.match(block, position).end()
        if block[end : end + 1] == b'"':
            self.is_in_string = False
            return end + 1
        self._before = block[end:]  # nothing, or a backslash
        return -1

    def _add(self, piece: bytes) -> None:
        self._element += piece[: max(0, self._max_bytes + 1 - len(self._element))]

    def _ended(self) -> tuple[int, bytes, bool]:
        self._number += 1
        element, self._element = bytes(self._element), bytearray()
        return self._number, element.strip(), len(element) <= self._max_bytes
