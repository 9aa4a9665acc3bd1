"""A row's fields -> a document: the same for JSON objects, rows of CSV and rows of Parquet."""

import contextlib
import dataclasses
import datetime
import decimal
import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.dataset_config import (
    ArrowData,
    CsvData,
    JsonlData,
    ParquetData,
    iso_of_epoch,
)
from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources import paths
from beam_jobs.sources.documents import Document
from beam_jobs.sources.invalid_row import InvalidRow, is_line
from beam_jobs.sources.label_values import WRONG_FORMAT, LabelValues

MAX_WEIGHT = float(np.finfo(np.float32).max)
TOO_LONG = "row too long"
A_ROW = "expected a row"  # of a blank line

Rows = JsonlData | CsvData | ParquetData | ArrowData


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
    if wrong := [name for name in data.label_columns if not is_line(canonical_label(name))]:
        raise UserError(
            f"data.label_columns: received {shown(wrong[0])}, expected names of labels, without "
            "control characters or line breaks; rename the column"
        )
    for key, names in _named(data):
        if key == "labels_field" and data.missing_labels == "none" and isinstance(data, JsonlData):
            continue
        if missing := [name for name in names if name not in known]:
            those = ", ".join(map(repr, missing))
            tops = {paths.top_name(found, name) for name in missing if "." in name}
            shown_names = found + [name for name in nested if paths.top_name(found, name) in tops]
            raise UserError(
                f"data.{key}: {source} has no column {those}; the columns found are "
                f"{', '.join(map(repr, shown_names)) or 'none'}"
            )


def check_columns_once(data: Rows, found: Sequence[str], source: str) -> None:
    """Raises UserError if a field that the config names is there several times."""
    twice = [name for name in columns_read(data) if found.count(name) > 1]
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

    def document(self, values: Mapping[str, Any], source: str, row: int) -> Document:
        """Raises InvalidRow where a field is missing or of a wrong type."""
        values = self._completed(values)
        return Document(
            id=self._id(values, source, row),
            texts=self.data.texts(self._texts(values)),
            labels=self._labels(values),
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
                    f"{', '.join(map(repr, sorted(values)))}",
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
            return self._labels_of_columns(values)
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
        return self._label_values.labels(received)

    @functools.cached_property
    def _label_values(self) -> LabelValues:
        names = self.label_names if self.data.label_names is None else self.data.label_names
        return LabelValues(self.data, all_strings=self.all_strings, names=names)

    def _labels_of_columns(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Null and blank mean 0, as sparse tables have it."""
        present = []
        for field in self.data.label_columns:
            value = values.get(field)
            number = 0.0 if value is None else self._number(value)
            if number is None:
                raise InvalidRow(
                    "label is not a number",
                    f"{field}: received {shown(value)}, expected 0, 1 or a number between",
                )
            if number >= self.data.label_threshold:
                present.append(self._label_of_column[field])
        return tuple(present)

    @functools.cached_property
    def _label_of_column(self) -> dict[str, str]:
        return {field: canonical_label(field) for field in self.data.label_columns}

    def _weight(self, values: Mapping[str, Any]) -> float:
        if self.data.weight_field is None:
            return 1.0
        value = values.get(self.data.weight_field)
        is_number = not isinstance(value, bool) and value is not None and value != ""
        number = self._number(value) if is_number else None
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

    def _number(self, value: Any) -> float | None:
        """The value as a finite number; None where it is none."""
        if self.all_strings:
            value = {"": 0.0, "false": 0.0, "true": 1.0}.get(value.strip().lower(), value)
        elif not isinstance(value, int | float | decimal.Decimal):
            return None
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            return number if math.isfinite(number) else None
        return None


class FirstLabels:
    """The labels of a file's first rows: one with labels in the format that the config says is
    enough.
    """

    def __init__(self, fields: Fields):
        self._fields = fields
        self._wrong: InvalidRow | None = None
        self._is_right = False

    def see(self, values: Mapping[str, Any]) -> None:
        """A row."""
        try:
            self._is_right = self._is_right or bool(self._fields.labels(values))
        except InvalidRow as error:
            if error.reason in WRONG_FORMAT:
                self._wrong = self._wrong or error

    def check(self, source: str) -> None:
        """Raises UserError, with the setting that may be right, if none is in the format."""
        if self._wrong and not self._is_right:
            raise UserError(
                f"{source}: none of its first rows has labels in the format that the config says: "
                f"{self._wrong.detail}"
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
