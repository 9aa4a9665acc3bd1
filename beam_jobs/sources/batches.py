"""Batches of rows: the unit in which documents go through the pipeline."""

from collections.abc import Iterator

from beam_jobs.sources.documents import Document, Reject

BATCH_DOCUMENTS = 512

REJECTS_TAG = "rejects"


BATCH_CHARACTERS = (
    8 << 20
)  # a batch ends here where its documents are long, so that memory stays bounded


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
