"""The intermediate format: analyzed documents in columns, in Arrow files that are called buckets.

The digest of a document decides its bucket, in every stage. A stage that changes a bucket writes a
new file, named by `bucket_path`, and yields the `Bucket` that refers to it.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract import places
from beam_jobs.contract.manifest import LabelChanges
from beam_jobs.runtime.spill import Segment, from_ipc, read_segments, to_ipc

_TEXTS = pa.large_list(pa.large_string())
_NAMES = pa.large_list(pa.large_string())

# An analyzed document, before duplicates are merged.
DOCUMENTS = pa.schema(
    [
        ("digest", pa.binary()),  # BLAKE2b-128 of the texts joined by newlines, see the keys below
        ("id", pa.large_binary()),
        ("texts", _TEXTS),  # analyzed: the tokens of each text field, joined by spaces
        ("labels", _NAMES),
        ("weight", pa.float32()),
        ("metadata", pa.large_list(pa.large_string())),
        ("source_split", pa.int8()),  # index into SPLITS; null: the source does not decide it
        ("time_us", pa.int64()),  # microseconds since 1970; null: the split does not need it
    ]
)

# A document of a bucket, until label names become ids. `split` is an index into SPLITS; null until
# the labels or times of all documents have decided it.
MERGED = pa.schema(
    [
        *(field for field in DOCUMENTS if field.name not in ("source_split", "time_us")),
        ("time_us", pa.int64()),
        ("split", pa.int8()),
    ]
)

# A document of the dataset: its labels are sorted ids, see `beam_jobs.preprocessing.labels`.
ENCODED = MERGED.set(
    MERGED.get_field_index("labels"), pa.field("labels", pa.large_list(pa.int64()))
)


# --- columns ---------------------------------------------------------------------------


def order_keys(digests: pa.ChunkedArray) -> np.ndarray:
    """uint64 [documents]: the first half of each digest; orders the documents of a split."""
    return _halves(digests)[:, 0]


def split_keys(digests: pa.ChunkedArray) -> np.ndarray:
    """uint64 [documents]: the second half of each digest; decides the split where a hash does."""
    return _halves(digests)[:, 1]


def _halves(digests: pa.ChunkedArray) -> np.ndarray:
    content = b"".join(digests.to_pylist())
    return np.frombuffer(content, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def joined(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column `texts` -> one large_string per document, the text fields joined by newlines."""
    return pc.binary_join(texts, pa.scalar("\n", pa.large_string()))


def tokens_of(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column `texts` -> one list of tokens per document, over all of its text fields."""
    return pc.ascii_split_whitespace(pc.ascii_trim_whitespace(joined(texts)))


def replace_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values, perhaps of another type, in the column `name`."""
    return table.set_column(table.schema.get_field_index(name), name, values)


# --- files -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A file of documents whose order keys lie in one range, sorted by digest.

    Attributes:
      index: the range's index in the order of keys.
      path: an Arrow IPC stream of MERGED or ENCODED.
      documents: documents in the file.
      duplicates: documents that were merged into others.
      duplicates_with_other_labels: of them, those of texts that not always had the same labels.
      label_changes: what cleaning did to the labels.
      near_duplicates: documents that were dropped because they are nearly equal to others.
      label_occurrences: sum over documents of their labels, before rare labels are dropped.
      dropped_without_labels: documents that were dropped because none of their labels is kept.
      label_names_used: see `LabelRules.clean`, of the bucket's documents.
    """

    index: int
    path: str
    documents: int
    duplicates: int
    duplicates_with_other_labels: int = 0
    label_changes: LabelChanges = LabelChanges()
    near_duplicates: int = 0
    label_occurrences: int = 0
    dropped_without_labels: int = 0
    label_names_used: bytes = b""


def bucket_path(directory: str, stage: str, index: int) -> str:
    """The file of a bucket that `stage` writes."""
    return places.join(directory, f"{stage}-{index:05d}.arrow")


def written_buckets(directory: Path, stage: str) -> list[Path]:
    """The bucket files that `stage` has finished in a local directory."""
    return list(directory.glob(f"{stage}-*.arrow"))


def keyed_by_bucket() -> beam.PTransform:
    """Buckets -> (bucket's index, Bucket), to be grouped with segments of rows for each bucket."""
    return beam.Map(lambda bucket: (bucket.index, bucket))


def with_received(
    element: tuple[int, Iterable[Bucket | Segment]], schema: pa.Schema
) -> Iterator[tuple[Bucket, pa.Table]]:
    """The bucket of a group, with the rows of `schema` that were sent to it."""
    received = list(element[1])
    rows = read_segments((item for item in received if isinstance(item, Segment)), schema)
    for bucket in (item for item in received if isinstance(item, Bucket)):
        yield bucket, rows.combine_chunks()


def write_table(path: str, table: pa.Table) -> None:
    """Writes an Arrow IPC stream, whole: another attempt at the bundle may be writing it too."""
    places.write(path, to_ipc(table))


def read_table(path: str) -> pa.Table:
    """Reads what `write_table` wrote."""
    return from_ipc(places.read_bytes(path))
