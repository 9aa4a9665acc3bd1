"""CSV, TSV and the like, by Python's csv module."""

import codecs
import contextlib
import csv
import dataclasses
import io
import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import CsvData
from beam_jobs.sources import label_columns, streams, text_lines
from beam_jobs.sources.documents import BLANK_LINE, Document, Reject
from beam_jobs.sources.fields import (
    A_ROW,
    Fields,
    FirstLabels,
    check_columns,
    check_columns_once,
    listed,
    too_long,
)
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow
from beam_jobs.sources.label_cells import LabelCells

_DAMAGE = (
    *streams.DAMAGE,
    UnicodeError,
)  # UnicodeError: such as half a character of UTF-16 at the end

_PEEKED_ROWS = 100  # where none has labels in the format that the config says, that is a mistake


def explain_may_be_rows(number: int, setting: str) -> str:
    """What to say of documents that `may_be_rows`; the setting makes quotes text."""
    return (
        f"{number:,} rows in quotes span lines of which each has as many fields as there are "
        f"columns; if quotes are text there, rows were taken into a field: set {setting}"
    )


@dataclasses.dataclass(frozen=True)
class CsvReader:
    """One document per row. A row may span lines in quotes; its number is its first line's."""

    data: CsvData
    fields: type[Fields] = Fields  # what makes documents of its rows

    def files(self) -> list[InputFile]:
        files = streams.ranges_where_plain(match_files(self.data.inputs))
        if self.data.columns is not None:
            for file in files:
                self._check_columns(self.data.columns, "data.columns", file)
                self._check_no_header(file)
        else:
            for file in files:
                with (
                    contextlib.suppress(*_DAMAGE),
                    self._rows(file) as rows,
                ):  # damage is reported with its row when the file is read
                    self._header(rows, file)
        self._check_first_labels(files)
        return files

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        fields = self.fields(self.data, all_strings=True, partition=dict(file.partition))
        next_line = 1
        try:
            with self._rows(file) as rows:
                columns, header_row = self.data.columns, 0
                if columns is None:
                    columns, header_row = self._header(rows, file)
                for row in range(1, header_row):
                    yield Reject(file.name, row, BLANK_LINE, A_ROW, "")
                cells = rows.cells = self._label_cells(columns)
                for row in rows:
                    next_line = row.number + len(row.lines)
                    try:
                        if received := row.fields():  # a blank line has none
                            values, labels = _values_and_labels(columns, received, row, cells)
                            known = {} if labels is None else {"labels": labels}
                            document = fields.document(values, file.name, row.number, **known)
                            if len(row.lines) > 1 and self._may_be_rows(row, len(columns)):
                                document = dataclasses.replace(document, may_be_rows=True)
                            yield document
                        else:
                            yield Reject(file.name, row.number, BLANK_LINE, A_ROW, "")
                    except InvalidRow as error:
                        yield error.reject(file.name, row.number, row.content())
        except _DAMAGE as error:
            yield streams.unreadable(file, next_line, error)

    def _check_first_labels(self, files: Sequence[InputFile]) -> None:
        """Raises UserError if the labels of the first file's first rows are in another format."""
        for file in files[:1]:
            fields = Fields(self.data, all_strings=True, partition=dict(file.partition))
            labels = FirstLabels(fields)
            with contextlib.suppress(*_DAMAGE), self._rows(file) as rows:
                columns = self.data.columns or self._header(rows, file)[0]
                cells = self._label_cells(columns)
                for row in itertools.islice(rows, _PEEKED_ROWS):
                    with contextlib.suppress(InvalidRow):
                        if received := row.fields():
                            labels.see(*_values_and_labels(columns, received, row, cells))
            labels.check(file.name)

    def first_records(self, file: InputFile, number: int) -> list[list[str]]:
        """The fields of the first rows of a file, a header's too, without rows that are wrong."""
        records: list[list[str]] = []
        with contextlib.suppress(*_DAMAGE), self._rows(file) as rows:
            for row in rows:
                with contextlib.suppress(InvalidRow):
                    if received := row.fields():
                        records.append(received)
                if len(records) == number:
                    break
        return records

    def _label_cells(self, columns: Sequence[str]) -> LabelCells | None:
        """What reads the columns of labels; None: there are none, or the file's path has some."""
        names = set(columns)
        of_rows = all(map(label_columns.is_pattern, set(self.data.label_columns) - names))
        return LabelCells(self.data, columns) if self.data.label_columns and of_rows else None

    def _may_be_rows(self, row: "_Row", num_columns: int) -> bool:
        """Whether each line would be a row if quotes were text: one that is not closed, as in
        `"bread soup`, takes the rows up to the next quote into its field.
        """
        return all(line.count(self.data.delimiter) == num_columns - 1 for line in row.texts())

    @contextlib.contextmanager
    def _rows(self, file: InputFile) -> Iterator["_Rows"]:
        limit = self.data.max_row_bytes
        # A byte that is wrong in the encoding becomes a lone surrogate, which spoils only its row.
        if codecs.lookup(self.data.encoding).name == "utf-8":
            with streams.open_utf8(file.path, file.member) as stream:
                lines = text_lines.of_utf8(stream, limit)
                yield _Rows(lines, self.data, errors="surrogateescape")
            return
        with (
            streams.open_stream(file.path, file.member) as stream,
            io.TextIOWrapper(stream, self.data.encoding, "surrogateescape", newline="") as text,
        ):
            yield _Rows(text_lines.of_text(text, limit), self.data, errors="surrogatepass")

    def _check_no_header(self, file: InputFile) -> None:
        """Raises UserError if the first row, which is a document, is the columns' names."""
        with contextlib.suppress(*_DAMAGE, InvalidRow), self._rows(file) as rows:
            first = next((fields for row in rows if (fields := row.fields())), ())
            if tuple(first) == self.data.columns:
                raise UserError(
                    f"{file.name}: its first row equals data.columns, so it is a header and no "
                    "document; leave data.columns out, or the row"
                )

    def _check_columns(self, columns: Sequence[str], source: str, file: InputFile) -> None:
        check_columns(self.data, [*columns, *dict(file.partition)], source)

    def _header(self, rows: "_Rows", file: InputFile) -> tuple[list[str], int]:
        """The names in a file's first row, and its number: a file of blank lines has none."""
        number = 0
        for row in rows:
            number = row.number
            try:
                columns = row.fields()
            except InvalidRow as error:
                raise UserError(
                    f"{file.name}: its first row, which should name the columns, is wrong: "
                    f"{error.reason}: {error.detail}"
                ) from None
            if not columns:
                continue
            self._check_columns(columns, file.name, file)
            check_columns_once(self.data, columns, file.name)
            return columns, number
        return [], number + 1


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of a file, which begins in the line `number`: its fields, or why it has none.

    Of its last fields, those of labels may be in `ones` instead, see `LabelCells`.

    Attributes:
      lines: in UTF-8, decoded with `errors`.
      parsed: the texts that were parsed.
    """

    number: int
    lines: Sequence[bytes]
    errors: str
    parsed: Sequence[str]
    received: list[str]
    error: InvalidRow | None
    ones: Sequence[int] | None = None

    def fields(self) -> list[str]:
        if self.error:
            raise self.error
        for text in self.parsed:
            if not text.isascii():
                try:
                    text.encode("utf-8")
                except UnicodeEncodeError as error:
                    byte = ord(text[error.start]) & 0xFF
                    raise InvalidRow(
                        "wrong encoding",
                        f"received the byte 0x{byte:02x}, expected text in data.encoding",
                    ) from None
        return self.received

    def texts(self) -> list[str]:
        """The lines."""
        return [line.decode("utf-8", self.errors) for line in self.lines]

    def content(self) -> str:
        return "".join(self.texts()).rstrip("\r\n")


def _values_and_labels(
    columns: Sequence[str], received: list[str], row: _Row, cells: LabelCells | None
) -> tuple[dict[str, str], tuple[str, ...] | InvalidRow | None]:
    """The fields of a row that are not of `cells`, and its labels, or why it has none; None: the
    fields hold them.
    """
    number = len(received) + (0 if cells is None or row.ones is None else cells.num_cut)
    if number != len(columns):
        raise InvalidRow(
            "wrong number of fields",
            f"received {number:,}, expected {len(columns):,}: {listed(columns)}",
        )
    if cells is None:
        return dict(zip(columns, received, strict=True)), None
    values = {name: received[i] for i, name in cells.others}
    if row.ones is not None:
        return values, cells.labels_of_ones(row.ones)
    try:
        return values, cells.labels(received)
    except InvalidRow as error:
        return values, error


class _Rows:
    """The rows of a file.

    After a wrong row, such as one whose quotes do not end, reading continues at its second line.

    Attributes:
      cells: of labels, which are taken off the lines; None: none are.
    """

    def __init__(self, lines: Iterator[tuple[bytes, bool]], data: CsvData, *, errors: str):
        csv.field_size_limit(
            max(csv.field_size_limit(), data.max_row_bytes + 1)
        )  # of the whole process; our own limit is in _Lines
        self.cells: LabelCells | None = None
        self._lines = _Lines(lines, data.max_row_bytes, errors)
        self._parser = csv.reader(
            self._lines,
            delimiter=data.delimiter,
            quotechar=data.quote_character,
            quoting=csv.QUOTE_NONE if data.quote_character is None else csv.QUOTE_MINIMAL,
            escapechar=data.escape_character,
            doublequote=data.double_quote,
            strict=True,  # else quotes that do not end would take the rest of the file
        )

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> _Row:
        lines = self._lines
        number = lines.begin_row(self.cells)
        received, error = self._parse()
        if lines.ones and (error or list(lines.ones) != [len(lines.of_row()) - 1]):
            # What was taken for cells of labels is within quotes: the row is parsed as it is.
            lines.take_back(0)
            lines.begin_row(None)
            received, error = self._parse()
        if error:
            lines.take_back(1)
        ones = next(iter(lines.ones.values()), None)
        return _Row(number, lines.of_row(), lines.errors, lines.parsed, received, error, ones)

    def _parse(self) -> tuple[list[str], InvalidRow | None]:
        try:
            return next(self._parser), None
        except csv.Error as wrong:
            return [], InvalidRow("not CSV", str(wrong))
        except InvalidRow as wrong:
            return [], wrong


class _Lines:
    """The lines of a file for a csv.reader; those of the current row can be read again.

    Attributes:
      errors: how lines, which are bytes in UTF-8, are decoded.
      parsed: the texts of the row's lines, without the cells of labels that were taken off.
      ones: by the index of the row's lines that cells of labels were taken off, those that say 1.
    """

    def __init__(self, lines: Iterator[tuple[bytes, bool]], max_bytes: int, errors: str):
        self._lines, self._max_bytes, self.errors = lines, max_bytes, errors
        self._row: list[tuple[bytes, bool]] = []  # lines, and whether they are whole
        self._taken_back: deque[tuple[bytes, bool]] = deque()
        self._next_number = 1
        self._cells: LabelCells | None = None
        self.parsed: list[str] = []
        self.ones: dict[int, list[int]] = {}

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line, is_whole = self._taken_back.popleft() if self._taken_back else next(self._lines)
        self._row.append((line, is_whole))
        self._next_number += 1
        self._bytes += len(line)
        if not is_whole or self._bytes > self._max_bytes:
            raise too_long(self._max_bytes)
        if self._cells is not None and (cut := self._cells.cut(line)):
            line, self.ones[len(self._row) - 1] = cut
        text = line.decode("utf-8", self.errors)
        if "\0" in text:  # which Python 3.10 takes for an error and later ones for text
            raise InvalidRow(
                "NUL character", "received a NUL character, expected text; is data.encoding right?"
            )
        self.parsed.append(text)
        return text

    def begin_row(self, cells: LabelCells | None) -> int:
        """Forgets the lines of the row before; returns the number of the next line."""
        self._row, self.parsed = [], []
        self._bytes = 0
        self._cells, self.ones = cells, {}
        return self._next_number

    def of_row(self) -> list[bytes]:
        return [line for line, _ in self._row]

    def take_back(self, first: int) -> None:
        """Has the row's lines from the `first` on be read again."""
        self._taken_back.extendleft(reversed(self._row[first:]))
        self._next_number -= len(self._row[first:])
        self._row = self._row[:first]
