"""Columns of labels in JSON: thousands of members of each object, most of which say 0."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.sections.data import JsonlData
from beam_jobs.sources.label_columns import LabelColumns, named_elsewhere

MIN_CUT = 16  # fewer members are parsed as others are
_ATTEMPTS = 8  # rows of a file that members are learned from
_WINDOW = 8192  # bytes that are compared at a time
_MEMBERS_A_ONE = 32  # a one costs as much as parsing so many members
_ONES = {b"0": b"1", b"0.0": b"1.0", b"false": b"true"}
_ZEROS = {spelling: zero for zero, one in _ONES.items() for spelling in (zero, one)}
_PUNCTUATION = ((b",", b":"), (b", ", b": "))  # after a value and after a name


class LabelMembers:
    """Takes the members of label columns off the objects of a file, before they are parsed.

    Where a row's last members are the label columns, it is likely that those of the next rows have
    the same names, in the same order, and values that are spelled alike. If so, they need not be
    parsed: 6,000 of them then take 0.02 times the time. Any other row is parsed whole.
    """

    def __init__(self, data: JsonlData, columns: LabelColumns):
        self._columns = columns
        self._taken = named_elsewhere(data)
        self._attempts = _ATTEMPTS if data.label_columns else 0
        self._others: set[str] = set()  # names of members that are no labels'
        self._names: list[str] = []
        self._tail: _Tail | None = None

    def cut(self, line: bytes) -> tuple[bytes, tuple[str, ...]] | None:
        """A line without its last members, and their labels; None: they are others.

        It is right where what is left is an object with no members but some of `others`.
        """
        if self._tail is None:
            return None
        end = _end(line)
        found = self._tail.match(line, end)
        if found is None:
            return None
        start, ones = found
        return line[:start] + line[end:], self._columns.of_ones([self._names[i] for i in ones])

    def are_others(self, names: Mapping[str, Any]) -> bool:
        """Whether the members of what `cut` has left are no labels'."""
        return names.keys() <= self._others

    def learn(self, line: bytes, values: Mapping[str, Any]) -> None:
        """Learns from a row that has been parsed how those of the next rows may be written."""
        if not self._attempts:
            return
        self._attempts -= 1
        names = [name for name in values if self._columns.label(name) is not None]
        others = list(values)[: len(values) - len(names)]
        are_last = names == list(values)[len(others) :] and self._taken.isdisjoint(names)
        if len(names) < MIN_CUT or not are_last or not self._columns.has_all_of(names):
            return
        end = _end(line)
        last = line[line.rfind(b":", 0, end) + 1 : end].strip()
        if last not in _ZEROS:
            return
        for ensure_ascii in (True, False):
            encode = json.JSONEncoder(ensure_ascii=ensure_ascii).encode
            with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair
                keys = [encode(name).encode() for name in names]
                for comma, colon in _PUNCTUATION:
                    tail = _Tail([comma + key + colon for key in keys], _ZEROS[last])
                    if tail.match(line, end) is not None:
                        self._tail, self._names, self._others = tail, names, set(others)
                        return


def _end(line: bytes) -> int:
    """Where an object's last bracket is."""
    return len(line.rstrip(b" \t\r\n")) - 1


class _Tail:
    """The last members of an object, where each is a zero or a one.

    Attributes:
      keys: what comes before each value.
      zero: how zeros are spelled.
    """

    def __init__(self, keys: Sequence[bytes], zero: bytes):
        self._zero, self._one = zero, _ONES[zero]
        self._zeros = b"".join(key + zero for key in keys)
        ends = np.cumsum([len(key) + len(zero) for key in keys])
        self._starts = ends - len(zero)  # of values
        self._codes = np.frombuffer(self._zeros, np.uint8)

    def match(self, line: bytes, end: int) -> tuple[int, list[int]] | None:
        """(where the members that end at `end` begin, with a comma; the indexes of ones); None:
        there are others, or so many ones that parsing them is as fast.
        """
        ones: list[int] = []
        left, most = len(self._zeros), max(1, len(self._starts) // _MEMBERS_A_ONE)
        while left and len(ones) <= most:
            size = min(left, _WINDOW)
            if end < size:
                return None
            if line[end - size : end] == self._zeros[left - size : left]:
                end, left = end - size, left - size
                continue
            codes = np.frombuffer(line, np.uint8, size, end - size)
            last = int(np.flatnonzero(codes != self._codes[left - size : left])[-1]) + left - size
            index = int(self._starts.searchsorted(last, side="right")) - 1
            start = int(self._starts[index])
            of_value = end - left + start + len(self._zero)  # where it ends in the line
            if index < 0 or last >= start + len(self._zero):
                return None
            end, left = of_value - len(self._one), start
            if line[max(0, end) : of_value] != self._one:
                return None
            ones.append(index)
        return None if left or end <= 0 else (end, ones[::-1])
