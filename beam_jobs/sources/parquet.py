"""Parquet files: batches of the columns that the config names."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.dataset_config import ParquetData
from beam_jobs.contract.errors import UserError
from beam_jobs.sources import paths, streams
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.fields import (
    Fields,
    InvalidRow,
    check_columns,
    check_columns_once,
    columns_read,
    decode,
    too_long,
)
from beam_jobs.sources.input_files import InputFile, match_files

BATCH_ROWS = 256
_DAMAGE = (*streams.DAMAGE, pa.ArrowException)


@dataclasses.dataclass(frozen=True)
class ParquetReader:
    """One document per row; its number is its index in the file, from 1."""

    data: ParquetData
    fields: type[Fields] = Fields  # what makes documents of its rows

    def files(self) -> list[InputFile]:
        files = []
        for file in match_files(self.data.inputs, unit="row group"):
            try:
                with _open(file) as parquet:
                    schema, plain_bytes = (
                        parquet.schema_arrow,
                        _plain_bytes(parquet.metadata, self._columns(parquet)),
                    )
            except _DAMAGE as error:
                raise UserError(
                    f"data.inputs: {file.name} ({file.bytes:,} bytes) is not a whole Parquet file: "
                    f"{error}"
                ) from None
            check_columns(
                self.data,
                [*schema.names, *dict(file.partition)],
                file.name,
                nested=paths.nested_names_of_type(schema),
            )
            check_columns_once(self.data, schema.names, file.name)
            self._check_types(schema, file)
            files.append(dataclasses.replace(file, expansion=plain_bytes / file.bytes))
        return files

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        fields, row = self.fields(self.data, partition=dict(file.partition)), 0
        try:
            with _open(file) as parquet:
                for row, values in self._rows(parquet, file):
                    try:
                        if isinstance(values, InvalidRow):
                            raise values
                        document = fields.document(values, file.name, row)
                        if sum(map(len, document.texts)) > self.data.max_row_bytes:
                            raise too_long(self.data.max_row_bytes)
                        yield document
                    except InvalidRow as error:
                        yield error.reject(
                            file.name, row, "" if isinstance(values, InvalidRow) else str(values)
                        )
        except _DAMAGE as error:
            yield streams.unreadable(file, row + 1, error)

    def _rows(
        self, parquet: pq.ParquetFile, file: InputFile
    ) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
        row, columns = 0, self._columns(parquet)
        for i in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(i)
            if file.start <= _first_byte(group) and (
                file.end is None or _first_byte(group) < file.end
            ):
                # Threads would compete with the other worker processes.
                batches = parquet.iter_batches(
                    BATCH_ROWS, row_groups=[i], columns=columns, use_threads=False
                )
                yield from enumerate(
                    (values for batch in batches for values in _values(batch)), start=row + 1
                )
            row += group.num_rows

    def _columns(self, parquet: pq.ParquetFile) -> list[str]:
        """The columns to read: fields of structs by their paths, those in lists with all of it."""
        schema = parquet.schema
        leaves = [schema.column(i).path for i in range(len(schema))]
        readable = {prefix for path in leaves for prefix in _prefixes(path)}
        names = parquet.schema_arrow.names
        return list(
            dict.fromkeys(
                name if name in readable else paths.top_name(names, name)
                for name in columns_read(self.data)
            )
        )

    def _check_types(self, schema: pa.Schema, file: InputFile) -> None:
        """Raises UserError for types of which no row could be a document, before any work."""
        wanted = [(name, _is_string, "a string") for name in self.data.text_fields]
        if self.data.label_columns:
            pass  # numbers, booleans and strings all may do
        elif self.data.labels_field is None:
            pass
        elif self.data.label_delimiter is not None:
            wanted.append(
                (self.data.labels_field, _is_string, "a string, as data.label_delimiter is set")
            )
        else:
            wanted.append(
                (
                    self.data.labels_field,
                    _is_list_of_strings,
                    "a list of strings; for joined labels set data.label_delimiter",
                )
            )
        for name, is_wanted, what in wanted:
            kind = paths.type_of(schema, name)
            if kind is None:  # what the path says
                continue
            if not is_wanted(kind) and not pa.types.is_null(kind):
                raise UserError(
                    f"{file.name}: column {name!r} has the type {kind}, expected {what}"
                )


@contextlib.contextmanager
def _open(file: InputFile) -> Iterator[pq.ParquetFile]:
    with (
        FileSystems.open(file.path, compression_type="uncompressed") as stream,
        pq.ParquetFile(stream) as parquet,
    ):
        yield parquet


def _plain_bytes(metadata: pq.FileMetaData, columns: Collection[str]) -> int:
    """Bytes of the columns when they are decompressed."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(j) for group in groups for j in range(group.num_columns))
    columns = set(columns)
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any(prefix in columns for prefix in _prefixes(chunk.path_in_schema))
    )


def _prefixes(path: str) -> list[str]:
    """`a.b.c` -> `a`, `a.b`, `a.b.c`."""
    return [path[:end] for end, character in enumerate(path) if character == "."] + [path]


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
    return paths.is_list(kind) and (
        _is_string(kind.value_type) or pa.types.is_null(kind.value_type)
    )


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | InvalidRow]:
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


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """A type, with microseconds for nanoseconds in it; of lists and structs too."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
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
