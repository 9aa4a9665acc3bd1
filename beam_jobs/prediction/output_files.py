"""Files of predictions and of rejects, as JSONL or Parquet."""

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.contract.manifest import ShardInfo
from beam_jobs.runtime.hashed_file import HashingWriter

SCORE_DIGITS = 6

# An answer of serving_default or decide in columns.
PREDICTIONS = pa.schema(
    [("id", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
)

_JSON = json.JSONEncoder(ensure_ascii=False)

Format = Literal["jsonl", "parquet"]


class _OutputFile(HashingWriter):
    """A file that is written under a temporary name; a context manager."""

    def __init__(self, path: Path):
        self._path = path
        # Its name is new in every attempt at a part: one that was given up may still be writing.
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        super().__init__(open(self._temporary, "wb"))
        self.examples = 0

    def __enter__(self) -> "_OutputFile":
        return self

    def __exit__(self, *exc_info) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def publish(self) -> ShardInfo:
        """Gives the closed file its name."""
        os.replace(self._temporary, self._path)
        return ShardInfo(
            file=self._path.name,
            bytes=self.size,
            sha256=self.digest.hexdigest(),
            examples=self.examples,
        )

    def delete(self) -> None:
        self._temporary.unlink()


@contextlib.contextmanager
def _jsonl_writer(target: _OutputFile) -> Iterator[Callable[[pa.Table], None]]:
    def write(table: pa.Table) -> None:
        for row in table.to_pylist():
            row["scores"] = [round(score, SCORE_DIGITS) for score in row["scores"]]
            target.write(_json_line(row))

    yield write


@contextlib.contextmanager
def _parquet_writer(target: _OutputFile) -> Iterator[Callable[[pa.Table], None]]:
    with pq.ParquetWriter(pa.PythonFile(target, mode="w"), PREDICTIONS) as writer:
        yield writer.write_table


_WRITERS = {"jsonl": _jsonl_writer, "parquet": _parquet_writer}


def _json_line(row: Mapping[str, Any]) -> bytes:
    return _JSON.encode(row).encode("utf-8", "replace") + b"\n"


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
