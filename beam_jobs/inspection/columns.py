"""What the columns of a sample hold: types, how many are filled, distinct values, words."""

import dataclasses
import datetime
import decimal
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_jobs.sources import written_values

MAX_DEPTH = 8  # of objects in objects
_NO_SPACES = re.compile(  # scripts that are written without spaces between words
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f]"
)
_CHARACTERS_OF_A_WORD = 2  # in such scripts, about
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?:[T ]\d\d?:\d\d.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")


@dataclasses.dataclass(frozen=True)
class Column:
    """The values of a field, or of a nested one by its dotted path, in the rows of a sample.

    Attributes:
      name: its path.
      values: its values, without those that are missing, null or blank.
      num_rows: the rows of the sample.
      num_absent: rows that do not have the field.
    """

    name: str
    values: Sequence[Any]
    num_rows: int
    num_absent: int

    @property
    def word(self) -> str:
        """The last part of its name in snake case, by which a purpose is guessed."""
        last = self.name.rpartition(".")[2].strip()
        return re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.-]+", "_", last).lower()

    @property
    def filled(self) -> float:
        """The share of rows that have a value."""
        return len(self.values) / max(self.num_rows, 1)

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """How often each value is there, as a string, in the order of the rows."""
        counts: dict[str, int] = {}
        for value in self.values:
            text = value if isinstance(value, str) else as_text(value)
            counts[text] = counts.get(text, 0) + 1
        return counts

    @property
    def distinct(self) -> int:
        return len(self.counts)

    @functools.cached_property
    def kind(self) -> str:
        """Its type in words; of strings, what is written in them."""
        kinds = {_kind(value) for value in self.values}
        if kinds == {"integer", "number"}:
            return "number"
        if len(kinds) != 1:
            return "mixed" if kinds else "empty"
        (kind,) = kinds
        if kind == "string":
            return _written_kind(self.values)
        if kind == "list":
            return f"list of {_items_kind(self.values)}"
        return kind

    @functools.cached_property
    def mean_words(self) -> float:
        """Words of a value; where no spaces part them, about."""
        return sum(map(num_words, self.strings)) / max(len(self.values), 1)

    @functools.cached_property
    def mean_characters(self) -> float:
        return sum(map(len, self.strings)) / max(len(self.values), 1)

    @property
    def is_without_spaces(self) -> bool:
        """Whether most letters are of scripts that part words by no spaces."""
        if sum("\u200b" in value for value in self.strings) > len(self.strings) / 2:
            return False  # which parts words where no space does
        found = sum(len(_NO_SPACES.findall(value)) for value in self.strings)
        return found > sum(map(len, self.strings)) / 2

    @property
    def strings(self) -> list[str]:
        return [value for value in self.values if isinstance(value, str)]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns of rows, in the order in which they first occur; nested ones by their paths."""
    return _columns(rows, "", len(rows), 0)


def _columns(rows: Sequence[Any], prefix: str, num_rows: int, depth: int) -> list[Column]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = []
    for name in names:
        values = [row[name] for row in rows if name in row]
        path, filled = f"{prefix}{name}", [value for value in values if not _is_blank(value)]
        if depth < MAX_DEPTH and _are_objects(filled):
            columns += _columns(filled, f"{path}.", num_rows, depth + 1)
        elif depth < MAX_DEPTH and _are_lists_of_objects(filled):
            keys = dict.fromkeys(key for value in filled for item in value for key in item)
            inner = [{key: [item.get(key) for item in value] for key in keys} for value in filled]
            columns += _columns(inner, f"{path}.", num_rows, depth + 1)
        else:
            columns.append(Column(path, filled, num_rows, num_rows - len(values)))
    return columns


def _are_objects(values: Sequence[Any]) -> bool:
    """Whether all are objects with fields; those that give names scores are values."""
    return (
        bool(values) and all(isinstance(value, dict) for value in values) and not are_scores(values)
    )


def _are_lists_of_objects(values: Sequence[Any]) -> bool:
    items = [item for value in values if isinstance(value, list) for item in value]
    return (
        bool(items)
        and all(isinstance(value, list) for value in values)
        and all(isinstance(item, dict) for item in items)
    )


def are_scores(values: Iterable[Any]) -> bool:
    """Whether all are objects that give names a score from 0 to 1, or true and false."""
    values = list(values)
    scores = [value for each in values for value in each.values() if value is not None]
    names = {name for each in values for name in each}
    return (
        bool(scores)
        and len(names) > 1
        and all(
            isinstance(score, bool | int | float | decimal.Decimal) and 0 <= score <= 1
            for score in scores
        )
    )


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float | decimal.Decimal):
        return "number"
    if isinstance(value, datetime.date):
        return "date"
    if isinstance(value, str | list):
        return "string" if isinstance(value, str) else "list"
    return "object" if isinstance(value, dict) else type(value).__name__


def _items_kind(values: Iterable[Sequence[Any]]) -> str:
    kinds = {_kind(item) for value in values for item in value if item is not None}
    if kinds == {"integer", "number"}:
        return "numbers"
    if len(kinds) != 1:
        return "mixed values" if kinds else "nothing"
    (kind,) = kinds
    return kind if kind == "true/false" else f"{kind}s"


def _written_kind(values: Sequence[str]) -> str:
    """What strings say: numbers, dates, or lists as JSON or Python writes them."""
    if all(re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value) for value in values):
        return "integer"
    if all(is_number(value) for value in values):
        return "number"
    if {value.strip().lower() for value in values} <= {"true", "false"}:
        return "true/false"
    if all(_DATE.fullmatch(value.strip()) for value in values):
        return "date"
    if all(value.strip()[:1] in "[({" for value in values):
        found = [written(value) for value in values]
        if all(isinstance(each, list) for each in found):
            return f"written list of {_items_kind(found)}"
        if all(isinstance(each, dict) for each in found) and are_scores(found):
            return "written object"
    return "string"


def written(text: str) -> Any:
    """The list or object that a string writes out, as the job reads it; None where it is none."""
    try:
        value = written_values.parse(text)
    except ValueError:
        return None
    return value if isinstance(value, list | dict) else None


def is_number(text: str) -> bool:
    """Whether a text is a number in Python's notation."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def num_words(text: str) -> int:
    """Words between spaces, and those of scripts without spaces, about."""
    unspaced = len(_NO_SPACES.findall(text)) if not text.isascii() else 0
    return len(text.split()) + unspaced // _CHARACTERS_OF_A_WORD


def as_text(value: Any) -> str:
    """A value as it is shown: strings as they are, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
