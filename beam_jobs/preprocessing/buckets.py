"""The intermediate format: buckets of analyzed documents in Arrow files."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.manifest import LabelChanges
from beam_jobs.runtime.spill import from_ipc, to_ipc

# An analyzed document. `text` holds the analyzed text of each text field, a line each. `digest` is BLAKE2b-128 of it: its first
# half orders documents within a split, its second half decides the split, unless its source says it, or the time, in `given`.
DOCUMENTS = pa.schema(
    [
        ("digest", pa.binary()),
        ("id", pa.large_binary()),
        ("text", pa.large_string()),
        ("labels", pa.large_list(pa.large_string())),
        ("weight", pa.float32()),
        ("metadata", pa.large_list(pa.large_string())),
        ("given", pa.int64()),
    ]
)


def tokens_of(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column `text` -> lists of tokens, those of all text fields in one row."""
    return pc.ascii_split_whitespace(pc.ascii_trim_whitespace(texts))


def order_keys(digests: pa.ChunkedArray) -> np.ndarray:
    """uint64 [documents]: the first half of each digest."""
    return _halves(digests)[:, 0]


def split_keys(digests: pa.ChunkedArray) -> np.ndarray:
    """uint64 [documents]: the second half of each digest."""
    return _halves(digests)[:, 1]


def _halves(digests: pa.ChunkedArray) -> np.ndarray:
    content = b"".join(digests.to_pylist())
    return np.frombuffer(content, dtype=">u8").reshape(-1, 2).astype(np.uint64)


MERGED = pa.schema([*(field for field in DOCUMENTS if field.name != "given"), ("split", pa.int8())])


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A file of merged documents, whose order keys all lie in one range; sorted by digest.

    Attributes:
      index: the bucket's place in the order of keys.
      path: an Arrow IPC stream of MERGED.
      documents: documents in it.
      duplicates: documents that were merged into others.
      label_changes: what cleaning did to their labels.
      near_duplicates: documents left out because they are nearly equal to others.
    """

    index: int
    path: str
    documents: int
    duplicates: int
    label_changes: LabelChanges = LabelChanges()
    near_duplicates: int = 0


def write_table(path: str, table: pa.Table) -> None:
    """Writes an Arrow IPC stream, through a temporary name: a retried bundle never meets half a file."""
    temporary = f"{path}.tmp"
    with FileSystems.create(temporary) as stream:
        stream.write(to_ipc(table))
    if FileSystems.exists(path):
        FileSystems.delete([path])
    FileSystems.rename([temporary], [path])


def read_table(path: str) -> pa.Table:
    """Reads what `write_table` wrote."""
    with FileSystems.open(path, compression_type="uncompressed") as stream:
        return from_ipc(stream.read())
