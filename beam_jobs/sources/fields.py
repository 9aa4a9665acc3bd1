"""A row's fields -> a document: the same for JSON objects, rows of CSV and rows of Parquet."""

import contextlib
import dataclasses
import datetime
import decimal
import functools
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.dataset_config import CsvData, JsonlData, ParquetData, iso_of_epoch
from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources import paths
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, Document, Reject

MAX_WEIGHT = float(np.finfo(np.float32).max)
MAX_LABEL_CHARACTERS = 1000
_NOT_IN_A_LINE = {"Cc", "Cs", "Zl", "Zp"}
TOO_LONG = "row too long"
A_ROW = "expected a row"  # of a blank line

Rows = JsonlData | CsvData | ParquetData


class InvalidRow(Exception):
    """A row that is not a document.

    The reason is a fixed phrase, the detail says what was received and what was expected.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def reject(self, source: str, row: int, content: str) -> Reject:
        return Reject(source, row, self.reason, self.detail, content[:MAX_REJECT_CONTENT])


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
        if key == "labels_field" and getattr(data, "missing_labels", "reject") == "none":
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
    """

    data: Rows
    all_strings: bool = False
    partition: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _paths(self) -> list[str]:
        return [name for name in columns_read(self.data) if "." in name]

    def document(self, values: Mapping[str, Any], source: str, row: int) -> Document:
        """Raises InvalidRow where a field is missing or of a wrong type."""
        if self.partition:
            values = {**self.partition, **values}
        if self._paths:
            values = paths.with_paths(values, self._paths)
        return Document(
            id=self._id(values, source, row),
            texts=self.data.texts(self._texts(values)),
            labels=self._labels_of_columns(values)
            if self.data.label_columns
            else self._labels(values),
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

    def _labels(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        field, delimiter = self.data.labels_field, self.data.label_delimiter
        if field is None:
            return ()
        received = values.get(field)
        what = f"{field}: received {shown(received)}"
        if received is None:
            if field not in values:
                if getattr(self.data, "missing_labels", "reject") == "none":
                    return ()
                raise InvalidRow(
                    "no labels",
                    f"field {field!r} is missing; expected a list, which may be empty, or "
                    "data.missing_labels: none, where a missing field means no labels",
                )
            return ()
        if delimiter is not None:
            if not isinstance(received, str):
                raise InvalidRow(
                    "labels are not a string", f"{what}, expected labels joined by {delimiter!r}"
                )
            received = [label for label in received.split(delimiter) if label.strip()]
        elif self.all_strings:
            received = [received] if received.strip() else []
        elif not isinstance(received, list):
            raise InvalidRow(
                "labels are not a list",
                f"{what}, expected a list of strings; for joined labels set data.label_delimiter",
            )
        elif not all(isinstance(label, str) and label.strip() for label in received):
            raise InvalidRow(
                "label is not a string", f"{what}, expected a list of strings that are not empty"
            )
        return checked_labels(received, what)

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


def is_line(text: str) -> bool:
    """Whether a text has no control characters, line breaks or half surrogate pairs; spaces,
    joiners and marks of direction are parts of names.
    """
    return not any(unicodedata.category(character) in _NOT_IN_A_LINE for character in text)


def checked_labels(labels: Iterable[str], what: str) -> tuple[str, ...]:
    """Labels without surrounding white space, in NFC.

    Raises:
      InvalidRow: one cannot be a line of a file.
    """
    stripped = tuple(map(canonical_label, labels))
    if not all(label.isprintable() or is_line(label) for label in stripped):
        raise InvalidRow(
            "label is not printable",
            f"{what}, expected labels without control characters, line breaks or half surrogate "
            "pairs",
        )
    if any(len(label) > MAX_LABEL_CHARACTERS for label in stripped):
        raise InvalidRow(
            "label is too long",
            f"{what}, expected labels of at most {MAX_LABEL_CHARACTERS:,} characters",
        )
    return stripped
