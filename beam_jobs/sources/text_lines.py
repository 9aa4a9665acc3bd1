"""The lines of text files as bytes, with line ends of every kind: `\\n`, `\\r` and `\\r\\n`."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO, TextIO

_BLOCK_BYTES = 128 << 10  # 128 KiB


def of_utf8(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """(line with its end, whether it is whole) of the lines of UTF-8 text, without a byte order
    mark.

    A line of more than `max_bytes` is cut there; the rest is skipped without being held in memory.
    Lines of 12 KB take 0.3 times the time that `io.TextIOWrapper` takes.
    """
    lines = _cut(_whole_lines(stream, max_bytes), max_bytes)
    for line, is_whole in lines:
        line = line.removeprefix(codecs.BOM_UTF8)
        if line:
            yield line, is_whole
        break
    yield from lines


def of_text(text: TextIO, max_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """As `of_utf8`, of text that is decoded already; half surrogate pairs are encoded, too."""
    while line := text.readline(max_bytes + 1):
        is_whole = len(line) <= max_bytes
        rest = line
        while not is_whole and rest and not rest.endswith(("\n", "\r")):
            rest = text.readline(1 << 20)
        yield line.encode("utf-8", "surrogatepass"), is_whole


def _cut(lines: Iterator[bytes], max_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """(line, whether it is whole) of lines, of which long ones come in pieces."""
    is_rest = False
    for line in lines:
        if not is_rest:
            yield line[: max_bytes + 1], len(line) <= max_bytes
        is_rest = not line.endswith((b"\n", b"\r"))


def _whole_lines(stream: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Lines, of which one of more than `max_bytes` may come in pieces; only a last piece has the
    line's end.
    """
    read = getattr(stream, "read1", stream.read)
    begun, num_begun = [], 0  # blocks without a line's end
    while block := read(_BLOCK_BYTES):
        is_held = bool(begun) and begun[-1].endswith(b"\r")  # perhaps the first half of an end
        if not is_held and b"\n" not in block and b"\r" not in block:
            begun.append(block)
            num_begun += len(block)
            if num_begun > max_bytes:
                yield b"".join(begun)
                begun, num_begun = [], 0
            continue
        block = b"".join([*begun, block])
        start = 0
        while end := block.find(b"\n", start) + 1:
            if block.find(b"\r", start, max(start, end - 2)) < 0:
                yield block[start:end]
            else:
                yield from block[start:end].splitlines(keepends=True)
            start = end
        rest = block[start:]
        if b"\r" in rest[:-1]:
            *pieces, rest = rest.splitlines(keepends=True)
            yield from pieces
        begun, num_begun = [rest] if rest else [], len(rest)
    if begun:
        yield b"".join(begun)
