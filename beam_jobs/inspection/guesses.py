"""Which column is what: text, labels, id, split, time; and why, in a few words."""

import dataclasses
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from beam_jobs.contract.errors import UserError
from beam_jobs.inspection import label_guesses
from beam_jobs.inspection.columns import Column
from beam_jobs.inspection.label_guesses import Labels

_TEXT = re.compile(
    r"(?:.*_)?(?:text|content|body|abstract|description|summary|document|message|comments?|review|"
    r"sentence|tweet|question|answer|post|article|passage|paragraph|utterance|query|note|notes|"
    r"full_?text|plot|lyrics|story|narrative|synopsis|caption)(?:_?\d|_en)?"
)
_TITLE = re.compile(r"(?:.*_)?(?:title|headline|subject|heading)s?")
_NO_TEXT = re.compile(
    r"(?:.*_)?(?:url|uri|link|path|file|filename|author|authors|user|username|email|e_mail|"
    r"address|date|time|language|lang|license|licence|hash|sha|ids?|key|uuid|guid|slug|location|"
    r"city|country|source|publisher|venue|journal|phone|zip)"
)
_ID = re.compile(r"_?id|(?:.*_)?(?:ids?|uuid|guid|key|slug|doi|pmid|number|no|nr|index)|unnamed:_0")
_SPLIT = re.compile(r"(?:.*_)?(?:split|set|subset|partition|fold|usage)")
_TIME = re.compile(
    r"(?:.*_)?(?:date|time|datetime|timestamp|created|published|updated|modified|posted|year|at|on)"
    r"(?:_.*)?"
)
_SPLIT_NAMES = {
    "train": ("train", "training", "trn", "tr", "learn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development", "eval"),
    "test": ("test", "testing", "tst", "heldout", "held-out"),
}
_MIN_WORDS = 3  # of a text, in the mean
_MIN_DISTINCT = 0.4  # of all rows: texts seldom come twice
_MANY_TITLES = 20  # more are no categories, even where they come back
_MAX_MISSING = 0.01  # of rows: a missing text makes a row a reject, of which few are allowed


@dataclasses.dataclass(frozen=True)
class Guess:
    """A column's purpose and the reason for it."""

    columns: tuple[str, ...]
    why: str


@dataclasses.dataclass(frozen=True)
class Guesses:
    """What the columns are; None: none looks like it.

    Attributes:
      text: those with text, in the order of the file.
      labels: those with labels.
      other_labels: what else may be the labels.
      id: the documents' ids.
      split: the split that each document is in.
      split_values: what that column calls the splits.
      time: when they were written.
      left_out: columns with text that many rows lack.
      metadata: columns of few values that are none of these.
    """

    text: Guess
    labels: Labels | None
    other_labels: tuple[Labels, ...]
    id: Guess | None
    split: Guess | None
    split_values: dict[str, list[str]]
    time: Guess | None
    left_out: Guess | None
    metadata: tuple[str, ...]


def guess(
    columns: Sequence[Column],
    *,
    all_strings: bool,
    text: Sequence[str] = (),
    labels: str | None = None,
) -> Guesses:
    """Guesses what columns are.

    Args:
      columns: of a sample.
      all_strings: every value is a string, and a missing one is an empty string, as in CSV.
      text: names of columns that are the text; empty: guessed.
      labels: the name of the column with the labels; None: guessed.

    Raises:
      UserError: no column has text, or a name is none of a column.
    """
    for flag, names in (("--text-field", text), ("--labels-field", [labels] if labels else [])):
        if missing := set(names) - {column.name for column in columns}:
            raise UserError(
                f"{flag}: there is no column {min(missing)!r}; the columns are "
                f"{', '.join(repr(column.name) for column in columns)}"
            )
    split, split_values = _split(columns)
    taken = {*text, *(split.columns if split else ())}
    identity = _id([column for column in columns if column.name not in taken])
    taken |= set(identity.columns if identity else ())
    free = [column for column in columns if column.name not in taken]
    found = label_guesses.candidates(free, all_strings=all_strings)
    if labels is not None:
        found = [label_guesses.named(columns, labels, all_strings=all_strings)]
    found = [each for each in found if each.score > 0 or labels is not None]
    chosen = found[0] if found else None
    taken |= set(chosen.columns if chosen else ())
    texts, left_out = _texts(
        [column for column in columns if column.name not in taken], all_strings=all_strings
    )
    if text:
        texts, left_out = Guess(tuple(text), "as --text-field says"), None
    if texts is None:
        raise _no_text(columns)
    taken |= set(texts.columns)
    rest = [column for column in columns if column.name not in taken]
    return Guesses(
        texts,
        chosen,
        tuple(each for each in found[1:] if not set(each.columns) & taken),
        identity if identity is None or not set(identity.columns) & set(texts.columns) else None,
        split,
        split_values,
        _time(rest),
        left_out,
        tuple(column.name for column in rest if _is_category(column)),
    )


def _no_text(columns: Sequence[Column]) -> UserError:
    those = ", ".join(f"{column.name!r} ({column.kind})" for column in columns)
    return UserError(
        f"no column looks like text: {those or 'there are none'}; expected one with strings of "
        "several words. Name it with --text-field COLUMN"
    )


# --- text ------------------------------------------------------------------------------


def _texts(columns: Sequence[Column], *, all_strings: bool) -> tuple[Guess | None, Guess | None]:
    """The columns with text, and those that are left out as many rows lack them."""
    likely = [column for column in columns if _is_text(column)]
    if not likely:
        others = [column for column in columns if _may_be_text(column)]
        likely = sorted(others, key=lambda column: -column.mean_characters)[:1]
    if not likely:
        return None, None
    # In CSV a blank field is an empty text, elsewhere a missing one makes the row a reject.
    whole = [column for column in likely if all_strings or 1 - column.filled <= _MAX_MISSING]
    if not whole:
        whole = [max(likely, key=lambda column: column.filled * column.mean_characters)]
    missing = tuple(column.name for column in likely if column not in whole)
    parts = ", ".join(_size(column) for column in whole)
    return (
        Guess(tuple(column.name for column in whole), f"free strings of {parts}"),
        Guess(missing, "text, but many rows have none and would be rejects") if missing else None,
    )


def _size(column: Column) -> str:
    if column.is_without_spaces:
        return f"{column.mean_characters:,.0f} characters"
    return f"{column.mean_words:,.0f} words" if column.mean_words >= 2 else "a word or two"


def _is_text(column: Column) -> bool:
    if not _may_be_text(column) or _NO_TEXT.fullmatch(column.word) or _is_templated(column):
        return False
    is_varied = column.distinct >= _MIN_DISTINCT * len(column.values)
    if _TEXT.fullmatch(column.word):
        return column.mean_words >= 1.2 and (is_varied or column.mean_words >= _MIN_WORDS)
    if _TITLE.fullmatch(column.word):
        return column.mean_words >= 1.2 and (is_varied or column.distinct > _MANY_TITLES)
    return column.mean_words >= _MIN_WORDS and is_varied


def _may_be_text(column: Column) -> bool:
    return (
        column.kind == "string"
        and (column.distinct > 1 or len(column.values) == 1)
        and (column.mean_words > 1 or bool(_TEXT.fullmatch(column.word)))
    )


def _is_templated(column: Column) -> bool:
    """Whether values differ in their numbers alone, such as `Ticket 17 of 2024`."""
    shapes = {re.sub(r"\d+", "0", value) for value in column.strings}
    has_numbers = sum(any(map(str.isdigit, value)) for value in column.strings)
    return (
        has_numbers == len(column.strings)
        and len(column.strings) > 3
        and len(shapes) <= max(1, len(column.strings) // 20)
    )


# --- id, split, time, metadata ---------------------------------------------------------


def _id(columns: Sequence[Column]) -> Guess | None:
    """A column that has a value in every row, which no other row has."""
    likely = [column for column in columns if _may_be_id(column)]
    by_name = [column for column in likely if _ID.fullmatch(column.word)]
    if by_name:
        column = min(by_name, key=lambda each: (len(each.word), columns.index(each)))
        return Guess((column.name,), "named like an id, and no value comes twice")
    for column in likely[:1]:
        if column is columns[0] and column.num_rows > 3:
            return Guess((column.name,), "no spaces, and no value comes twice")
    return None


def _may_be_id(column: Column) -> bool:
    if column.filled < 1 or column.distinct < column.num_rows or not column.values:
        return False
    if column.kind == "integer":
        return True
    if column.kind != "string" or column.mean_characters > 100 or column.is_without_spaces:
        return False
    has_spaces = any(re.search(r"\s", value.strip()) for value in column.strings)
    is_word = all(value.isalpha() for value in column.strings)  # a word is more likely text
    return _is_templated(column) or not (has_spaces or is_word)


def _split(columns: Sequence[Column]) -> tuple[Guess | None, dict[str, list[str]]]:
    for column in columns:
        values = list(column.counts)
        if column.kind != "string" or len(values) > 8 or column.filled < 1:
            continue
        found: dict[str, list[str]] = {}
        for value in values:
            for split, names in _SPLIT_NAMES.items():
                if value.strip().lower() in names:
                    found.setdefault(split, []).append(value)
        is_named = bool(_SPLIT.fullmatch(column.word))
        if sum(map(len, found.values())) == len(values) and (is_named or len(found) > 1):
            counts = ", ".join(f"{count:,} {value}" for value, count in column.counts.items())
            return Guess((column.name,), f"names splits: {counts}"), found
    return None, {}


def _time(columns: Sequence[Column]) -> Guess | None:
    for column in columns:
        if column.kind == "date" and column.filled == 1:
            return Guess((column.name,), f"dates such as {next(iter(column.counts))}")
    for column in columns:
        is_number = column.kind in ("integer", "number") and column.filled == 1
        if is_number and _TIME.fullmatch(column.word) and (unit := _unit(column)):
            first = next(iter(column.counts))
            return Guess((column.name,), f"numbers such as {first}; set time_format: {unit}")
    return None


def _unit(column: Column) -> str | None:
    """The unit in which numbers are times of the years 1980 to 2100."""
    low, high = (min(map(float, column.counts)), max(map(float, column.counts)))
    for unit, factor in (("seconds", 1), ("milliseconds", 1e3), ("microseconds", 1e6)):
        if 3.1e8 * factor <= low and high <= 4.1e9 * factor:
            return unit
    return None


def _is_category(column: Column) -> bool:
    """Whether evaluation could report each value on its own."""
    if column.kind not in ("string", "integer", "true/false"):
        return False
    return 2 <= column.distinct <= 20 and column.distinct < len(column.values) / 2


def file_splits(names: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split, where their names say so, such as `train.jsonl` and `dev.jsonl`."""
    return splits_named({name: posixpath.basename(name) for name in names})


def splits_named(names: Mapping[str, str]) -> dict[str, list[str]]:
    """The keys of each split by their names, each of which has the word for one split.

    Empty unless one is of the train split, another is not, and each is of one.
    """
    found: dict[str, list[str]] = {}
    for key, name in names.items():
        words = set(re.split(r"[^a-z]+", name.lower()))
        splits = [split for split, known in _SPLIT_NAMES.items() if words & set(known)]
        if len(splits) != 1:
            return {}
        found.setdefault(splits[0], []).append(key)
    return found if "train" in found and len(found) > 1 else {}


def are_splits(names: Iterable[str]) -> bool:
    """Whether names are those of splits alone."""
    known = {name for names_of_one in _SPLIT_NAMES.values() for name in names_of_one}
    return {name.lower() for name in names} <= known
