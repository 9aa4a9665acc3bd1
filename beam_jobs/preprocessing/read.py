"""Reading in parallel: parts of the input -> batches of documents, rejects and the number of rows read."""

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
from beam_jobs.sources.batches import REJECTS_TAG, batches, is_full, num_characters
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader

READ_TAG = "read"


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
            rows, rejected = (
                rows + len(batch),
                rejected + sum(isinstance(row, Reject) for row in batch),
            )
            yield from _sorted_out(batch)
        yield beam.pvalue.TaggedOutput(READ_TAG, (number, rows))
        if self.progress_dir:
            path = Path(self.progress_dir, f"part-{number:06d}.json")
            write_atomically(path, json.dumps({"read": rows, "rejected": rejected}))


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
        self._characters += num_characters(row)
        if is_full(self._rows, self._characters):
            yield from self._batch()

    def finish_bundle(self):
        for output in self._batch():
            is_tagged = isinstance(output, beam.pvalue.TaggedOutput)
            value = WindowedValue(
                output.value if is_tagged else output, MIN_TIMESTAMP, [GlobalWindow()]
            )
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
