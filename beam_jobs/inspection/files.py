"""Looks at files that are to become a dataset: what they hold, and a config to start from."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from beam_jobs.contract.config import Config, config_from_yaml
from beam_jobs.contract.errors import UserError
from beam_jobs.inspection import directory_names, starting_config
from beam_jobs.inspection.columns import Column, columns_of
from beam_jobs.inspection.formats import Format, recognise
from beam_jobs.inspection.guesses import Guesses, are_splits, file_splits, guess
from beam_jobs.inspection.sample import Documents, Sample, first_documents, read_sample
from beam_jobs.inspection.starting_config import Start
from beam_jobs.inspection.table import cut, one_line, table, terminal_width
from beam_jobs.runtime import file_systems
from beam_jobs.sources.documents import BLANK_LINE, Reject
from beam_jobs.sources.registry import make_reader

_TABLES = ("csv", "jsonl", "parquet", "arrow")
_MOST_COLUMNS = 40  # in the table
_FIXED_TEXTS = ("title", "body", "text")  # of sources that say themselves what is what


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
      lines: of what is told.
      yaml: the config to start from; None: there are no labels to learn.
      problem: why there is none; empty: there is one.
    """

    lines: list[str]
    yaml: str | None
    problem: str = ""


def inspect_files(
    paths: Sequence[str],
    *,
    rows: int,
    text: Sequence[str] = (),
    labels: str | None = None,
    config_path: str | None = None,
) -> Found:
    """Looks at the first rows of files.

    Args:
      paths: files, patterns, or one directory.
      rows: how many rows are read.
      text: columns with text; empty: guessed.
      labels: the column with labels; None: guessed.
      config_path: where the config will be; None: it is printed.

    Raises:
      UserError: a file is missing, empty or of no format that can be read, or has no text.
    """
    file_systems.configure(())
    found = recognise(starting_config.short_inputs(paths))
    if found.source == "lines":
        raise _no_source(found)
    sample = read_sample(found, rows)
    if not sample.rows:
        raise _no_rows(found, sample)
    columns = columns_of(sample.rows)
    width = terminal_width()
    lines = [cut(_summary(found, sample), 4 * width), ""]
    lines += [*table(columns, width=width, most=_MOST_COLUMNS), ""]
    if sample.names_twice:
        lines += [f"left out, as several columns have the name: {_listed(sample.names_twice)}"]
    guesses = None
    if found.source in _TABLES:
        try:
            guesses = guess(columns, all_strings=found.source == "csv", text=text, labels=labels)
        except UserError as error:
            return Found(lines, None, str(error))
        lines += [cut(line, 2 * width) for line in _told(guesses)]
        found, guesses = _with_good_names(found, guesses)
        if guesses.labels is None:
            return Found(lines, None, _no_labels(columns))
    start = _start(found, guesses, sample, columns)
    if found.source == "directories":
        start, told = _with_directories(start, sample)
        lines += told
    try:
        yaml, documents = _checked(start, rows, path=config_path, paths=paths)
    except UserError as error:
        return Found(lines, None, str(error))
    lines += ["", _outcome(documents)]
    return Found(lines, yaml)


# --- what is told ----------------------------------------------------------------------


def _summary(found: Format, sample: Sample) -> str:
    rows = _counted(len(sample.rows), "row")
    read = f"all {rows}"
    if not sample.is_whole:
        read = f"the first {len(sample.rows):,} of about {sample.num_documents:,} rows"
    files = f" of {len(sample.files):,} files" if len(sample.files) > 1 else ""
    name = ", ".join(found.inputs[:3]) + (", ..." if len(found.inputs) > 3 else "")
    return one_line(f"{name}: {found.description}; read {read}{files}")


def _told(guesses: Guesses) -> list[str]:
    """The guesses, a line each, with the reasons."""
    told = [("text", guesses.text.columns, guesses.text.why)]
    if guesses.left_out:
        told.append(("left out", guesses.left_out.columns, guesses.left_out.why))
    if guesses.labels:
        told.append(("labels", guesses.labels.columns, guesses.labels.why))
    told += [("or labels", other.columns, other.why) for other in guesses.other_labels[:3]]
    told += [
        (what, each.columns, each.why)
        for what, each in (("id", guesses.id), ("split", guesses.split), ("time", guesses.time))
        if each
    ]
    if guesses.metadata:
        told.append(("metadata", guesses.metadata, "few values: evaluation can report each"))
    size = max(len(what) for what, _, _ in told)
    return [
        f"{what.ljust(size)}  {one_line(f'{_listed(columns)}: {why}')}"
        for what, columns, why in told
    ]


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 8:,} more" if len(columns) > 8 else ""
    return ", ".join(columns[:8]) + more


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _outcome(documents: Documents) -> str:
    """What the job's reader makes of the sample with the config."""
    labels = Counter(label for each in documents.documents for label in each.labels)
    per_document = sum(labels.values()) / max(len(documents.documents), 1)
    without = sum(not each.labels for each in documents.documents)
    rejects = ""
    if documents.rejects:
        rejects = f"; {_counted(len(documents.rejects), 'reject')}: {_reasons(documents.rejects)}"
    return one_line(
        f"with this config these rows are {_counted(len(documents.documents), 'document')} with "
        f"{_counted(len(labels), 'label')}, {per_document:.1f} each, {without:,} without"
        f"{rejects}"
    )


def _reasons(rejects: Sequence[Reject]) -> str:
    """The most frequent reasons, with an example of the first."""
    reasons = Counter(reject.reason for reject in rejects).most_common(3)
    first = next(reject for reject in rejects if reject.reason == reasons[0][0])
    counted = ", ".join(f"{count:,} x {reason}" for reason, count in reasons)
    return f"{counted}; such as row {first.row:,} of {first.source}: {first.detail}"


# --- errors ----------------------------------------------------------------------------


def _no_source(found: Format) -> UserError:
    name = found.files[0].name
    return UserError(
        f"{name} looks like text with a document a line, which has no labels to learn; expected "
        "rows of columns, such as CSV with a delimiter in each line. Once there is a model, "
        "`multihot-bulk-predict --input` takes such a file"
    )


def _no_rows(found: Format, sample: Sample) -> UserError:
    name = ", ".join(found.inputs[:3])
    if sample.rejects:
        return UserError(f"{name}: no row can be read: {_reasons(sample.rejects)}")
    return UserError(f"{name} holds no rows; expected some")


def _no_labels(columns: Sequence[Column]) -> str:
    those = ", ".join(repr(column.name) for column in columns[:_MOST_COLUMNS])
    return (
        "no column looks like labels; expected a list, strings joined by a delimiter, one of a few "
        f"values, or columns of 0 and 1. Name it with --labels-field COLUMN, one of {those}"
    )


# --- the config ------------------------------------------------------------------------


def _with_good_names(found: Format, guesses: Guesses) -> tuple[Format, Guesses]:
    """Names for the columns of a file without a header, by what they are."""
    if "columns" not in found.settings:
        return found, guesses
    names = {}
    if len(guesses.text.columns) == 1:
        names[guesses.text.columns[0]] = "text"
    if guesses.labels and len(guesses.labels.columns) == 1:
        names[guesses.labels.columns[0]] = "labels"
    for word, each in (("id", guesses.id), ("split", guesses.split), ("time", guesses.time)):
        if each:
            names[each.columns[0]] = word

    def renamed(each):
        if each is None:
            return None
        return dataclasses.replace(each, columns=tuple(names.get(c, c) for c in each.columns))

    labels = renamed(guesses.labels)
    if labels and labels.settings.get("labels_field"):
        settings = labels.settings | {"labels_field": labels.columns[0]}
        labels = dataclasses.replace(labels, settings=settings)
    columns = tuple(names.get(name, name) for name in found.settings["columns"])
    found = dataclasses.replace(found, settings=found.settings | {"columns": columns})
    return found, dataclasses.replace(
        guesses,
        text=renamed(guesses.text),
        labels=labels,
        other_labels=tuple(map(renamed, guesses.other_labels)),
        id=renamed(guesses.id),
        split=renamed(guesses.split),
        time=renamed(guesses.time),
        left_out=renamed(guesses.left_out),
    )


def _start(
    found: Format, guesses: Guesses | None, sample: Sample, columns: Sequence[Column]
) -> Start:
    names = _FIXED_TEXTS if guesses is None else guesses.text.columns
    by_name = {column.name: column for column in columns}
    texts = [by_name[name] for name in names if name in by_name]
    return Start(
        found=found,
        guesses=guesses,
        num_documents=sample.num_documents,
        is_without_spaces=any(column.is_without_spaces for column in texts),
        file_splits=file_splits([file.name for file in found.files]),
    )


def _with_directories(start: Start, sample: Sample) -> tuple[Start, list[str]]:
    """What the names of directories add, and a line each of what they say.

    Raises:
      UserError: they are named after splits, not labels.
    """
    names = directory_names.names_of(sample.files)
    labels = directory_names.labels_of(names)
    if labels and are_splits(labels):
        raise UserError(
            f"{start.found.inputs[0]}: the directories with files are {', '.join(labels)}, which "
            "are splits; expected a directory per label, below those of splits"
        )
    splits = directory_names.splits_of(names)
    examples = " | ".join(label for label, _ in labels.most_common(4))
    more = f" and {len(labels) - 4:,} more" if len(labels) > 4 else ""
    told = [
        one_line(f"labels  directories of {_counted(len(names), 'file')}: {examples}{more}"),
        *(one_line(f"split   {split}: {', '.join(each)}") for split, each in splits.items()),
    ]
    texts = [str(row.get("text", "")) for row in sample.rows]
    have_headers = directory_names.have_headers(texts)
    return dataclasses.replace(
        start,
        num_documents=len(names),
        file_splits=splits or start.file_splits,
        have_headers=have_headers,
    ), told


def _checked(
    start: Start, rows: int, *, path: str | None, paths: Sequence[str]
) -> tuple[str, Documents]:
    """The config as YAML, and the documents that the job's reader makes of the sample with it."""
    name = starting_config.name_for(path or paths[0])
    shown_path = path or f"{name}.yaml"
    config = _config(start, name, shown_path)
    reader = make_reader(config.data)
    documents = first_documents(reader, reader.files(), rows)
    if not documents.documents:
        raise UserError(f"no row can be used: {_reasons(documents.rejects)}")
    rejects = [reject for reject in documents.rejects if reject.reason != BLANK_LINE]
    fraction = len(rejects) / (len(rejects) + len(documents.documents))
    if fraction > config.data.max_reject_fraction:
        reasons = ", ".join(dict.fromkeys(reject.reason for reject in rejects))
        start = dataclasses.replace(start, reject_fraction=fraction, reject_reasons=reasons)
    yaml = starting_config.write(start, name=name, path=shown_path)
    _parsed(yaml)
    return yaml, documents


def _config(start: Start, name: str, path: str) -> Config:
    return _parsed(starting_config.write(start, name=name, path=path))


def _parsed(yaml: str) -> Config:
    return config_from_yaml(yaml, what="the config to start from")
