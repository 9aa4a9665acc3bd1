"""Parquet files: batches of the columns that the config names."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import ArrowData, ParquetData
from beam_jobs.sources import label_arrays, label_columns, label_names, paths, streams
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.fields import (
    Fields,
    FirstLabels,
    check_columns,
    check_columns_once,
    columns_read,
    decode,
    too_long,
)
from beam_jobs.sources.input_files import InputFile, match_files
from beam_jobs.sources.invalid_row import InvalidRow
from beam_jobs.sources.label_arrays import LabelArrays
from beam_jobs.sources.label_values import advice

BATCH_ROWS = 256
Labels = tuple[str, ...] | InvalidRow
# UnicodeDecodeError: of the name of a column
DAMAGE = (*streams.DAMAGE, pa.ArrowException, UnicodeDecodeError)


@dataclasses.dataclass(frozen=True)
class ParquetReader:
    """One document per row; its number is its index in the file, from 1."""

    data: ParquetData | ArrowData
    fields: type[Fields] = Fields  # what makes documents of its rows
    kind: ClassVar[str] = "Parquet"

    def files(self) -> list[InputFile]:
        files, names_of_ids = [], {}
        for file in self.matched():
            try:
                with self.open(file) as opened:
                    schema, plain_bytes = opened.schema_arrow, self._plain_bytes(opened, file)
                    names, nested = schema.names, list(paths.nested_names_of_type(schema))
            except DAMAGE as error:
                raise UserError(
                    f"data.inputs: {file.name} ({file.bytes:,} bytes) is not a whole {self.kind} "
                    f"file: {error}{streams.packing(file.path)}"
                ) from None
            check_columns(self.data, [*names, *dict(file.partition)], file.name, nested=nested)
            check_columns_once(self.data, names, file.name)
            self._check_types(schema, file)
            names_of_ids[file.name] = self._label_names(opened)
            files.append(dataclasses.replace(file, expansion=plain_bytes / max(1, file.bytes)))
        self._check_names_of_all(names_of_ids)
        if files and not self.data.label_columns:
            self._check_first_labels(files[0], names_of_ids[files[0].name])
        return files

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        row = 0
        try:
            with self.open(file) as parquet:
                fields = self.fields(
                    self.data,
                    partition=dict(file.partition),
                    label_names=self._label_names(parquet),
                )
                for row, values, labels in self._rows(parquet, file):
                    try:
                        if isinstance(values, InvalidRow):
                            raise values
                        known = {} if labels is None else {"labels": labels}
                        document = fields.document(values, file.name, row, **known)
                        if sum(map(len, document.texts)) > self.data.max_row_bytes:
                            raise too_long(self.data.max_row_bytes)
                        yield document
                    except InvalidRow as error:
                        yield error.reject(
                            file.name, row, "" if isinstance(values, InvalidRow) else str(values)
                        )
        except DAMAGE as error:
            yield streams.unreadable(file, row + 1, error)

    def matched(self) -> list[InputFile]:
        """The files, before it is known whether they hold what the config names."""
        return match_files(self.data.inputs, unit="row group")

    @contextlib.contextmanager
    def open(self, file: InputFile) -> Iterator[pq.ParquetFile]:
        """The open file; raises one of DAMAGE, here or while it is read."""
        with (
            FileSystems.open(file.path, compression_type="uncompressed") as stream,
            pq.ParquetFile(stream) as parquet,
        ):
            yield parquet

    def _plain_bytes(self, parquet: pq.ParquetFile, file: InputFile) -> int:
        """Bytes of the columns that are read when they are decompressed."""
        return _plain_bytes(parquet.metadata, self._columns(parquet, parquet.schema_arrow))

    def _rows(
        self, parquet: pq.ParquetFile, file: InputFile
    ) -> Iterator[tuple[int, dict[str, Any] | InvalidRow, Labels | None]]:
        """(number, fields, labels) of the rows that begin in the file's range; the labels are None
        where the fields have them.
        """
        row, schema = 0, parquet.schema_arrow
        columns, arrays = self._columns(parquet, schema), self._label_arrays(schema)
        for i in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(i)
            if file.start <= _first_byte(group) and (
                file.end is None or _first_byte(group) < file.end
            ):
                number = row
                rows = _rows_of_group(parquet, i, columns, schema, arrays)
                for number, (values, labels) in enumerate(rows, start=row + 1):
                    yield number, values, labels
                if number != row + group.num_rows:
                    raise EOFError(
                        f"a row group has {number - row:,} rows, expected {group.num_rows:,}"
                    )
            row += group.num_rows

    def _columns(self, parquet: pq.ParquetFile, schema: pa.Schema) -> list[str]:
        """The columns to read: fields of structs by their paths, those in lists with all of it."""
        names = schema.names
        known, wanted, readable = set(names), self._names_read(names), set()
        if not known.issuperset(wanted):
            leaves = (parquet.schema.column(i).path for i in range(len(parquet.schema)))
            readable = {prefix for path in leaves for prefix in paths.prefixes(path)}
        return list(
            dict.fromkeys(
                name if name in known or name in readable else paths.top_name(names, name)
                for name in wanted
            )
        )

    def _names_read(self, columns: Sequence[str]) -> list[str]:
        """The fields that the config names, with the columns of its patterns."""
        patterns = set(filter(label_columns.is_pattern, self.data.label_columns)) - set(columns)
        names = [name for name in columns_read(self.data) if name not in patterns]
        return names + label_columns.select(self.data, columns)

    def _label_arrays(self, schema: pa.Schema) -> LabelArrays | None:
        """What reads the columns of labels; None: there are none, or some are in others."""
        names = set(schema.names)
        are_columns = all(map(label_columns.is_pattern, set(self.data.label_columns) - names))
        if not self.data.label_columns or not are_columns:
            return None
        selected = label_columns.select(self.data, schema.names)
        return LabelArrays(selected, self.data.label_threshold)

    def _check_types(self, schema: pa.Schema, file: InputFile) -> None:
        """Raises UserError for types of which no row could be a document, before any work."""
        wanted = [(name, _is_string, "a string") for name in self.data.text_fields]
        if self.data.labels_field is not None and not self.data.label_columns:
            wanted.append((self.data.labels_field, *_type_of_labels(self.data)))
            if self.data.label_score_field is not None:
                wanted.append((self.data.label_score_field, _is_numbers_or_string, "scores"))
        self._check_label_columns(schema, file)
        for name, is_wanted, what in wanted:
            kind = paths.type_of(schema, name)
            if kind is None:  # what the path says
                continue
            if not is_wanted(kind) and not pa.types.is_null(kind):
                found = self._first_value(file, name)
                hint = advice(found, name) if name == self.data.labels_field else ""
                raise UserError(
                    f"{file.name}: column {name!r} has the type {kind}, expected {what}{hint}"
                )

    def _check_label_columns(self, schema: pa.Schema, file: InputFile) -> None:
        """Raises UserError if one holds no numbers."""
        for name in label_columns.select(self.data, schema.names):
            kind = schema.field(name).type
            if not label_arrays.is_numeric(kind):
                raise UserError(
                    f"{file.name}: column {name!r} has the type {kind}, expected numbers or "
                    "booleans, as data.label_columns has it; leave it out, or name it with another "
                    "key"
                )

    def _first_value(self, file: InputFile, name: str) -> Any:
        """The first value of a field that is not null in the first rows."""
        values = (paths.find(row, name) for row in self._first_rows(file))
        return next((value for value in values if value is not None), None)

    def _check_first_labels(self, file: InputFile, names_of_ids: tuple[str, ...] | None) -> None:
        """Raises UserError if the labels of a file's first rows are in another format."""
        labels = FirstLabels(
            Fields(self.data, partition=dict(file.partition), label_names=names_of_ids)
        )
        for values in self._first_rows(file):
            labels.see(values)
        labels.check(file.name)

    def _label_names(self, opened: Any) -> tuple[str, ...] | None:
        """Those that a file's schema has for ids, unless the config names them."""
        if self.data.label_format != "ids" or self.data.label_names is not None:
            return None
        return label_names.of_schema(opened.schema_arrow.metadata, self.data.labels_field or "")

    def _check_names_of_all(self, names_of_ids: Mapping[str, tuple[str, ...] | None]) -> None:
        """Raises UserError if ids are names in some files and have names in others."""
        without = [file for file, names in names_of_ids.items() if names is None]
        if without and len(without) < len(names_of_ids):
            raise UserError(
                f"{without[0]}: its schema has no names for the ids of {self.data.labels_field!r}, "
                "and those of other files have; set data.label_names"
            )

    def _first_rows(self, file: InputFile) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(*DAMAGE), self.open(file) as parquet:
            for _, values, _ in itertools.islice(self._rows(parquet, file), BATCH_ROWS):
                if isinstance(values, dict):
                    yield values


def _type_of_labels(data: ParquetData | ArrowData) -> tuple[Callable[[pa.DataType], bool], str]:
    """Whether a type may hold labels in the config's format, and what would, in words."""
    if data.label_format == "written_list":
        return _is_string, "a string with a list in it"
    if data.label_format == "scores":
        return _is_object_or_string, "a struct or map of scores, or a string with one in it"
    if data.label_format in ("ids", "multi_hot"):
        return _is_numbers_or_string, "a list of numbers, or a string with one in it"
    if data.label_delimiter is not None:
        return _is_string, "a string, as data.label_delimiter is set"
    return _is_list_of_strings, "a list of strings"


def _plain_bytes(metadata: pq.FileMetaData, columns: Collection[str]) -> int:
    """Bytes of the columns when they are decompressed."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(j) for group in groups for j in range(group.num_columns))
    columns = set(columns)
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any(prefix in columns for prefix in paths.prefixes(chunk.path_in_schema))
    )


def _first_byte(group: pq.RowGroupMetaData) -> int:
    return min(
        group.column(0).dictionary_page_offset or group.column(0).data_page_offset,
        group.column(0).data_page_offset,
    )


def _is_string(kind: pa.DataType) -> bool:
    """Also for bytes, which some writers give the type binary although they are UTF-8."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or _is_binary(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_list_of_strings(kind: pa.DataType) -> bool:
    """Also for lists of them, to which a path through several lists leads."""
    if not paths.is_list(kind):
        return False
    inner = kind.value_type
    return _is_string(inner) or pa.types.is_null(inner) or _is_list_of_strings(inner)


def _is_numbers_or_string(kind: pa.DataType) -> bool:
    while paths.is_list(kind):
        kind = kind.value_type
    return label_arrays.is_number(kind) or _is_string(kind)


def _is_object_or_string(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or pa.types.is_map(kind) or _is_string(kind)


def _rows_of_group(
    parquet: pq.ParquetFile,
    number: int,
    columns: Sequence[str],
    schema: pa.Schema,
    arrays: LabelArrays | None,
) -> Iterator[tuple[dict[str, Any] | InvalidRow, Labels | None]]:
    """(fields, labels) of each row of a row group; labels are None where the fields have them."""

    def batches(num_rows: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # Threads would compete with the other worker processes.
        return parquet.iter_batches(num_rows, row_groups=[number], columns=names, use_threads=False)

    if arrays is None:
        for batch in batches(BATCH_ROWS, columns):
            yield from ((values, None) for values in values_of(batch))
        return
    num_rows = label_arrays.batch_rows(parquet.metadata.row_group(number), BATCH_ROWS)
    groups = [(names, batches(num_rows, names)) for names in arrays.groups(schema)]
    for batch in batches(num_rows, [name for name in columns if name not in arrays.columns]):
        parts = ((names, next(each, batch[:0])) for names, each in groups)
        yield from rows_of(batch, arrays.labels(parts, batch.num_rows))


def rows_of(
    batch: pa.RecordBatch, labels: Sequence[Labels]
) -> Iterator[tuple[dict[str, Any] | InvalidRow, Labels]]:
    """(fields, labels) of each row of a batch."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        rows = values_of(batch.slice(start, BATCH_ROWS))
        yield from zip(rows, labels[start : start + BATCH_ROWS], strict=True)


def values_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | InvalidRow]:
    """The fields of each row of a batch."""
    batch = _with_microseconds(batch)
    binary = [field.name for field in batch.schema if _holds_binary(field.type)]
    try:
        rows: Iterable[dict[str, Any] | InvalidRow] = batch.to_pylist()
    except (ValueError, OverflowError):  # before the first row is there; one row spoils the batch
        rows = (_row(batch.slice(i, 1)) for i in range(batch.num_rows))
    for row in rows:
        if binary and isinstance(row, dict):
            try:
                row |= {name: _decoded(row[name]) for name in binary}
            except InvalidRow as error:
                row = error
        yield row


def _row(batch: pa.RecordBatch) -> dict[str, Any] | InvalidRow:
    """The only row of a batch."""
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return InvalidRow("not UTF-8", str(error))
    except (ValueError, OverflowError) as error:  # such as a time in the year 14645
        return InvalidRow(
            "value out of range", f"received a value that Python cannot hold: {error}"
        )


def _with_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose times in nanoseconds, which Python has no type for, lose their last digits."""
    kinds = [_in_microseconds(field.type) for field in batch.schema]
    if kinds == batch.schema.types:
        return batch
    columns = [
        column if column.type == kind else column.cast(kind, safe=False)
        for column, kind in zip(batch.columns, kinds, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


@functools.cache
def _known_zone(name: str | None) -> str | None:
    """A time zone that Python knows: times are stored in UTC, which stands for others."""
    with contextlib.suppress(KeyError, ValueError, OSError):
        pa.lib.string_to_tzinfo(name or "UTC")
        return name
    return "UTC"


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """A type, with microseconds for nanoseconds and known time zones in it; also within others."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, _known_zone(kind.tz))
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_dictionary(kind):
        inner = _in_microseconds(kind.value_type)
        return kind if inner == kind.value_type else inner
    if paths.is_list(kind):
        inner = _in_microseconds(kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    if pa.types.is_struct(kind):
        inner = [
            kind.field(i).with_type(_in_microseconds(kind.field(i).type))
            for i in range(kind.num_fields)
        ]
        return pa.struct(inner)
    return kind


def _holds_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or paths.is_list(kind):
        return _holds_binary(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_binary(kind.field(i).type) for i in range(kind.num_fields))
    return _is_binary(kind)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        return {name: _decoded(item) for name, item in value.items()}
    return decode(value) if isinstance(value, bytes) else value
