"""What a label field holds -> the names of its labels, as `data.label_format` says."""

import contextlib
import decimal
from collections.abc import Sequence
from typing import Any

from beam_jobs.contract.errors import shown
from beam_jobs.contract.sections.data import RowData
from beam_jobs.sources import written_values
from beam_jobs.sources.invalid_row import InvalidRow, checked_labels
from beam_jobs.sources.label_columns import NOT_A_NUMBER, number_of

# Reasons of rejects that a setting removes where every row has them.
WRONG_FORMAT = {
    "labels are not a list",
    "labels are not a string",
    "labels are a written list",
    "labels are not a written list",
    "label is not a string",
    "label is not an id",
    "labels are not scores",
    "scores are not those of the labels",
    NOT_A_NUMBER,
}
_SETTING = "data.label_format"


class LabelValues:
    """Reads the values of `data.labels_field`.

    Attributes:
      data: says what the field holds.
      all_strings: every value is a string, as in CSV.
      names: of ids and positions; None: an id is its own name.
    """

    def __init__(self, data: RowData, *, all_strings: bool, names: Sequence[str] | None):
        self._field, self._delimiter = data.labels_field, data.label_delimiter
        self._format, self._threshold = data.label_format, data.label_threshold
        self._score_field = data.label_score_field
        self._all_strings, self._names = all_strings, names
        self._read = {
            None: self._of_names,
            "names": self._of_names,
            "written_list": self._of_written_list,
            "ids": self._of_ids,
            "multi_hot": self._of_multi_hot,
            "scores": self._of_scores,
        }[data.label_format]

    def labels(self, received: Any, scores: Any = None) -> tuple[str, ...]:
        """The names in a value that is not null.

        Args:
          received: the value.
          scores: what `data.label_score_field` holds, if the config names one.

        Raises:
          InvalidRow: the value is not in the format, or the scores are not one for each name.
        """
        names = self._read(received)
        return names if self._score_field is None else self._from_threshold_on(names, scores)

    def _from_threshold_on(self, names: Sequence[str], received: Any) -> tuple[str, ...]:
        """The names whose score, which is that at the same position, reaches the threshold."""
        scores = received
        if isinstance(scores, str) and (self._all_strings or self._format == "written_list"):
            with contextlib.suppress(ValueError):
                scores = written_values.parse(scores) if scores.strip() else None
        if not isinstance(scores, list):
            scores = [] if scores is None else [scores]
        scores = _flat(scores)
        if len(scores) != len(names):
            raise InvalidRow(
                "scores are not those of the labels",
                f"{self._score_field}: received {shown(received)}, expected a list of "
                f"{len(names):,} scores, as {self._field} has {len(names):,} labels",
            )
        numbers = [_number(score) for score in scores]
        if None in numbers:
            raise InvalidRow(
                NOT_A_NUMBER,
                f"{self._score_field}: received {shown(received)}, expected a number for each "
                "label",
            )
        return tuple(
            name for name, number in zip(names, numbers, strict=True) if number >= self._threshold
        )

    def _of_names(self, received: Any) -> tuple[str, ...]:
        names = received
        if self._delimiter is not None:
            if not isinstance(received, str):
                raise self._wrong(
                    "labels are not a string",
                    received,
                    f"labels joined by {self._delimiter!r}",
                )
            self._check_not_written(received)
            names = [name for name in received.split(self._delimiter) if name.strip()]
        elif self._all_strings:
            self._check_not_written(received)
            names = [received] if received.strip() else []
        else:
            if not isinstance(received, list):
                raise self._wrong("labels are not a list", received, "a list of strings")
            if "." in self._field:
                names = _flat(received)
            self._check_names(names, received)
        return checked_labels(names, self._field, received)

    def _of_written_list(self, received: Any) -> tuple[str, ...]:
        expected = 'a string with a list of strings, such as \'["a", "b"]\''
        if not isinstance(received, str):
            raise self._wrong("labels are not a written list", received, expected)
        names = self._parsed(received, "labels are not a written list", expected)
        if names is None:
            return ()
        if not isinstance(names, list):
            raise self._wrong("labels are not a written list", received, expected, parsed=names)
        self._check_names(names, received)
        return checked_labels(names, self._field, received)

    def _of_ids(self, received: Any) -> tuple[str, ...]:
        names = []
        for item in self._items(received):
            number = _number(item)
            if number is None or isinstance(item, bool) or number < 0 or number != int(number):
                raise self._wrong(
                    "label is not an id", received, "ids of labels, which are integers from 0"
                )
            index = item if isinstance(item, int) else int(number)  # large ones are no floats
            if self._names is None:
                names.append(str(index))
            elif index < len(self._names):
                names.append(self._names[index])
            else:
                raise InvalidRow(
                    "label id out of range",
                    f"{self._what(received)}, expected ids from 0 to {len(self._names) - 1:,}, as "
                    f"there are {len(self._names):,} label names",
                )
        return tuple(names)

    def _of_multi_hot(self, received: Any) -> tuple[str, ...]:
        items = self._items(received)
        if len(items) != len(self._names):
            raise InvalidRow(
                "wrong number of positions",
                f"{self._what(received)} of {len(items):,} positions, expected "
                f"{len(self._names):,}, as data.label_names has",
            )
        scores = [self._score(item, received) for item in items]
        return tuple(
            name
            for name, score in zip(self._names, scores, strict=True)
            if score >= self._threshold
        )

    def _of_scores(self, received: Any) -> tuple[str, ...]:
        expected = "an object of labels and their scores"
        scores = received
        if isinstance(received, str):
            scores = self._parsed(received, "labels are not scores", expected)
            if scores is None:
                return ()
        if isinstance(scores, list) and all(isinstance(item, tuple) for item in scores):
            scores = dict(scores)  # a map of Parquet
        if not isinstance(scores, dict):
            raise self._wrong("labels are not scores", received, expected)
        names = [
            name
            for name, score in scores.items()
            if self._score(score, received) >= self._threshold
        ]
        self._check_names(names, received)
        return checked_labels(names, self._field, received)

    def _items(self, received: Any) -> list[Any]:
        """The numbers of a list, of a string, or alone."""
        expected = "a list of numbers"
        items = received
        if isinstance(received, str):
            if self._delimiter is not None:
                items = [item.strip() for item in received.split(self._delimiter)]
                return [_parsed_number(item) for item in items if item]
            items = self._parsed(received, "labels are not a list", expected)
        if isinstance(items, list):
            return _flat(items)
        if items is None:
            return []
        if isinstance(items, int | float | decimal.Decimal):
            return [items]
        raise self._wrong("labels are not a list", received, expected)

    def _score(self, value: Any, received: Any) -> float:
        """Null means 0, as sparse tables have it."""
        number = 0.0 if value is None else _number(value)
        if number is None:
            raise InvalidRow(
                NOT_A_NUMBER,
                f"{self._what(received)}, expected 0, 1 or a number between for each label",
            )
        return number

    def _parsed(self, text: str, reason: str, expected: str) -> Any:
        if not text.strip():
            return None
        try:
            return written_values.parse(text)
        except ValueError:
            raise self._wrong(reason, text, expected) from None

    def _check_names(self, names: Sequence[Any], received: Any) -> None:
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise self._wrong(
                "label is not a string", received, "a list of strings that are not empty"
            )

    def _check_not_written(self, received: str) -> None:
        """Brackets and quotes of a list are no part of a label, unless the format is stated."""
        if self._format is None and written_values.is_written(received):
            how = f"labels joined by {self._delimiter!r}" if self._delimiter else "one label"
            raise self._wrong("labels are a written list", received, how)

    def _wrong(
        self, reason: str, received: Any, expected: str, *, parsed: Any = None
    ) -> InvalidRow:
        guess = advice(received if parsed is None else parsed, self._field)
        return InvalidRow(reason, f"{self._what(received)}, expected {expected}{guess}")

    def _what(self, received: Any) -> str:
        return f"{self._field}: received {shown(received)}"


def advice(value: Any, field: str) -> str:
    """What to set where a label field holds such values; empty where nothing is known."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            parsed = written_values.parse(value)
            if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):
                return (
                    f"; if it is a list that was written into a string, set {_SETTING}: "
                    "written_list (names: take it as it is)"
                )
            if isinstance(parsed, list | dict | int | float):
                return advice(parsed, field)
        return '; for joined labels in a string set data.label_delimiter, such as "," or ";"'
    if isinstance(value, list):
        return _advice_for_list(value, field)
    if isinstance(value, dict):
        if all(_number(score) is not None or score is None for score in value.values()):
            return f"; for scores of labels set {_SETTING}: scores, with data.label_threshold"
        return f"; for a field within it set data.labels_field: {_path(field, value)}"
    if isinstance(value, int | float):
        return f"; for ids of labels set {_SETTING}: ids, with data.label_names for their names"
    return ""


def _advice_for_list(items: list[Any], field: str) -> str:
    if any(isinstance(item, dict) for item in items):
        first = next(item for item in items if isinstance(item, dict))
        scored = [name for name, item in first.items() if isinstance(item, float)]
        cut = f", with data.label_score_field: {field}.{scored[0]} for a cut" if scored else ""
        return f"; for a field of the objects set data.labels_field: {_path(field, first)}{cut}"
    if items and all(_number(item) is not None for item in items):
        ids = f"{_SETTING}: ids (names in data.label_names)"
        if set(items) <= {0, 1} and len(items) > 1:
            hot = f"{_SETTING}: multi_hot, with data.label_names"
            return f"; for 0 or 1 by position set {hot}; for ids of labels {ids}"
        return f"; for ids of labels set {ids}"
    if items and all(isinstance(item, str) for item in items):
        return "; for a list of strings leave data.label_format and data.label_delimiter out"
    return ""


def _path(field: str, value: dict) -> str:
    """A path to a string in an object, if there is one."""
    names = [name for name, item in value.items() if isinstance(item, str | list)] or list(value)
    return f"{field}.{names[0]}" if names else f"{field}.NAME"


def _flat(items: list[Any]) -> list[Any]:
    """Items of lists within lists, as paths through several lists give them."""
    if not any(isinstance(item, list) for item in items):
        return items
    return [
        inner for item in items for inner in (_flat(item) if isinstance(item, list) else [item])
    ]


def _parsed_number(text: str) -> float | int | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _number(value: Any) -> float | None:
    return number_of(value, is_text=False)
