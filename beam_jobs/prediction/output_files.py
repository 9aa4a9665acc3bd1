"""Files of predictions and of rejects, as JSONL or Parquet."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

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
    """A file of rows that is being written to a stream.

    Attributes:
      examples: how many rows it holds, which its user counts.
    """

    def __init__(self, stream: BinaryIO):
        super().__init__(stream)
        self.examples = 0

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def info(self, name: str) -> ShardInfo:
        """What the file holds, once all is written."""
        return ShardInfo(
            file=name, bytes=self.size, sha256=self.digest.hexdigest(), examples=self.examples
        )


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
