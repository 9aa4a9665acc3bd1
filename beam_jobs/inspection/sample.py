"""The first rows of files, with all their fields, read by the readers that the job has."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.sections.data import (
    ArrowData,
    CsvData,
    DirectoriesData,
    FasttextData,
    JsonlData,
    ParquetData,
    StackExchangeData,
)
from beam_jobs.inspection.formats import Format, first_records
from beam_jobs.sources.arrow import ArrowReader
from beam_jobs.sources.delimited import CsvReader
from beam_jobs.sources.directories import DirectoriesReader
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.fields import Fields
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.jsonl import JsonlReader
from beam_jobs.sources.parquet import DAMAGE, ParquetReader
from beam_jobs.sources.registry import Reader, make_reader

MAX_FILES = 50  # of rows, of which some are read
MAX_CHARACTERS = 32 << 20  # 32 Mi characters: long documents end the sample
_MIN_ROWS = 20  # of each file, so that one whose rows differ is seen
_STACK_EXCHANGE_ATTRIBUTES = ("CreationDate", "Score", "ViewCount", "OwnerUserId")


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first rows.

    Attributes:
      rows: the fields of each.
      rejects: what is no row.
      is_whole: whether these are all rows.
      num_documents: about how many there are in all.
      files: the files they are of.
      names_twice: names of several columns, which are in no row.
    """

    rows: list[Mapping[str, Any]]
    rejects: list[Reject]
    is_whole: bool
    num_documents: int
    files: list[InputFile]
    names_twice: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Row(Document):
    """A row as it is, where a reader makes documents."""

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _AllFields(Fields):
    """Makes no documents of rows, but passes all their fields on."""

    def document(self, values: Mapping[str, Any], source: str, row: int) -> _Row:
        return _Row("", (), (), 1.0, source, row, values={**self.partition, **values})


def read_sample(found: Format, number: int) -> Sample:
    """The first `number` rows of files of a format.

    Raises:
      UserError: a file cannot be read.
    """
    reader, files = _reader(found)
    sample = first_documents(reader, files, number)
    twice = _names_twice(found)
    rows = [
        {name: value for name, value in _values(document).items() if name not in twice}
        for document in sample.documents
    ]
    number = len(rows)
    if not sample.is_whole:
        if found.source == "parquet":
            rows_of = (_of_end(found, file, lambda each: each.metadata.num_rows) for file in files)
            number = sum(rows_of)
        else:
            number = _estimate(sample, files)
    return Sample(rows, sample.rejects, sample.is_whole, number, files, twice)


def _estimate(sample: "Documents", files: Sequence[InputFile]) -> int:
    """About how many documents files hold, by the size of those read."""
    read = sum(len(str(value)) for row in sample.documents for value in _values(row).values())
    mean = read / max(len(sample.documents), 1)
    total = sum(file.plain_bytes for file in files)
    return max(len(sample.documents) + 1, int(total / max(mean, 1)))


@dataclasses.dataclass(frozen=True)
class Documents:
    """The first documents and rejects, and whether these are all."""

    documents: list[Document]
    rejects: list[Reject]
    is_whole: bool


def first_documents(reader: Reader, files: Sequence[InputFile], number: int) -> Documents:
    """The first documents of the files, about equally many of each."""
    are_documents = isinstance(reader, DirectoriesReader)
    most = number if are_documents else min(number, MAX_FILES)
    chosen = files[:: -(-len(files) // most)] if files else []
    of_each = max(_MIN_ROWS, -(-number // max(len(chosen), 1)))
    documents: list[Document] = []
    rejects: list[Reject] = []
    is_whole, characters = len(chosen) == len(files), 0
    for file in chosen:
        rows = reader.read(file)
        for row in itertools.islice(rows, of_each):
            (documents if isinstance(row, Document) else rejects).append(row)
            characters += sum(map(len, map(str, _values(row).values()))) + len(row.source)
            if characters > MAX_CHARACTERS:
                break
        is_whole = is_whole and next(rows, None) is None
        if len(documents) + len(rejects) >= number or characters > MAX_CHARACTERS:
            is_whole = is_whole and file is chosen[-1]
            break
    return Documents(documents, rejects, is_whole)


def _values(row: Document | Reject) -> Mapping[str, Any]:
    """The fields of a row; of a document its parts."""
    if isinstance(row, _Row):
        return row.values
    if isinstance(row, Reject):
        return {"content": row.content}
    names = ("title", "body") if len(row.texts) == 2 else ("text",)
    texts = dict(zip(names, row.texts, strict=True))
    if not row.metadata:
        return {**texts, "labels": list(row.labels)}
    metadata = dict(zip(_STACK_EXCHANGE_ATTRIBUTES, row.metadata, strict=True))
    return {**texts, "labels": list(row.labels), **metadata}


def _reader(found: Format) -> tuple[Reader, list[InputFile]]:
    inputs, files = found.inputs, list(found.files)
    if found.source == "csv":
        return _csv_reader(found), files
    if found.source == "jsonl":
        return JsonlReader(JsonlData(source="jsonl", inputs=inputs), _AllFields), files
    if found.source in ("parquet", "arrow"):
        twice = _names_twice(found)
        names = [name for name in _names(found) if name not in twice]
        if not names:
            raise _no_columns(found)
        return _columnar(found, names), files
    if found.source == "stack_exchange":
        reader = make_reader(
            StackExchangeData(
                source="stack_exchange",
                inputs=inputs,
                join_text_fields=False,
                metadata_fields=_STACK_EXCHANGE_ATTRIBUTES,
            )
        )
        return reader, files
    if found.source == "fasttext":
        return make_reader(FasttextData(source="fasttext", inputs=inputs)), files
    reader = make_reader(DirectoriesData(source="directories", inputs=inputs))
    return reader, reader.files()


def _csv_reader(found: Format) -> CsvReader:
    """Its config names a column that is there once, as the reader wants it."""
    twice = _names_twice(found)
    names = [name for name in _names(found) if name not in twice]
    if not names:
        raise _no_columns(found)
    data = CsvData(
        source="csv",
        inputs=found.inputs,
        text_fields=(names[0],),
        labels_field=None,
        **found.settings,
    )
    return CsvReader(data, _AllFields)


def _no_columns(found: Format) -> UserError:
    twice = ", ".join(map(shown, _names_twice(found)))
    return UserError(
        f"{found.files[0].name} has no columns of different names"
        + (f", several are named {twice}; rename them" if twice else "; expected some")
    )


def _names_twice(found: Format) -> tuple[str, ...]:
    names = _names(found)
    return tuple(dict.fromkeys(name for name in names if names.count(name) > 1))


def _names(found: Format) -> list[str]:
    """The columns of the first file that is not empty, where they have names of their own."""
    file = next((file for file in found.files if file.bytes), None)
    if file is None:
        return []
    if found.source == "csv":
        if columns := found.settings.get("columns"):
            return list(columns)
        return next(iter(first_records(file, found.settings)), [])
    if found.source not in ("parquet", "arrow"):
        return []
    return _of_end(found, file, lambda opened: opened.schema_arrow.names)


def _columnar(found: Format, names: Sequence[str] = ()) -> ParquetReader:
    """A reader of all the columns of that name."""
    kind, reader = (
        (ArrowData, ArrowReader) if found.source == "arrow" else (ParquetData, ParquetReader)
    )
    data = kind(
        source=found.source,
        inputs=found.inputs,
        text_fields=tuple(names[:1]) or ("text",),
        labels_field=None,
        metadata_fields=tuple(names[1:]),
    )
    return reader(data, _AllFields)


def _of_end(found: Format, file: InputFile, ask: Callable[[Any], Any]) -> Any:
    """What a file of columns says of itself."""
    reader = _columnar(found)
    try:
        with reader.open(file) as opened:
            return ask(opened)
    except DAMAGE as error:
        raise UserError(f"{file.name} is not a whole {reader.kind} file: {error}") from None
