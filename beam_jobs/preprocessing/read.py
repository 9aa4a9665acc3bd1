"""Reading in parallel: parts of the input -> batches of documents and of rejects."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.contract.atomic import write_atomically
from beam_jobs.runtime import document_counters
from beam_jobs.runtime.step_times import TimedDoFn
from beam_jobs.sources.batches import REJECTS_TAG, batches, is_full, num_characters
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader

READ_TAG = "read"
_FINISHED = ".json"  # the suffix of the files of finished parts


@dataclasses.dataclass
class ReadDocuments(beam.PTransform):
    """The input -> list[Document]; list[Reject]; and (part's number or None, rows).

    Attributes:
      reader: the source.
      parts: lists of input files, the units of parallel reading; a transform has none.
      progress_dir: see `ReadPart`.
    """

    reader: Reader | TransformSource
    parts: Sequence[Sequence[InputFile]]
    progress_dir: str | None

    def expand(self, pipeline):
        if isinstance(self.reader, TransformSource):
            rows = pipeline | "Source" >> self.reader.transform
            read_rows = BatchDocuments(self.reader)
        else:
            rows = (
                pipeline
                | "Parts" >> beam.Create(list(enumerate(self.parts)))
                | "SpreadParts" >> beam.Reshuffle()
            )  # (number, files)
            read_rows = ReadPart(self.reader, self.progress_dir)
        read = rows | "ReadRows" >> beam.ParDo(TimedDoFn("read", read_rows)).with_outputs(
            REJECTS_TAG, READ_TAG, main="documents"
        )
        return read.documents, read[REJECTS_TAG], read[READ_TAG]


@dataclasses.dataclass
class ReadPart(beam.DoFn):
    """(part's number, files) -> list[Document].

    Tagged `rejects`: list[Reject]; tagged `read`: (part's number, rows).

    Attributes:
      reader: the source.
      progress_dir: a local directory where each finished part leaves a file; None: none does.
    """

    reader: Reader
    progress_dir: str | None

    def process(self, part: tuple[int, Sequence[InputFile]]) -> Iterator[list[Document]]:
        number, files = part
        read = rejected = may_be_rows = 0
        for batch in batches(itertools.chain.from_iterable(map(self.reader.read, files))):
            read += len(batch)
            rejected += sum(isinstance(row, Reject) for row in batch)
            may_be_rows += sum(isinstance(row, Document) and row.may_be_rows for row in batch)
            yield from _documents_and_rejects(batch)
        yield _read(number, read)
        if may_be_rows:
            document_counters.increment(may_be_rows=may_be_rows)
        if self.progress_dir:
            path = Path(self.progress_dir, f"part-{number:06d}{_FINISHED}")
            write_atomically(path, json.dumps({"read": read, "rejected": rejected}))


def finished_parts(progress_dir: Path) -> Iterator[Path]:
    """The files of finished parts: JSON with the numbers of rows `read` and `rejected`."""
    return progress_dir.glob(f"part-*{_FINISHED}")


@dataclasses.dataclass
class BatchDocuments(beam.DoFn):
    """What a source's transform yields -> list[Document].

    Tagged `rejects`: list[Reject]; tagged `read`: (None, rows).
    """

    source: TransformSource

    def start_bundle(self):
        self._rows: list[Document | Reject] = []
        self._characters = 0

    def process(self, element: Any) -> Iterator[list[Document]]:
        row = self.source.checked(element)
        self._rows.append(row)
        self._characters += num_characters(row)
        if is_full(self._rows, self._characters):
            yield from self._batch()

    def finish_bundle(self):
        for output in self._batch():
            if isinstance(output, beam.pvalue.TaggedOutput):
                yield beam.pvalue.TaggedOutput(output.tag, _windowed(output.value))
            else:
                yield _windowed(output)

    def _batch(self) -> Iterator[list[Document]]:
        if self._rows:
            yield from _documents_and_rejects(self._rows)
            yield _read(None, len(self._rows))
        self.start_bundle()


def _windowed(value: Any) -> WindowedValue:
    return WindowedValue(value, MIN_TIMESTAMP, [GlobalWindow()])


def _read(part: int | None, rows: int) -> beam.pvalue.TaggedOutput:
    document_counters.increment(read=rows)
    return beam.pvalue.TaggedOutput(READ_TAG, (part, rows))


def _documents_and_rejects(batch: Sequence[Document | Reject]) -> Iterator[list[Document]]:
    documents = [row for row in batch if isinstance(row, Document)]
    rejects = [row for row in batch if isinstance(row, Reject)]
    if documents:
        yield documents
    if rejects:
        yield beam.pvalue.TaggedOutput(REJECTS_TAG, rejects)
