"""A row's fields -> a document: the same for JSON objects, rows of CSV and rows of Parquet."""

import collections
import dataclasses
import datetime
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.sections.data import ArrowData, CsvData, JsonlData, ParquetData
from beam_jobs.contract.times import iso_of_epoch
from beam_jobs.sources import label_columns, paths
from beam_jobs.sources.documents import Document
from beam_jobs.sources.invalid_row import InvalidRow
from beam_jobs.sources.label_columns import LabelColumns, number_of
from beam_jobs.sources.label_values import WRONG_FORMAT, LabelValues

MAX_WEIGHT = float(np.finfo(np.float32).max)
TOO_LONG = "row too long"
_MAX_LISTED = 100
_OF_LABELS = ("labels_field", "label_score_field")
A_ROW = "expected a row"  # of a blank line

Rows = JsonlData | CsvData | ParquetData | ArrowData


def listed(names: Iterable[str]) -> str:
    """Names as an error lists them: the first ones, and how many there are."""
    names = list(names)
    more = f", ... ({len(names):,} in all)" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def too_long(max_bytes: int) -> InvalidRow:
    """The reject of a row that is longer than the config lets it be."""
    return InvalidRow(TOO_LONG, f"longer than data.max_row_bytes = {max_bytes:,}")


def decode(content: bytes) -> str:
    """UTF-8 to a string; raises InvalidRow."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRow("not UTF-8", f"{error}{encoding_hint(content)}") from None


def encoding_hint(content: bytes) -> str:
    """What to say of the encoding of a wrong row, if anything."""
    is_wide = b"\0" in content
    return "; is the file UTF-16 without a byte order mark? Expected UTF-8" if is_wide else ""


def check_columns(
    data: Rows, found: Iterable[str], source: str, *, nested: Iterable[str] = ()
) -> None:
    """Raises UserError unless every field that the config names is among those found, and columns
    of labels have names that a label may have.

    Args:
      data: names the fields.
      found: the fields of a row.
      source: where they are.
      nested: the paths of fields within them.
    """
    found, nested = list(found), list(nested)
    known = {*found, *nested}
    label_columns.check(data, found)
    for key, names in _named(data):
        if key in _OF_LABELS and data.missing_labels == "none" and isinstance(data, JsonlData):
            continue
        missing = [name for name in names if name not in known]
        if key == "label_columns":
            missing = label_columns.unmatched(data, [*found, *nested])
        if missing:
            those = ", ".join(map(repr, missing))
            tops = {paths.top_name(found, name) for name in missing if "." in name}
            shown_names = found + [name for name in nested if paths.top_name(found, name) in tops]
            raise UserError(
                f"data.{key}: {source} has no column {those}; the columns found are "
                f"{listed(map(repr, shown_names)) or 'none'}"
            )


def check_columns_once(data: Rows, found: Sequence[str], source: str) -> None:
    """Raises UserError if a field that the config names is there several times."""
    named = columns_read(data) + label_columns.select(data, found)
    counts = collections.Counter(found)
    twice = [name for name in named if counts[name] > 1]
    if twice:
        raise UserError(
            f"{source}: received several columns {twice[0]!r}, expected one; rename the others"
        )


def columns_read(data: Rows) -> list[str]:
    """The fields that the config names, each once."""
    return list(dict.fromkeys(name for _, names in _named(data) for name in names))


def _named(data: Rows) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "text_fields", data.text_fields
    if data.label_columns:
        yield "label_columns", data.label_columns
    elif data.labels_field is not None:
        yield "labels_field", (data.labels_field,)
        if data.label_score_field is not None:
            yield "label_score_field", (data.label_score_field,)
    if data.metadata_fields:
        yield "metadata_fields", data.metadata_fields
    for key in ("id_field", "weight_field", "split_field", "time_field"):
        if getattr(data, key) is not None:
            yield key, (getattr(data, key),)


@dataclasses.dataclass(frozen=True)
class Fields:
    """Makes documents of rows.

    Attributes:
      data: which fields hold what.
      all_strings: every value is a string, as in CSV: a label field may then hold one label, and
        numbers are parsed.
      partition: what the file's path says of all its rows; a row's own fields come first.
      label_names: those of the file's own labels by their ids; the config's come first.
    """

    data: Rows
    all_strings: bool = False
    partition: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    label_names: tuple[str, ...] | None = None

    @functools.cached_property
    def _paths(self) -> list[str]:
        return [name for name in columns_read(self.data) if "." in name]

    def document(
        self,
        values: Mapping[str, Any],
        source: str,
        row: int,
        *,
        labels: tuple[str, ...] | InvalidRow | None = None,
    ) -> Document:
        """A row as a document.

        Args:
          values: its fields.
          source: its file.
          row: its number there.
          labels: its labels, or why it has none; None: those that its fields hold.

        Raises:
          InvalidRow: a field is missing or of a wrong type.
        """
        values = self._completed(values)
        return Document(
            id=self._id(values, source, row),
            texts=self.data.texts(self._texts(values)),
            labels=self._labels(values) if labels is None else _raised_or(labels),
            weight=self._weight(values),
            source=source,
            row=row,
            split=self._word(values, self.data.split_field),
            time=self._time(values),
            metadata=tuple(_as_text(values.get(field)) for field in self.data.metadata_fields),
        )

    def _id(self, values: Mapping[str, Any], source: str, row: int) -> str:
        if self.data.id_field is None:
            return f"{source}:{row}"
        value = values.get(self.data.id_field)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise InvalidRow(
                "no id",
                f"{self.data.id_field}: received {shown(value)}, expected a string or an integer",
            )
        return str(value)

    def _texts(self, values: Mapping[str, Any]) -> list[str]:
        texts = []
        for field in self.data.text_fields:
            value = values.get(field)
            if value is None:
                raise InvalidRow(
                    "no text",
                    f"field {field!r} is missing or null; the row has "
                    f"{listed(map(repr, sorted(values)))}",
                )
            if not isinstance(value, str):
                raise InvalidRow(
                    "text is not a string", f"{field}: received {shown(value)}, expected a string"
                )
            texts.append(value)
        return texts

    def labels(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Raises InvalidRow where they are missing or in another format than the config says."""
        return self._labels(self._completed(values))

    def _completed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with what the file's path says, and with what the config's paths lead to."""
        if self.partition:
            values = {**self.partition, **values}
        return paths.with_paths(values, self._paths) if self._paths else values

    def _labels(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        if self.data.label_columns:
            return self.label_columns.labels(values)
        field, missing = self.data.labels_field, self.data.missing_labels
        if field is None:
            return ()
        received = values.get(field)
        if received is None or (self.all_strings and not received.strip()):
            if missing == "reject_absent" and field not in values:
                raise InvalidRow(
                    "no labels",
                    f"field {field!r} is missing; expected it in each row, or "
                    "data.missing_labels: none, where a missing field means no labels",
                )
            if missing == "reject":
                raise InvalidRow(
                    "no labels",
                    f"field {field!r} is missing, null or empty; expected labels, as "
                    "data.missing_labels: reject says; none: they mean no labels",
                )
            return ()
        return self._label_values.labels(received, values.get(self.data.label_score_field))

    @functools.cached_property
    def _label_values(self) -> LabelValues:
        names = self.label_names if self.data.label_names is None else self.data.label_names
        return LabelValues(self.data, all_strings=self.all_strings, names=names)

    @functools.cached_property
    def label_columns(self) -> LabelColumns:
        """What reads the columns of labels."""
        return LabelColumns(self.data, all_strings=self.all_strings)

    def _weight(self, values: Mapping[str, Any]) -> float:
        if self.data.weight_field is None:
            return 1.0
        value = values.get(self.data.weight_field)
        is_number = not isinstance(value, bool) and value is not None and value != ""
        number = number_of(value, is_text=self.all_strings) if is_number else None
        if number is None or not 0 <= number <= MAX_WEIGHT:
            raise InvalidRow(
                "no weight",
                f"{self.data.weight_field}: received {shown(value)}, expected a number from 0 to "
                f"{MAX_WEIGHT:.1e}",
            )
        return number

    def _word(self, values: Mapping[str, Any], field: str | None) -> str | None:
        value = None if field is None else values.get(field)
        return None if value is None else _as_text(value)

    def _time(self, values: Mapping[str, Any]) -> str | None:
        """The time in ISO 8601, or, if it is none, what is there: only some splits need a time."""
        text = self._word(values, self.data.time_field)
        if text is None or self.data.time_format == "iso":
            return text
        return iso_of_epoch(text, self.data.time_format) or text


def _raised_or(labels: tuple[str, ...] | InvalidRow) -> tuple[str, ...]:
    if isinstance(labels, InvalidRow):
        raise labels
    return labels


class FirstLabels:
    """The labels of a file's first rows: one with labels in the format that the config says is
    enough.
    """

    def __init__(self, fields: Fields):
        self._fields = fields
        self._wrong: InvalidRow | None = None
        self._is_right = False

    def see(
        self, values: Mapping[str, Any], labels: tuple[str, ...] | InvalidRow | None = None
    ) -> None:
        """A row, with its labels or why it has none; None: those that its fields hold."""
        try:
            found = self._fields.labels(values) if labels is None else _raised_or(labels)
            self._is_right |= bool(found or self._fields.data.label_columns)
        except InvalidRow as error:
            if error.reason in WRONG_FORMAT:
                self._wrong = self._wrong or error

    def check(self, source: str) -> None:
        """Raises UserError, with the setting that may be right, if none is in the format."""
        if self._wrong and not self._is_right:
            hint = "; leave a column that is no label's out of data.label_columns, or name it "
            hint += "with another key"
            raise UserError(
                f"{source}: none of its first rows has labels in the format that the config says: "
                f"{self._wrong.detail}{hint if self._fields.data.label_columns else ''}"
            )


def _as_text(value: Any) -> str:
    """Any value of JSON or Parquet as a string: null is empty, lists and objects are JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes):
        return decode(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_as_text)
    return str(value)
