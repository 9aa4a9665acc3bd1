"""Columns of labels in CSV: thousands of cells a row, most of which say 0."""

from collections.abc import Sequence

from beam_jobs.contract.dataset_config import CsvData
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources import label_columns

MIN_CUT = 16  # fewer cells are parsed as others are
_MAX_VERDICTS = 1 << 16  # different cells that are remembered
_ZEROS = {"0": "0", "1": "0", "0.0": "0.0", "1.0": "0.0"}
_ZEROS |= {"False": "False", "True": "False", "false": "false", "true": "false"}
_ONES = {"0": "1", "0.0": "1.0", "False": "True", "false": "true"}


class LabelCells:
    """Reads the cells of label columns of a file's rows.

    Where these columns are the last ones and all cells of a line are spelled alike, `cut` takes
    them off the line before it is parsed: 6,000 columns then take 0.15 times the time.

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
        self._delimiter = data.delimiter
        self._delimiters = data.delimiter * (self.num_cut - 1)
        self._counts_ones = self._threshold <= 1

    def _num_cut(self, data: CsvData, num_columns: int) -> int:
        count = len(self._columns)
        are_last = bool(self._columns) and self._columns[0][0] == num_columns - count
        marks = f"{data.delimiter}{data.quote_character or ''}"
        is_plain = data.escape_character is None and not any(map(str.isalnum, marks))
        is_plain = is_plain and "." not in marks
        return count if are_last and is_plain and count >= MIN_CUT else 0

    def cut(self, line: str) -> tuple[str, str] | None:
        """A line without its last cells, and these, a `0` or `1` each; None: they are others.

        It is right for the last line of a row, where what is left is no field with open quotes.
        """
        if not self.num_cut:
            return None
        body = line.rstrip("\r\n")
        zero = _ZEROS.get(body[body.rfind(self._delimiter) + 1 :])
        if zero is None:
            return None
        one = _ONES[zero]
        plain = body if zero == "0" else body.replace(one, "1").replace(zero, "0")
        width = 2 * self.num_cut - 1
        tail = plain[-width:]
        flags = tail[::2]
        ones = flags.count("1")
        are_flags = ones + flags.count("0") == self.num_cut and tail[1::2] == self._delimiters
        if not are_flags:
            return None
        if zero != "0":
            width += ones * (len(one) - 1) + (self.num_cut - ones) * (len(zero) - 1)
            if body[-width:].count(self._delimiter) != self.num_cut - 1:
                return None  # some cells are spelled otherwise, and shorter
        head = body[: -width - 1]
        if not head or body[-width - 1] != self._delimiter:
            return None
        return head + line[len(body) :], flags

    def labels_of_flags(self, flags: str) -> tuple[str, ...]:
        """The labels of what `cut` took."""
        present = []
        position = flags.find("1") if self._counts_ones else -1
        while position >= 0:
            present.append(self._labels[position])
            position = flags.find("1", position + 1)
        return self._in_order(present)

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
