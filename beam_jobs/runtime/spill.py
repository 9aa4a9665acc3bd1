"""Bulk data between stages is written to files; only references pass through the runner's shuffle.

Beam's local runners hold everything they group in memory, at several times its size. So a stage
writes its rows to a file, sorted by the key that the next stage groups by, and emits a `Segment`
for each key.
"""

import dataclasses
import uuid
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.contract import places

SPILL_BYTES = 64 << 20  # 64 MiB of rows are collected in memory before they are written


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a spill file: one Arrow IPC stream."""

    path: str
    offset: int
    length: int


@dataclasses.dataclass
class SpillByKey(beam.DoFn):
    """pa.Table with an int column `key` -> (key, Segment), the column dropped.

    Attributes:
      directory: where spill files are written; every worker must reach it.
    """

    directory: str

    def start_bundle(self):
        self._tables: list[pa.Table] = []
        self._bytes = 0

    def process(self, table: pa.Table) -> Iterator[tuple[int, Segment]]:
        if table.num_rows:
            self._tables.append(table)
            self._bytes += table.nbytes
        if self._bytes >= SPILL_BYTES:
            yield from self._spill()

    def finish_bundle(self):
        for element in self._spill():
            yield WindowedValue(element, MIN_TIMESTAMP, [GlobalWindow()])

    def _spill(self) -> Iterator[tuple[int, Segment]]:
        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        self._tables, self._bytes = [], 0
        keys = table["key"].to_numpy()
        order = np.argsort(keys, kind="stable")
        table, keys = table.drop_columns("key").take(order), keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        path = places.join(self.directory, f"spill-{uuid.uuid4().hex}.arrow")
        with places.create(path) as stream:
            offset = 0
            segments = []
            for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
                content = to_ipc(table[start:end])
                stream.write(content)
                segments.append((int(keys[start]), Segment(path, offset, len(content))))
                offset += len(content)
        yield from segments  # once they can be read


def read_segments(segments: Iterable[Segment], schema: pa.Schema) -> pa.Table:
    """All rows of the segments, in any order."""
    tables = [schema.empty_table()]
    for segment in segments:
        tables.append(from_ipc(places.read_bytes(segment.path, segment.offset, segment.length)))
    return pa.concat_tables(tables)


def to_ipc(table: pa.Table) -> bytes:
    """An Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_ipc(content: bytes) -> pa.Table:
    """The table of an Arrow IPC stream."""
    return pa.ipc.open_stream(content).read_all()
