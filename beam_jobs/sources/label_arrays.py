"""Columns of labels in Arrow: read a column at a time, since most rows say 0 in most columns."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.contract.validation import canonical_label
from beam_jobs.sources import label_columns
from beam_jobs.sources.invalid_row import InvalidRow

_BATCH_BYTES = 64 << 20  # 64 MiB
MAX_ROWS = 8192


class LabelArrays:
    """The labels of the rows of record batches.

    Attributes:
      columns: those of labels, with the label of each.
    """

    def __init__(self, columns: Sequence[str], threshold: float):
        """A row has a label from the threshold on."""
        self.columns = {name: canonical_label(name) for name in columns}
        self._threshold = threshold

    def groups(self, schema: pa.Schema) -> Iterator[list[str]]:
        """The columns in groups, of each of which `MAX_ROWS` rows are held in memory at a time."""
        group: list[str] = []
        num_bytes = 0
        for name in self.columns:
            num_bytes += MAX_ROWS * _bytes(schema.field(name).type)
            if group and num_bytes > _BATCH_BYTES:
                yield group
                group, num_bytes = [], MAX_ROWS * _bytes(schema.field(name).type)
            group.append(name)
        yield group

    def labels(
        self, parts: Iterable[tuple[Sequence[str], pa.RecordBatch]], num_rows: int
    ) -> list[tuple[str, ...] | InvalidRow]:
        """The labels of each row; null means 0, as sparse tables have it.

        Args:
          parts: the names of a group of columns, and the rows with these columns, for each group.
          num_rows: of each batch.
        """
        present: list[list[str]] = [[] for _ in range(num_rows)]
        wrong: dict[int, InvalidRow] = {}
        for names, batch in parts:
            if batch.num_rows != num_rows:
                raise EOFError(f"a column has {batch.num_rows:,} rows, expected {num_rows:,}")
            index = {name: i for i, name in enumerate(batch.schema.names)}
            for name in names:
                values = as_numbers(batch.column(index[name]))
                highest = values.max(initial=0)  # NaN if one is
                if not highest < self._threshold:
                    for row in np.flatnonzero(values >= self._threshold).tolist():
                        present[row].append(self.columns[name])
                is_float = values.dtype.kind == "f"
                if is_float and not (highest < np.inf and values.min(initial=0) > -np.inf):
                    for row in np.flatnonzero(~np.isfinite(values)).tolist():
                        wrong.setdefault(row, label_columns.not_a_number(name, float(values[row])))
        return [wrong.get(row) or tuple(labels) for row, labels in enumerate(present)]


def batch_rows(group: pq.RowGroupMetaData, fewest: int) -> int:
    """Rows of a group that a batch may have, so that few batches share the costs that each has for
    each column, in bounded memory.
    """
    of_row = group.total_byte_size // max(group.num_rows, 1)
    return max(fewest, min(MAX_ROWS, _BATCH_BYTES // max(of_row, 1)))


def _bytes(kind: pa.DataType) -> int:
    """Of a value in memory, about."""
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:  # it has no fixed width
        return 8


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column of this type may say which rows have a label."""
    return is_number(kind.value_type if pa.types.is_dictionary(kind) else kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers, booleans or null."""
    return (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def as_numbers(column: pa.Array) -> np.ndarray:
    """[rows] of booleans, integers or floats; null is 0."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), bool)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if column.null_count:
        column = column.fill_null(False if pa.types.is_boolean(kind) else 0)
    return column.to_numpy(zero_copy_only=False)
