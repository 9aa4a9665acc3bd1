"""Files of predictions and of rejects, as JSONL or Parquet."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.contract.atomic import rename, temporary_path
from beam_jobs.contract.manifest import ShardInfo
from beam_jobs.runtime.hashed_file import HashingWriter

SCORE_DIGITS = 6

# What serving_default or decide answers with, in columns.
PREDICTIONS = pa.schema(
    [("id", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
)

_JSON = json.JSONEncoder(ensure_ascii=False)

Format = Literal["jsonl", "parquet"]


class OutputFile(HashingWriter):
    """A file that is written under a temporary name; a context manager.

    Attributes:
      examples: how many rows it holds, which its user counts.
    """

    def __init__(self, path: Path):
        self._path = path
        self._temporary = temporary_path(path)
        super().__init__(open(self._temporary, "wb"))
        self.examples = 0

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(self, *exc_info) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def publish(self) -> ShardInfo:
        """Gives the closed file its name."""
        rename(self._temporary, self._path)
        return ShardInfo(
            file=self._path.name,
            bytes=self.size,
            sha256=self.digest.hexdigest(),
            examples=self.examples,
        )

    def delete(self) -> None:
        """Removes the closed file, which then never has its name."""
        self._temporary.unlink()


def open_writer(
    target: OutputFile, output_format: Format
) -> contextlib.AbstractContextManager[Callable[[pa.Table], None]]:
    """A context manager whose value writes a table of PREDICTIONS to the file."""
    return _jsonl_writer(target) if output_format == "jsonl" else _parquet_writer(target)


@contextlib.contextmanager
def _jsonl_writer(target: OutputFile) -> Iterator[Callable[[pa.Table], None]]:
    def write(table: pa.Table) -> None:
        for row in table.to_pylist():
            row["scores"] = [round(score, SCORE_DIGITS) for score in row["scores"]]
            target.write(json_line(row))

    yield write


@contextlib.contextmanager
def _parquet_writer(target: OutputFile) -> Iterator[Callable[[pa.Table], None]]:
    with pq.ParquetWriter(pa.PythonFile(target, mode="w"), PREDICTIONS) as writer:
        yield writer.write_table


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON, UTF-8; half a surrogate pair becomes `?`."""
    return _JSON.encode(row).encode("utf-8", "replace") + b"\n"
