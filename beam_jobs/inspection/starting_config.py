"""A config to start from, written as YAML with a comment wherever something was guessed."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from beam_jobs.inspection.formats import Format
from beam_jobs.inspection.guesses import Guesses
from beam_jobs.inspection.table import cut, one_line

_MOST_INPUTS = 3  # named one by one, where a pattern names them too
_COMMENT = 90  # characters of a comment
_SMALL = 5_000  # documents: fewer are trained on in smaller batches
_FEW = 200  # documents: hardly a pair of tokens is in two of them
_LARGE = 100_000  # documents: of more, a hash leaves enough of each label in every split
_NO_VALIDATION = "without validation documents, thresholds are 0.5 and training does not stop early"
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_NO_STRINGS = {"true", "false", "null", "~", "yes", "no", "on", "off", ".inf", ".nan"}


@dataclasses.dataclass(frozen=True)
class Start:
    """What a config is written of.

    Attributes:
      found: the files' format.
      guesses: what their columns are; None: the source says it.
      num_documents: about how many there are.
      is_without_spaces: whether no spaces part the words of the text.
      file_splits: the files of each split; empty: their names do not say.
      have_headers: whether the texts begin with headers, as mails and posts do.
      reject_fraction: the share of the sample that cannot be used, with the reasons.
    """

    found: Format
    guesses: Guesses | None
    num_documents: int
    is_without_spaces: bool
    file_splits: Mapping[str, Sequence[str]]
    have_headers: bool = False
    reject_fraction: float = 0.0
    reject_reasons: str = ""


def write(start: Start, *, name: str, path: str) -> str:
    """The YAML text; `path` is the file's own, for the commands in its head."""
    sections = {
        "data": _data(start),
        "text": _text(start),
        "vocabulary": _vocabulary(start),
        "labels": [("min_count", _min_count(start), "a label on fewer documents is left out")],
        "splits": _splits(start),
        "train": _train(start),
    }
    lines = [
        "# Made by multihot-inspect from the first rows: check what the comments say was guessed.",
        "#",
        f"#   multihot-preprocess --config {path}",
        f"#   multihot-train      --config {path}",
        "#",
        "# `multihot-preprocess --list-keys` prints every key with its type, default and meaning.",
        f"name: {name} # out/{name}/ holds everything that the commands write",
    ]
    for section, entries in sections.items():
        if entries:
            lines += ["", f"{section}:", *(f"  {_line(*entry)}" for entry in entries)]
    return "\n".join(lines) + "\n"


Entry = tuple[str, Any, str]  # key, value, comment; `# KEY`: a suggestion; `#`: a comment alone


def _line(key: str, value: Any, comment: str) -> str:
    if key == "#":
        return f"# {one_line(comment)}"
    line = f"{key}: {yaml_value(value)}"
    return f"{line} # {cut(one_line(comment), _COMMENT)}" if comment else line


def yaml_value(value: Any) -> str:
    """A value in one line of YAML 1.2."""
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NO_STRINGS
        return value if is_plain else json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    return json.dumps(value)


# --- sections --------------------------------------------------------------------------


def _data(start: Start) -> list[Entry]:
    found = start.found
    entries: list[Entry] = [
        ("source", found.source, found.description if found.settings else ""),
        ("inputs", list(found.inputs), "seen from the working directory"),
    ]
    entries += [(key, value, found.reasons.get(key, "")) for key, value in found.settings.items()]
    if start.guesses is not None:
        entries += _columns(start.guesses)
    if start.have_headers:
        why = "the headers of posts and mails may give the label away"
        entries.append(("# remove", ["headers", "footers", "quotes"], why))
    if start.reject_fraction:
        limit = next(
            each
            for each in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
            if start.reject_fraction < each or each == 1.0
        )
        entries.append(
            (
                "max_reject_fraction",
                limit,
                f"{start.reject_fraction:.1%} of the rows read: {start.reject_reasons}",
            )
        )
    return entries


def _columns(guesses: Guesses) -> list[Entry]:
    entries: list[Entry] = []
    if guesses.id:
        entries.append(("id_field", guesses.id.columns[0], f"guessed: {guesses.id.why}"))
    several = "; several become one text" if len(guesses.text.columns) > 1 else ""
    entries.append(
        ("text_fields", list(guesses.text.columns), f"guessed: {guesses.text.why}{several}")
    )
    if guesses.left_out:
        entries.append(
            (
                "# text_fields",
                [*guesses.text.columns, *guesses.left_out.columns],
                guesses.left_out.why,
            )
        )
    if guesses.labels:
        comments = [f"guessed: {guesses.labels.why}", guesses.labels.note]
        for key, value in guesses.labels.settings.items():
            entries.append((key, value, comments.pop(0) if comments else ""))
        entries += [("#", None, comment) for comment in comments if comment]
        if guesses.labels.is_absent:
            entries.append(("missing_labels", "none", "guessed: without the field, no labels"))
        entries += [
            ("# labels_field", other.columns[0], f"or: {other.why}")
            for other in guesses.other_labels[:3]
            if len(other.columns) == 1
        ]
    if guesses.split:
        entries.append(("split_field", guesses.split.columns[0], f"guessed: {guesses.split.why}"))
    if guesses.time:
        why = f"{guesses.time.why}; for splits.method time_fractions"
        entries.append(("# time_field", guesses.time.columns[0], why))
    if guesses.metadata:
        why = "kept with the text: evaluation reports each value on its own"
        entries.append(("# metadata_fields", list(guesses.metadata), why))
    return entries


def _text(start: Start) -> list[Entry]:
    if start.is_without_spaces:
        return [("tokenizer", "character", "guessed: no spaces part the words of the text")]
    return []


def _vocabulary(start: Start) -> list[Entry]:
    entries: list[Entry] = []
    if start.is_without_spaces:
        entries.append(("ngrams", 2, "pairs of characters stand for words"))
        if start.num_documents < _FEW:
            entries.append(("min_document_count", 1, "few documents: pairs of one count too"))
    return entries


def _splits(start: Start) -> list[Entry]:
    guesses = start.guesses
    if guesses and guesses.split:
        return _column_splits(guesses)
    if start.file_splits:
        entries: list[Entry] = [("method", "files", "guessed: names of files say the split")]
        for split in ("validation", "test"):
            if files := start.file_splits.get(split):
                entries.append((split, list(files), ""))
        if "validation" not in start.file_splits:
            entries.append(("#", None, _NO_VALIDATION))
        return entries
    if start.num_documents < _LARGE:
        return [
            (
                "method",
                "stratified",
                "no split was found: a fraction of the documents of each label",
            )
        ]
    return [
        (
            "method",
            "hash",
            "no split was found; stratified: a fraction of the documents of each label",
        )
    ]


def _column_splits(guesses: Guesses) -> list[Entry]:
    entries: list[Entry] = [("method", "column", "as data.split_field says")]
    usual = {
        "train": ["train"],
        "validation": ["validation", "valid", "val", "dev"],
        "test": ["test"],
    }
    for split, names in usual.items():
        found = guesses.split_values.get(split, [])
        if set(found) - set(names):
            entries.append((split, found, ""))
    if len(guesses.split_values) == 1:
        entries.append(("#", None, "the rows read are all of one split; others should follow"))
    elif "validation" not in guesses.split_values:
        entries.append(("#", None, _NO_VALIDATION))
    return entries


def _train(start: Start) -> list[Entry]:
    if start.num_documents < _SMALL:
        return [("batch_size", 32, "small, as the files are: 256 is the default")]
    return []


def _min_count(start: Start) -> int:
    number = start.num_documents
    return 5 if number >= 1000 else 2 if number >= _FEW else 1


def short_inputs(inputs: Sequence[str]) -> tuple[str, ...]:
    """Many files that the shell has listed, as one pattern if it matches no others."""
    if len(inputs) <= _MOST_INPUTS:
        return tuple(inputs)
    first = os.path.commonprefix(list(inputs))
    last = os.path.commonprefix([path[::-1] for path in inputs])[::-1]
    directory = os.path.dirname(first)
    try:
        beside = [os.path.join(directory, name) for name in os.listdir(directory or ".")]
    except OSError:
        return tuple(inputs)
    matching = {path for path in beside if path.startswith(first) and path.endswith(last)}
    return (f"{first}*{last}",) if matching == set(inputs) else tuple(inputs)


def name_for(path: str) -> str:
    """A name for the experiment, of the characters that names have."""
    stem = os.path.basename(os.path.normpath(path)).partition(".")[0]
    stem = re.sub(r"[-_.]?\d+-of-\d+$|\*+", "", stem)  # of one of several parts
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    return name if re.match(r"[a-z]", name) else f"data_{name}".rstrip("_")
