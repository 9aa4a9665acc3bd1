"""Columns of labels in CSV: thousands of cells a row, most of which say 0."""

import dataclasses
import functools
from collections.abc import Sequence

from beam_jobs.contract.sections.data import CsvData
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources import label_columns

MIN_CUT = 16  # fewer cells are parsed as others are
_MAX_VERDICTS = 1 << 16  # different cells that are remembered
_CELLS_A_ONE = 32  # a one costs as much as parsing so many cells
# By what the last cell says: how the cells may be spelled.
_SPELLINGS = {
    b"0": ((b"0", b"1"), (b"0", b"1.0")),
    b"1": ((b"0", b"1"), (b"", b"1")),
    b"0.0": ((b"0.0", b"1.0"),),
    b"1.0": ((b"0.0", b"1.0"), (b"", b"1.0")),
    b"": ((b"", b"1"), (b"", b"1.0")),
    b"False": ((b"False", b"True"),),
    b"True": ((b"False", b"True"),),
    b"false": ((b"false", b"true"),),
    b"true": ((b"false", b"true"),),
}


class LabelCells:
    """Reads the cells of label columns of a file's rows.

    Where these columns are the last ones and the cells of a line are spelled alike, `cut` takes
    them off the line before it is decoded and parsed: 6,000 columns then take 0.02 times the time.

    Attributes:
      others: (index in what `cut` leaves, name) of the columns that are not labels'.
      num_cut: cells that `cut` takes.
    """

    def __init__(self, data: CsvData, columns: Sequence[str]):
        selected = label_columns.select(data, columns)
        chosen = set(selected)
        self._columns = [(i, name) for i, name in enumerate(columns) if name in chosen]
        self._labels = [canonical_label(name) for _, name in self._columns]
        self._order = {canonical_label(name): i for i, name in enumerate(selected)}
        self._threshold = data.label_threshold
        self._verdicts: dict[str, bool] = {}
        self.others = [(i, name) for i, name in enumerate(columns) if name not in chosen]
        self.num_cut = self._num_cut(data, len(columns))
        self._delimiter = data.delimiter.encode()
        self._tails = {
            last: [_Tail(self._delimiter, zero, one, self.num_cut) for zero, one in spellings]
            for last, spellings in _SPELLINGS.items()
        }
        self._counts_ones = self._threshold <= 1

    def _num_cut(self, data: CsvData, num_columns: int) -> int:
        count = len(self._columns)
        are_last = bool(self._columns) and self._columns[0][0] == num_columns - count
        marks = f"{data.delimiter}{data.quote_character or ''}"
        is_plain = data.escape_character is None and not any(map(str.isalnum, marks))
        is_plain = is_plain and "." not in marks and marks.isascii()
        return count if are_last and is_plain and count >= MIN_CUT else 0

    def cut(self, line: bytes) -> tuple[bytes, list[int]] | None:
        """A line without its last cells, and the indexes of those of 1; None: they say others.

        It is right for the last line of a row, where what is left is no field with open quotes.
        """
        if not self.num_cut:
            return None
        end = len(line)
        while end and line[end - 1] in b"\r\n":
            end -= 1
        last = line[line.rfind(self._delimiter, 0, end) + 1 : end]
        for tail in self._tails.get(last, ()):
            found = tail.match(line, end)
            if found is not None and found[0]:
                start, ones = found
                return line[:start] + line[end:], ones
        return None

    def labels_of_ones(self, ones: Sequence[int]) -> tuple[str, ...]:
        """The labels of what `cut` took."""
        return self._in_order([self._labels[i] for i in ones] if self._counts_ones else [])

    def labels(self, received: Sequence[str]) -> tuple[str, ...]:
        """The labels of all fields of a row.

        Raises:
          InvalidRow: a cell is no number.
        """
        first, last = self._columns[0][0], self._columns[-1][0]
        if last - first + 1 == len(self._columns):
            cells = received[first : last + 1]
        else:
            cells = [received[i] for i, _ in self._columns]
        verdicts = self._verdicts
        try:
            present = [
                label for label, cell in zip(self._labels, cells, strict=True) if verdicts[cell]
            ]
        except KeyError:
            self._judge(cells)
            present = [
                label for label, cell in zip(self._labels, cells, strict=True) if verdicts[cell]
            ]
        return self._in_order(present)

    def _in_order(self, labels: list[str]) -> tuple[str, ...]:
        """Labels in the order of the config, as other sources have them."""
        return tuple(sorted(labels, key=self._order.__getitem__))

    def _judge(self, cells: Sequence[str]) -> None:
        if len(self._verdicts) > _MAX_VERDICTS:
            self._verdicts.clear()
        for (_, name), cell in zip(self._columns, cells, strict=True):
            if cell not in self._verdicts:
                number = label_columns.number_of(cell, is_text=True)
                if number is None:
                    raise label_columns.not_a_number(name, cell)
                self._verdicts[cell] = number >= self._threshold


@dataclasses.dataclass(frozen=True)
class _Tail:
    """The last cells of a line, where each is a zero or a one. They differ in the first byte."""

    delimiter: bytes
    zero: bytes
    one: bytes
    count: int

    @functools.cached_property
    def _zeros(self) -> bytes:
        return (self.delimiter + self.zero) * self.count

    def match(self, line: bytes, end: int) -> tuple[int, list[int]] | None:
        """(where the cells that end at `end` begin, with a delimiter; the indexes of ones); None:
        there are other cells, or so many ones that parsing them is as fast.
        """
        if len(self.zero) == len(self.one):
            return self._match_of_one_length(line, end)
        return self._match_backwards(line, end)

    def _match_of_one_length(self, line: bytes, end: int) -> tuple[int, list[int]] | None:
        zeros, width = self._zeros, len(self.zero) + 1
        start = end - len(zeros)
        if start < 0 or line[start:end].replace(self.one[:1], self.zero[:1]) != zeros:
            return None
        ones = []
        position = line.find(self.one[:1], start, end)
        while position >= 0:
            index, rest = divmod(position - 1 - start, width)
            if rest:  # 0.1
                return None
            ones.append(index)
            position = line.find(self.one[:1], position + 1, end)
        return start, ones

    def _match_backwards(self, line: bytes, end: int) -> tuple[int, list[int]] | None:
        """What is between two ones is compared as one piece."""
        width, longer = len(self.zero) + 1, max(0, len(self.one) - len(self.zero))
        ones: list[int] = []
        left = len(self._zeros)  # bytes of zeros that are still to be found before `end`
        while len(ones) <= max(1, self.count // _CELLS_A_ONE):
            position = line.rfind(self.one[:1], max(0, end - left - longer), end)
            gap = end - position - len(self.one)  # bytes between the one and `end`
            if position < 0 or gap > left - width:
                is_found = end >= left and line.startswith(self._zeros[:left], end - left)
                return (end - left, ones[::-1]) if is_found else None
            left -= gap + width
            between = self._zeros[left + width : left + width + gap]
            is_cell = not left % width and line.startswith(self.delimiter + self.one, position - 1)
            if gap < 0 or not is_cell or line[end - gap : end] != between:
                return None
            end = position - 1
            ones.append(left // width)
        return None
