"""Tables in memory -> a Parquet file, which the Beam job reads like any other."""

import contextlib
import filecmp
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.contract.errors import UserError, first_line

SPLIT_FIELD = "split"  # the column that is added where tables are given by split


def is_table(value: Any) -> bool:
    """Whether a value is a DataFrame, a `datasets.Dataset`, an Arrow table or the like."""
    has_columns = hasattr(value, "columns") and hasattr(value, "__arrow_c_stream__")
    return has_columns or _is_pandas(value) or _is_hugging_face(value)


def are_tables(value: Any) -> bool:
    """Whether a value is a mapping of splits to tables, such as a `datasets.DatasetDict`."""
    return isinstance(value, Mapping) and bool(value) and all(map(is_table, value.values()))


def to_arrow(value: Any) -> pa.Table:
    """A table, tables by split, or columns by name, as one Arrow table.

    Raises:
      UserError: a column holds values of several types, or the columns differ in length.
    """
    try:
        if are_tables(value):
            return _of_splits(value)
        if isinstance(value, Mapping):
            return pa.table(dict(value))
        if _is_pandas(value):
            return pa.Table.from_pandas(value, preserve_index=False)
        if _is_hugging_face(value):
            return value.with_format("arrow")[:]
        return pa.table(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(
            f"the table cannot be read: {first_line(error)}; expected columns of equal length, "
            "each with values of one type"
        ) from None


def write(table: pa.Table, path: Path, *, replace: bool) -> None:
    """Writes a table; equal tables give equal bytes.

    Args:
      table: the table.
      path: where.
      replace: whether a file with another table may be replaced.

    Raises:
      UserError: there is another table, or the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, unfinished)
        if not replace and path.exists() and not filecmp.cmp(unfinished, path, shallow=False):
            raise UserError(
                f"{path.parent} holds the dataset of other documents; expected the same, another "
                "output_dir, or overwrite=True"
            )
        unfinished.replace(path)
    except OSError as error:
        raise UserError(
            f"output_dir: cannot write {path}: {error.strerror}; expected a directory that you may "
            "write to"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def check_columns(table: pa.Table, wanted: Sequence[str], what: str) -> None:
    """Raises UserError unless the table has the columns that the argument `what` names."""
    missing = [name for name in wanted if name not in table.column_names and "*" not in name]
    if missing:
        raise UserError(
            f"{what}: received {', '.join(missing)}, expected one or several of the columns "
            f"{', '.join(table.column_names)}"
        )


def holds_ids(table: pa.Table, column: str) -> bool:
    """Whether a column holds lists of integers."""
    kind = table.schema.field(column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list and pa.types.is_integer(kind.value_type)


def _of_splits(tables: Mapping[str, Any]) -> pa.Table:
    parts = []
    for split, table in tables.items():
        part = to_arrow(table)
        if SPLIT_FIELD in part.column_names:
            raise UserError(
                f"received tables by split that have a column {SPLIT_FIELD!r} themselves; expected "
                "one table, with settings={'splits.method': 'column', 'data.split_field': "
                f"{SPLIT_FIELD!r}}}, or another name of that column"
            )
        parts.append(part.append_column(SPLIT_FIELD, pa.array([split] * len(part), pa.string())))
    return pa.concat_tables(parts, promote_options="permissive")


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "columns")


def _is_hugging_face(value: Any) -> bool:
    return hasattr(value, "with_format") and hasattr(value, "features")
