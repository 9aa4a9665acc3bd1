"""Columns that each say whether a document has the label of their name."""

import contextlib
import decimal
import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.sections.data import RowData
from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources.invalid_row import InvalidRow, is_line

NOT_A_NUMBER = "label is not a number"
_WORDS = {"": 0.0, "false": 0.0, "true": 1.0}


def is_pattern(name: str) -> bool:
    """Whether a name of the config may stand for several columns."""
    return any(character in name for character in "*?[")


def named_elsewhere(data: RowData) -> set[str]:
    """The columns that keys other than those of labels name: no pattern takes them."""
    others = (data.id_field, data.weight_field, data.split_field, data.time_field)
    names = {*data.text_fields, *data.metadata_fields, *filter(None, others)}
    return names | {name[:end] for name in names for end in _dots(name)}


def _dots(name: str) -> list[int]:
    """Where the names end of what a field may be within."""
    return [position for position, character in enumerate(name) if character == "."]


def select(data: RowData, columns: Iterable[str]) -> list[str]:
    """Of a file's columns, those that `data.label_columns` names, in its order; a name that is a
    column's own comes before a pattern.
    """
    columns = list(dict.fromkeys(columns))
    known, taken = set(columns), named_elsewhere(data)
    selected: dict[str, None] = {}
    for name in data.label_columns:
        if name in known:
            selected[name] = None
        elif is_pattern(name):
            matches = re.compile(fnmatch.translate(name)).match
            for column in columns:
                if column not in taken and matches(column):
                    selected[column] = None
    return list(selected)


def check(data: RowData, columns: Sequence[str]) -> None:
    """Raises UserError if the name of a column of labels cannot be that of a label."""
    for name in select(data, columns) or data.label_columns:
        label = canonical_label(name)
        if not label or not (label.isprintable() or is_line(label)):
            raise UserError(
                f"data.label_columns: received {shown(name)}, expected names of labels, without "
                "control characters or line breaks; rename the column"
            )


def unmatched(data: RowData, columns: Sequence[str]) -> list[str]:
    """The names and patterns of `data.label_columns` that no column has."""
    known, taken = set(columns), named_elsewhere(data)
    free = [column for column in columns if column not in taken]
    return [
        name
        for name in data.label_columns
        if name not in known and not (is_pattern(name) and fnmatch.filter(free, name))
    ]


def number_of(value: Any, *, is_text: bool) -> float | None:
    """A value as a finite number; None where it is none.

    Args:
      value: a number or a boolean, or a string.
      is_text: whether strings may hold numbers, as in CSV.
    """
    if is_text:
        value = _WORDS.get(value.strip().lower(), value)
    elif not isinstance(value, int | float | decimal.Decimal):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def not_a_number(column: str, value: Any) -> InvalidRow:
    return InvalidRow(
        NOT_A_NUMBER,
        f"{column}: received {shown(value)}, expected 0, 1 or a number between",
    )


class LabelColumns:
    """The labels of rows that are mappings.

    Attributes:
      data: says which columns are labels'.
      all_strings: every value is a string, as in CSV.
    """

    def __init__(self, data: RowData, *, all_strings: bool):
        self._threshold, self._all_strings = data.label_threshold, all_strings
        names = [name for name in data.label_columns if not is_pattern(name)]
        self._names = {name: canonical_label(name) for name in names}
        patterns = [name for name in data.label_columns if is_pattern(name)]
        self._patterns = set(patterns)
        self._matches = re.compile("|".join(map(fnmatch.translate, patterns))).match
        self._order = {name: i for i, name in enumerate(self._names)}
        self._taken = named_elsewhere(data) | set(self._names)
        self._by_pattern: dict[str, str | None] = {}  # None: the column is no label's

    def labels(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The labels of one row; null and blank mean 0, as sparse tables have it.

        Raises:
          InvalidRow: a value is no number.
        """
        present = [
            label
            for name, label in self._names.items()
            if (value := values.get(name)) is not None and value != 0 and self._is_set(name, value)
        ]
        if self._patterns:
            present += [
                label
                for name, value in values.items()
                if value is not None
                and value != 0
                and (label := self._label_by_pattern(name))
                and self._is_set(name, value)
            ]
        return tuple(present)

    def label(self, name: str) -> str | None:
        """The label of a column; None: it is no label's."""
        if name in self._names:
            return self._names[name]
        return self._label_by_pattern(name) if self._patterns else None

    def has_all_of(self, names: Iterable[str]) -> bool:
        """Whether all columns that the config names without a pattern are among these."""
        return self._names.keys() <= set(names)

    def of_ones(self, names: Iterable[str]) -> tuple[str, ...]:
        """The labels of a row in which these columns of labels, in its order, say 1 and all others
        0.
        """
        if self._threshold > 1:
            return ()
        last = len(self._order)
        names = sorted(names, key=lambda name: self._order.get(name, last))
        return tuple(map(self.label, names))

    def _is_set(self, name: str, value: Any) -> bool:
        number = number_of(value, is_text=self._all_strings)
        if number is None:
            raise not_a_number(name, value)
        return number >= self._threshold

    def _label_by_pattern(self, name: str) -> str | None:
        if name not in self._by_pattern:
            is_label = name in self._patterns or self._matches(name)
            is_free = name not in self._taken
            self._by_pattern[name] = canonical_label(name) if is_label and is_free else None
        return self._by_pattern[name]
