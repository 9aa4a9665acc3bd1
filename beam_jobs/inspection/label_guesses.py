"""Which columns may hold labels, and how: lists, joined or written ones, ids, scores, columns."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from beam_jobs.inspection.columns import Column, are_scores, written

_LABEL_WORDS = re.compile(
    r"(?:.*_)?(?:labels?|tags?|categor(?:y|ies)|class(?:es)?|topics?|genres?|subjects?|keywords?|"
    r"targets?|emotions?|sentiments?|intents?|codes?|annotations?|themes?|descriptors?|mesh|"
    r"departments?|areas?)(?:_(?:names?|ids?|list|codes?))?(?:_?\d)?"
)
_FIRST_WORDS = re.compile(r"labels?|tags?|categories|classes|topics|genres|targets?")
_NO_LABELS = re.compile(
    r"(?:.*_)?(?:tokens?|words|sentences|authors?|references|urls?|links?|images?|embeddings?|"
    r"vectors?|features|ids?|dates?|versions?|languages?|lang|splits?|sources?|scores?)"
)
_DELIMITERS = {";": "semicolons", "|": "vertical bars", ",": "commas", "/": "slashes"}
_DELIMITERS |= {"\n": "line breaks", "\t": "tabs", " ": "spaces"}
_IN_NAMES = ",/ "  # delimiters that names hold too
_BOOLEANS = {"true": "1", "false": "0"}
_MAX_WORDS = 6  # of a label
_MANY_COLUMNS = 12  # of labels, of which a pattern is easier to read than a list
_MAX_SINGLE = 200  # different values of a column with one label each


@dataclasses.dataclass(frozen=True)
class Labels:
    """Columns that may hold the labels.

    Attributes:
      columns: their names; several have a label each.
      settings: the keys of `data` that read them.
      why: what they look like, in words.
      score: how likely they are the labels.
      note: what to know of the settings; empty: nothing.
      is_absent: whether rows lack the field.
    """

    columns: tuple[str, ...]
    settings: dict[str, Any]
    why: str
    score: float
    note: str = ""
    is_absent: bool = False


def candidates(columns: Sequence[Column], *, all_strings: bool) -> list[Labels]:
    """What may be the labels, the likeliest first; `all_strings`: as CSV has it."""
    found = [
        dataclasses.replace(labels, is_absent=column.num_absent > 0)
        for column in columns
        if column.values and (labels := _of_column(column, all_strings=all_strings))
    ]
    found += _of_several(columns)
    return sorted(found, key=lambda labels: -labels.score)


def named(columns: Sequence[Column], name: str, *, all_strings: bool) -> Labels:
    """The labels of a column that the user names."""
    column = next(column for column in columns if column.name == name)
    labels = _of_column(column, all_strings=all_strings, is_named=True)
    labels = labels or _single(column, all_strings=all_strings, score=0.0)
    is_absent = column.num_absent > 0
    return dataclasses.replace(
        labels, is_absent=is_absent, why=f"{labels.why}, as --labels-field says"
    )


def _of_column(column: Column, *, all_strings: bool, is_named: bool = False) -> Labels | None:
    by_name = _score_of_name(column)
    if column.kind.startswith("list of "):
        return _list(column, column.values, by_name)
    if column.kind.startswith("written list of "):
        return _written(column, by_name)
    if column.kind in ("object", "written object"):
        objects = [written(each) if isinstance(each, str) else each for each in column.values]
        if not are_scores(objects):
            return None
        names = Counter(name for value in objects for name in value)
        return Labels(
            (column.name,),
            {"labels_field": column.name, "label_format": "scores"},
            f"names with scores, {_examples(names)}",
            by_name + 3,
            "label_threshold, 0.5, is the score from which on a document has a label",
        )
    if column.kind == "string" and (joined := _joined(column, by_name, is_named=is_named)):
        return joined
    is_label = is_named or by_name > 0
    if column.kind in ("integer", "true/false", "number"):
        few = column.kind != "number" and 2 <= column.distinct <= _MAX_SINGLE
        return (
            _single(column, all_strings=all_strings, score=by_name + 0.5)
            if is_label and few
            else None
        )
    if column.kind == "string":
        few = 2 <= column.distinct <= min(_MAX_SINGLE, len(column.values) * 0.6)
        is_short = column.mean_words <= _MAX_WORDS
        if is_short and (few or is_label):
            return _single(column, all_strings=all_strings, score=by_name + (1 if few else 0.5))
    return None


def _score_of_name(column: Column) -> float:
    """How much a column's name, or that of an object it is in, sounds like labels."""
    if _FIRST_WORDS.fullmatch(column.word):
        return 3
    if _LABEL_WORDS.fullmatch(column.word):
        return 2
    if _NO_LABELS.fullmatch(column.word) and "." not in column.name:
        return -3
    parents = re.split(r"\.", column.name.lower())[:-1]
    return 1.5 if any(_LABEL_WORDS.fullmatch(parent) for parent in parents) else 0


# --- lists -----------------------------------------------------------------------------


def _list(column: Column, lists: Sequence[Sequence[Any]], by_name: float) -> Labels | None:
    items = Counter(str(item) for each in lists for item in each if item is not None)
    total = sum(items.values())
    settings: dict[str, Any] = {"labels_field": column.name}
    if column.kind.endswith("list of strings"):
        reuse = 1 - len(items) / max(total, 1)
        score = by_name + 2 + reuse - (3 if total > 100 * len(lists) else 0)
        return Labels((column.name,), settings, f"a list of strings: {_examples(items)}", score)
    if not column.kind.endswith(("list of integers", "list of true/false", "list of numbers")):
        return None
    if column.kind.endswith("numbers") and by_name <= 0:
        return None
    sizes = {len(each) for each in lists}
    if (
        len(sizes) == 1
        and sizes != {1}
        and all(0 <= float(item) <= 1 for item in items if _is_float(item))
    ):
        (size,) = sizes
        return Labels(
            (column.name,),
            settings
            | {"label_format": "multi_hot", "label_names": [f"label_{i}" for i in range(size)]},
            f"lists of {size:,} zeros and ones, one a label",
            by_name + 2,
            "put the labels' names here, in the order of the positions, or the path of a file",
        )
    return Labels(
        (column.name,),
        settings | {"label_format": "ids"},
        f"lists of ids: {_examples(items)}",
        by_name + 1,
        "label_names, a list or a file with a line each, gives names to the ids, from 0",
    )


def _is_float(item: str) -> bool:
    return item not in ("True", "False")


def _written(column: Column, by_name: float) -> Labels | None:
    lists = [written(value) or [] for value in column.values]
    labels = _list(column, lists, by_name)
    if labels is None or labels.settings.get("label_format"):
        return labels
    return dataclasses.replace(
        labels,
        settings=labels.settings | {"label_format": "written_list"},
        why=f"lists that are written out as text: {labels.why.partition(': ')[2]}",
    )


# --- strings ---------------------------------------------------------------------------


def _joined(column: Column, by_name: float, *, is_named: bool) -> Labels | None:
    """Labels that a delimiter joins: their parts are short, and come back in other rows."""
    best: Labels | None = None
    for delimiter, word in _DELIMITERS.items():
        rows = [_parts(value, delimiter) for value in column.strings]
        several = sum(len(parts) > 1 for parts in rows) / len(rows)
        items = Counter(part for parts in rows for part in parts)
        total = sum(items.values())
        if not total or several < (0.3 if delimiter == " " else 0.02):
            continue
        if max(map(len, items)) > 100 or _mean_words(items) > _MAX_WORDS:
            continue
        reuse = 1 - len(items) / total
        reuse_of_whole = 1 - column.distinct / len(column.values)
        is_one_name = column.distinct < min(len(items), len(column.values) / 2)
        if delimiter in _IN_NAMES and is_one_name:
            continue  # such as `Law, civil`, in many rows
        if delimiter == " " and best:
            continue
        if delimiter == " " and (by_name < 2 or reuse < 0.5) and not is_named:
            continue  # words of a language come back too
        is_likely = reuse >= (0.3 if by_name > 0 or is_named else 0.5)
        if (is_likely or (by_name >= 2 and several > 0.3)) and reuse >= reuse_of_whole:
            score = by_name + 1.5 + reuse + several / 2
            if best is None or score > best.score + 0.1:
                shown = "\\n" if delimiter == "\n" else delimiter
                best = Labels(
                    (column.name,),
                    {"labels_field": column.name, "label_delimiter": delimiter},
                    f"strings joined by {word} ({shown!r}): {_examples(items)}"
                    if delimiter.strip()
                    else f"strings joined by {word}: {_examples(items)}",
                    score,
                )
    return best


def _parts(value: str, delimiter: str) -> list[str]:
    return [part.strip() for part in value.split(delimiter) if part.strip()]


def _mean_words(items: Counter[str]) -> float:
    return sum(len(item.split()) * count for item, count in items.items()) / sum(items.values())


def _single(column: Column, *, all_strings: bool, score: float) -> Labels:
    """One label a row."""
    settings: dict[str, Any] = {"labels_field": column.name}
    why = f"one of {column.distinct:,} values a row: {_examples(Counter(column.counts))}"
    note = ""
    is_string = all(isinstance(value, str) for value in column.values)
    if column.kind == "integer":
        settings["label_format"] = "ids"
        note = "label_names, a list or a file with a line each, gives names to the ids, from 0"
    elif not all_strings and is_string:
        settings["label_delimiter"] = "\n"
        note = "no label holds a line break, so that the string is one label"
    return Labels((column.name,), settings, why, score, note)


# --- several columns -------------------------------------------------------------------


def _of_several(columns: Sequence[Column]) -> Iterator[Labels]:
    """Columns of 0 and 1, or of scores, each named after its label."""
    binary = [column for column in columns if _is_binary(column)]
    if len(binary) > 1 and any("1" in _numbers(column) for column in binary):
        score = 2 + (len(binary) > 2)
        yield _columns_labels(columns, binary, "a column of 0 and 1 for each label", score)
    scored = [column for column in columns if _is_binary(column) or _is_score(column)]
    if len(scored) > len(binary) and len(scored) > 2:
        yield _columns_labels(columns, scored, "a column of scores from 0 to 1 for each label", 2.5)


def _columns_labels(
    columns: Sequence[Column], of_labels: Sequence[Column], what: str, score: float
) -> Labels:
    names = tuple(column.name for column in of_labels)
    more = f" and {len(names) - 4:,} more" if len(names) > 4 else ""
    shown = " | ".join(names[:4])
    return Labels(
        names,
        {"labels_field": None, "label_columns": _pattern(columns, names) or list(names)},
        f"{what}: {shown}{more}",
        score,
    )


def _pattern(columns: Sequence[Column], names: Sequence[str]) -> list[str] | None:
    """A pattern that many names match and no other column; None: they are few, or too unlike."""
    prefix = os.path.commonprefix(names).rstrip("0123456789")
    others = {column.name for column in columns}.difference(names)
    is_own = len(prefix) > 1 and not any(name.startswith(prefix) for name in others)
    is_plain = not any(character in prefix for character in "*?[.")  # a dot: within objects
    return [f"{prefix}*"] if len(names) >= _MANY_COLUMNS and is_own and is_plain else None


def _numbers(column: Column) -> set[str]:
    return {_BOOLEANS.get(text.strip().lower(), text) for text in column.counts}


def _is_binary(column: Column) -> bool:
    if column.kind not in ("integer", "true/false", "number") or column.distinct > 4:
        return False
    return _numbers(column) <= {"0", "1", "0.0", "1.0"} and not _NO_LABELS.fullmatch(column.word)


def _is_score(column: Column) -> bool:
    return (
        column.kind == "number"
        and not _NO_LABELS.fullmatch(column.word)
        and all(0 <= float(text) <= 1 for text in column.counts)
    )


def _examples(items: Counter[str]) -> str:
    """The most frequent names."""
    names = [name for name, _ in items.most_common(4)]
    more = f" and {len(items) - 4:,} more" if len(items) > 4 else ""
    return " | ".join(names) + more
