"""Reading in parallel: parts of the input -> batches of documents, rejects and the number of rows read."""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import pyarrow as pa

from beam_jobs.analysis import BATCH_DOCUMENTS, REJECTS_TAG
from beam_jobs.contract.manifest import REJECTS
from beam_jobs.documents import Document, Reject
from beam_jobs.inputs import InputFile
from beam_jobs.readers import Reader
from beam_jobs.spill import Segment, read_segments

READ_TAG = "read"
BATCH_CHARACTERS = 8 << 20  # a batch ends here where its documents are long, so that memory stays bounded

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
        for batch in _batches(itertools.chain.from_iterable(map(self.reader.read, files))):
            documents = [row for row in batch if isinstance(row, Document)]
            rejects = [row for row in batch if isinstance(row, Reject)]
            rows, rejected = rows + len(batch), rejected + len(rejects)
            if documents:
                yield documents
            if rejects:
                yield beam.pvalue.TaggedOutput(REJECTS_TAG, rejects)
        yield beam.pvalue.TaggedOutput(READ_TAG, (number, rows))
        if self.progress_dir:
            path = Path(self.progress_dir, f"part-{number:06d}.json")
            path.with_suffix(".tmp").write_text(json.dumps({"read": rows, "rejected": rejected}))
            os.replace(path.with_suffix(".tmp"), path)


def _batches(rows: Iterator[Document | Reject]) -> Iterator[list[Document | Reject]]:
    batch: list[Document | Reject] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(map(len, row.texts)) if isinstance(row, Document) else len(row.content)
        if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def reject_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rejects in columns, all under one key: their number is small or the job fails."""
    clean = [{key: _writable(value) for key, value in dataclasses.asdict(reject).items()} for reject in rejects]
    return pa.Table.from_pylist(clean, schema=REJECT_ROWS).append_column("key", pa.array([0] * len(rejects), pa.int64()))


def write_rejects(segments: Sequence[Segment], directory: str) -> dict[str, int]:
    """Writes the rejects file, sorted by source and row, and returns the number of rejects by reason."""
    table = read_segments(segments, REJECT_ROWS).sort_by([(name, "ascending") for name in REJECT_ROWS.names])
    counts: dict[str, int] = {}
    with beam.io.filesystems.FileSystems.create(f"{directory}/{REJECTS}", mime_type="application/jsonl") as stream:
        for reject in table.to_pylist():
            counts[reject["reason"]] = counts.get(reject["reason"], 0) + 1
            stream.write(json.dumps(reject, ensure_ascii=False).encode() + b"\n")
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _writable(value):
    """A lone surrogate, which JSON can bring in, has no UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
