"""Reading in parallel: parts of the input -> batches of documents, rejects and the number of rows read."""

import contextlib
import dataclasses
import heapq
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.contract.manifest import REJECTS
from beam_jobs.preprocessing.analyze import BATCH_DOCUMENTS, REJECTS_TAG
from beam_jobs.runtime.spill import Segment, read_segments
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader

READ_TAG = "read"
BATCH_CHARACTERS = 8 << 20  # a batch ends here where its documents are long, so that memory stays bounded
_REJECT_PARTITIONS = 256  # each is sorted in memory
_WRITTEN_TOGETHER = 64  # rejects, of up to 64 KiB each

REJECT_ROWS = pa.schema([(field.name, pa.int64() if field.type is int else pa.large_string()) for field in dataclasses.fields(Reject)])


@dataclasses.dataclass
class ReadPart(beam.DoFn):
    """(part number, files) -> list[Document]; tagged `rejects`, list[Reject]; tagged `read`, (part number, rows).

    Attributes:
      reader: the source.
      progress_dir: a local directory where a small file tells of each part that is done; None: no such files.
    """

    reader: Reader
    progress_dir: str | None

    def process(self, part: tuple[int, Sequence[InputFile]]) -> Iterator[list[Document]]:
        number, files = part
        rows = rejected = 0
        for batch in batches(itertools.chain.from_iterable(map(self.reader.read, files))):
            rows, rejected = rows + len(batch), rejected + sum(isinstance(row, Reject) for row in batch)
            yield from _sorted_out(batch)
        yield beam.pvalue.TaggedOutput(READ_TAG, (number, rows))
        if self.progress_dir:
            path = Path(self.progress_dir, f"part-{number:06d}.json")
            path.with_suffix(".tmp").write_text(json.dumps({"read": rows, "rejected": rejected}))
            os.replace(path.with_suffix(".tmp"), path)


@dataclasses.dataclass
class BatchDocuments(beam.DoFn):
    """What a source's transform yields -> list[Document]; tagged `rejects`, list[Reject]; tagged `read`, (None, rows)."""

    source: TransformSource

    def start_bundle(self):
        self._rows: list[Document | Reject] = []
        self._characters = 0

    def process(self, element: Any) -> Iterator[list[Document]]:
        row = self.source.checked(element)
        self._rows.append(row)
        self._characters += _characters(row)
        if len(self._rows) >= BATCH_DOCUMENTS or self._characters >= BATCH_CHARACTERS:
            yield from self._batch()

    def finish_bundle(self):
        for output in self._batch():
            is_tagged = isinstance(output, beam.pvalue.TaggedOutput)
            value = WindowedValue(output.value if is_tagged else output, MIN_TIMESTAMP, [GlobalWindow()])
            yield beam.pvalue.TaggedOutput(output.tag, value) if is_tagged else value

    def _batch(self) -> Iterator[list[Document]]:
        if self._rows:
            yield from _sorted_out(self._rows)
            yield beam.pvalue.TaggedOutput(READ_TAG, (None, len(self._rows)))
        self.start_bundle()


def _sorted_out(batch: Sequence[Document | Reject]) -> Iterator[list[Document]]:
    documents = [row for row in batch if isinstance(row, Document)]
    rejects = [row for row in batch if isinstance(row, Reject)]
    if documents:
        yield documents
    if rejects:
        yield beam.pvalue.TaggedOutput(REJECTS_TAG, rejects)


def _characters(row: Document | Reject) -> int:
    return sum(map(len, row.texts)) if isinstance(row, Document) else len(row.content)


def batches(rows: Iterator[Document | Reject]) -> Iterator[list[Document | Reject]]:
    """Lists of at most BATCH_DOCUMENTS, shorter where documents are long; they follow from the rows alone."""
    batch: list[Document | Reject] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += _characters(row)
        if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def reject_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rejects in columns, with a partition of them as `key`: they may be as many as the documents."""
    clean = [{key: _writable(value) for key, value in dataclasses.asdict(reject).items()} for reject in rejects]
    # CRC-32 is the same in every process, which Python's hash() is not.
    keys = [zlib.crc32(f"{reject['source']}\0{reject['row']}".encode()) % _REJECT_PARTITIONS for reject in clean]
    return pa.Table.from_pylist(clean, schema=REJECT_ROWS).append_column("key", pa.array(keys, pa.int64()))


@dataclasses.dataclass(frozen=True)
class SortedRejects:
    """A file of rejects, a line each, sorted as the whole rejects file is; and how many there are of each reason."""

    path: str
    counts: dict[str, int]


def sort_rejects(partition: int, segments: Iterable[Segment], directory: str) -> SortedRejects:
    """Writes the rejects of one partition, sorted."""
    table = read_segments(segments, REJECT_ROWS).sort_by([(name, "ascending") for name in REJECT_ROWS.names])
    path = FileSystems.join(directory, f"rejects-{partition:03d}.jsonl")
    with FileSystems.create(path) as stream:
        for batch in table.to_batches(max_chunksize=_WRITTEN_TOGETHER):
            stream.write(b"".join(json.dumps(reject, ensure_ascii=False).encode() + b"\n" for reject in batch.to_pylist()))
    counts = pc.value_counts(table["reason"]).to_pylist()
    return SortedRejects(path, {row["values"]: row["counts"] for row in counts})


def write_rejects(sorted_rejects: Iterable[SortedRejects], directory: str) -> dict[str, int]:
    """Merges the partitions into the rejects file, sorted by source and row; returns the number of rejects by reason."""
    counts: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(FileSystems.create(f"{directory}/{REJECTS}", mime_type="application/jsonl"))
        streams = []
        for part in sorted_rejects:
            streams.append(stack.enter_context(FileSystems.open(part.path, compression_type="uncompressed")))
            for reason, count in part.counts.items():
                counts[reason] = counts.get(reason, 0) + count
        for line in heapq.merge(*streams, key=lambda line: tuple(json.loads(line).values())):
            target.write(line)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _writable(value):
    """A lone surrogate, which JSON can bring in, has no UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
