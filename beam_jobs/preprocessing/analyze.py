"""Documents -> analyzed documents in columns, keyed by a hash of their analyzed texts."""

import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pyarrow as pa

from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.sections.splits import SplitsConfig
from beam_jobs.contract.word_lists import AnalyzerSpec
from beam_jobs.preprocessing.buckets import DOCUMENTS
from beam_jobs.preprocessing.splits import NoSplit, source_split, time_us
from beam_jobs.runtime.step_times import TimedDoFn
from beam_jobs.sources.batches import REJECTS_TAG
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, Document, Reject


@dataclasses.dataclass
class AnalyzeDocuments(beam.PTransform):
    """list[Document] -> tables of DOCUMENTS, and list[Reject]; attributes as those of `Analyze`."""

    text: AnalyzerSpec
    num_texts: int
    splits: SplitsConfig

    def expand(self, documents):
        analyze = TimedDoFn("analyze", Analyze(self.text, self.num_texts, self.splits))
        analyzed = documents | beam.ParDo(analyze).with_outputs(REJECTS_TAG, main="documents")
        return analyzed.documents, analyzed[REJECTS_TAG]


@dataclasses.dataclass
class Analyze(beam.DoFn):
    """list[Document] -> pa.Table of DOCUMENTS and, tagged `rejects`, list[Reject].

    Attributes:
      text: the analyzer's specification.
      num_texts: text fields per document.
      splits: decides what is asked of a document's source.
    """

    text: AnalyzerSpec
    num_texts: int
    splits: SplitsConfig

    def setup(self):
        self._analyzer = process_analyzer(self.text.model_dump_json())

    def process(self, documents: Sequence[Document]) -> Iterator[pa.Table]:
        rows, rejects = [], []
        for document, texts in zip(documents, self._analyzed(documents), strict=True):
            if not any(text.strip() for text in texts):
                rejects.append(_reject(document, "empty text", "no token is left after analysis"))
                continue
            try:
                split = source_split(document, self.splits)
                written_us = time_us(document, self.splits)
            except NoSplit as error:
                rejects.append(_reject(document, "no split", str(error)))
                continue
            rows.append((document, texts, split, written_us))
        if rejects:
            yield beam.pvalue.TaggedOutput(REJECTS_TAG, rejects)
        yield _table(rows)

    def _analyzed(self, documents: Sequence[Document]) -> list[list[bytes]]:
        """The analyzed texts of each document, in UTF-8."""
        size = self.num_texts
        if any(len(document.texts) != size for document in documents):
            raise ValueError(
                f"received a document with other than {size} texts, expected one for each of "
                "data.text_fields that stays apart"
            )
        analyzed = self._analyzer(
            [
                text.encode("utf-8", "surrogatepass")
                for document in documents
                for text in document.texts
            ]
        )
        return [analyzed[i : i + size] for i in range(0, len(analyzed), size)]


def _table(rows: Sequence[tuple[Document, list[bytes], int | None, int | None]]) -> pa.Table:
    """Documents with their analyzed texts, split and time -> DOCUMENTS."""
    documents = [document for document, _, _, _ in rows]
    digests = [
        hashlib.blake2b(b"\n".join(texts), digest_size=16).digest() for _, texts, _, _ in rows
    ]
    columns = {
        "digest": digests,
        "id": [document.id.encode("utf-8", "replace") for document in documents],
        "texts": [texts for _, texts, _, _ in rows],
        "labels": [document.labels for document in documents],
        "weight": [document.weight for document in documents],
        "metadata": [document.metadata for document in documents],
        "source_split": [split for _, _, split, _ in rows],
        "time_us": [written_us for _, _, _, written_us in rows],
    }
    return pa.table(columns, schema=DOCUMENTS)


@functools.lru_cache(maxsize=1)
def process_analyzer(text_json: str):
    """The analyzer of a specification, as a function list[bytes] -> list[bytes].

    There is one graph per process, whatever the number of DoFns.
    """
    started = time.perf_counter()
    import_tensorflow_quietly()  # takes seconds: only processes that analyze pay for it
    import tensorflow as tf

    from beam_jobs.contract.analyzer import Analyzer

    analyzer = Analyzer(AnalyzerSpec.model_validate_json(text_json))
    logging.getLogger(__name__).info("analyzer ready after %.1f s", time.perf_counter() - started)
    return lambda raw: analyzer(tf.constant(raw, tf.string)).numpy().tolist()


def _reject(document: Document, reason: str, detail: str) -> Reject:
    content = "\n".join(document.texts)[:MAX_REJECT_CONTENT]
    return Reject(document.source, document.row, reason, detail, content)
