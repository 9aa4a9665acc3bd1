"""Batches of rows, the unit in which the pipelines handle documents."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from beam_jobs.sources.documents import Document, Reject

Row = TypeVar("Row")
REJECTS_TAG = "rejects"  # of the output of a DoFn that yields documents

BATCH_DOCUMENTS = 512
BATCH_CHARACTERS = 8 << 20  # 8 Mi characters: long documents end a batch, which bounds its memory


def is_full(batch: Sequence[Any], characters: int) -> bool:
    """Whether a batch that holds so many characters takes no further row."""
    return len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS


def num_characters(row: Document | Reject) -> int:
    """The characters that a row takes."""
    return sum(map(len, row.texts)) if isinstance(row, Document) else len(row.content)


def batches(
    rows: Iterable[Row], characters_of: Callable[[Row], int] = num_characters
) -> Iterator[list[Row]]:
    """Lists of at most BATCH_DOCUMENTS rows, fewer where documents are long.

    They follow from the rows alone.
    """
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += characters_of(row)
        if is_full(batch, characters):
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
