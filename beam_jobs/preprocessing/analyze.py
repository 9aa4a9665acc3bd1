"""Documents -> analyzed documents in columns, keyed by a hash of their analyzed text."""

import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pyarrow as pa

from beam_jobs.contract.dataset_config import SplitsConfig, TextConfig
from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.preprocessing.buckets import DOCUMENTS
from beam_jobs.preprocessing.splits import NoSplit, given_split
from beam_jobs.sources.batches import REJECTS_TAG
from beam_jobs.sources.documents import MAX_REJECT_CONTENT, Document, Reject


@dataclasses.dataclass
class Analyze(beam.DoFn):
    """list[Document] -> pa.Table of DOCUMENTS and, tagged `rejects`, list[Reject]."""

    text: TextConfig
    num_texts: int
    splits: SplitsConfig

    def setup(self):
        self._analyzer = process_analyzer(self.text.model_dump_json())

    def process(self, documents: Sequence[Document]) -> Iterator[pa.Table]:
        if any(len(document.texts) != self.num_texts for document in documents):
            raise ValueError(
                f"received a document with other than {self.num_texts} texts, expected one for each of data.text_fields that stays apart"
            )
        texts = self._analyzer(
            [
                text.encode("utf-8", "surrogatepass")
                for document in documents
                for text in document.texts
            ]
        )
        analyzed = [
            b"\n".join(texts[i : i + self.num_texts]) for i in range(0, len(texts), self.num_texts)
        ]
        kept, given, rejects = [], [], []
        for i, (document, text) in enumerate(zip(documents, analyzed, strict=True)):
            if not text.strip():
                rejects.append(_reject(document, "empty text", "no token is left after analysis"))
                continue
            try:
                given.append(given_split(document, self.splits))
                kept.append(i)
            except NoSplit as error:
                rejects.append(_reject(document, "no split", str(error)))
        if rejects:
            yield beam.pvalue.TaggedOutput(REJECTS_TAG, rejects)
        yield pa.table(
            [
                [hashlib.blake2b(analyzed[i], digest_size=16).digest() for i in kept],
                [documents[i].id.encode("utf-8", "replace") for i in kept],
                pa.array([analyzed[i] for i in kept], pa.large_binary()).cast(pa.large_string()),
                [documents[i].labels for i in kept],
                [documents[i].weight for i in kept],
                [documents[i].metadata for i in kept],
                given,
            ],
            schema=DOCUMENTS,
        )


@functools.lru_cache(maxsize=1)
def process_analyzer(text_json: str):
    """list[bytes] -> list[bytes] by the analyzer of a specification: one graph a process, whatever the number of DoFns."""
    started = time.perf_counter()
    import_tensorflow_quietly()  # takes seconds: only processes that analyze pay for it
    import tensorflow as tf

    from beam_jobs.contract.analyzer import Analyzer

    analyzer = Analyzer(TextConfig.model_validate_json(text_json))
    logging.getLogger(__name__).info("analyzer ready after %.1f s", time.perf_counter() - started)
    return lambda raw: analyzer(tf.constant(raw, tf.string)).numpy().tolist()


def _reject(document: Document, reason: str, detail: str) -> Reject:
    return Reject(
        document.source,
        document.row,
        reason,
        detail,
        "\n".join(document.texts)[:MAX_REJECT_CONTENT],
    )
