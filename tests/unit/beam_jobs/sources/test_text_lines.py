"""Lines as bytes: the same as Python's text files have, whatever the blocks they come in."""

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beam_jobs.sources import text_lines

TEXT = st.text(st.sampled_from("aé\n\r\ufeff"), max_size=20)


@given(TEXT, st.integers(1, 5))
@example("a\r\nb\rc", 2)  # a block ends between \r and \n
def test_lines_are_those_that_text_files_have(text, block_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_BLOCK_BYTES", block_bytes)
        stream = io.BufferedReader(io.BytesIO(text.encode()))
        lines = list(text_lines.of_utf8(stream, 100))
    expected = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8-sig", newline="")
    assert [(line.decode(), is_whole) for line, is_whole in lines] == [
        (line, True) for line in expected
    ]


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("block_bytes", [2, 3, 7, 100])
def test_only_the_line_that_is_too_long_is_cut(line_end, block_bytes, monkeypatch):
    monkeypatch.setattr(text_lines, "_BLOCK_BYTES", block_bytes)
    content = "".join(f"{line}{line_end}" for line in ["abc", "x" * 9, "d", ""]) + "y" * 9
    parts = [("abc" + line_end, True), ("x" * 6, False), ("d" + line_end, True), (line_end, True)]
    stream = io.BufferedReader(io.BytesIO(content.encode()))
    found = [(line.decode(), is_whole) for line, is_whole in text_lines.of_utf8(stream, 5)]
    assert found == [*parts, ("y" * 6, False)]
    text = io.TextIOWrapper(io.BytesIO(content.encode()), newline="")
    found = [(line.decode(), is_whole) for line, is_whole in text_lines.of_text(text, 5)]
    assert found == [*parts, ("y" * 6, False)]


def test_what_precedes_damage_is_read():
    class Damaged(io.RawIOBase):
        blocks = [b"a\nb\nc"]

        def readable(self):
            return True

        def readinto(self, buffer):
            if not self.blocks:
                raise EOFError("cut off")
            block = self.blocks.pop()
            buffer[: len(block)] = block
            return len(block)

    lines = text_lines.of_utf8(io.BufferedReader(Damaged()), 100)
    assert [next(lines), next(lines)] == [(b"a\n", True), (b"b\n", True)]
    with pytest.raises(EOFError):
        next(lines)
