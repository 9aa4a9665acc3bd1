"""Rejects: sorted and written as one file."""

import contextlib
import dataclasses
import heapq
import json
import zlib
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.manifest import REJECTS
from beam_jobs.runtime.spill import Segment, read_segments
from beam_jobs.sources.documents import Reject

_REJECT_PARTITIONS = 256  # each is sorted in memory

_WRITTEN_TOGETHER = 64  # rejects, of up to 64 KiB each

REJECT_ROWS = pa.schema(
    [
        (field.name, pa.int64() if field.type is int else pa.large_string())
        for field in dataclasses.fields(Reject)
    ]
)


def reject_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rejects in columns, with a partition of them as `key`: they may be as many as the documents."""
    clean = [
        {key: _writable(value) for key, value in dataclasses.asdict(reject).items()}
        for reject in rejects
    ]
    # CRC-32 is the same in every process, which Python's hash() is not.
    keys = [
        zlib.crc32(f"{reject['source']}\0{reject['row']}".encode()) % _REJECT_PARTITIONS
        for reject in clean
    ]
    return pa.Table.from_pylist(clean, schema=REJECT_ROWS).append_column(
        "key", pa.array(keys, pa.int64())
    )


@dataclasses.dataclass(frozen=True)
class SortedRejects:
    """A file of rejects, a line each, sorted as the whole rejects file is; and how many there are of each reason."""

    path: str
    counts: dict[str, int]


def sort_rejects(partition: int, segments: Iterable[Segment], directory: str) -> SortedRejects:
    """Writes the rejects of one partition, sorted."""
    table = read_segments(segments, REJECT_ROWS).sort_by(
        [(name, "ascending") for name in REJECT_ROWS.names]
    )
    path = FileSystems.join(directory, f"rejects-{partition:03d}.jsonl")
    with FileSystems.create(path) as stream:
        for batch in table.to_batches(max_chunksize=_WRITTEN_TOGETHER):
            stream.write(
                b"".join(
                    json.dumps(reject, ensure_ascii=False).encode() + b"\n"
                    for reject in batch.to_pylist()
                )
            )
    counts = pc.value_counts(table["reason"]).to_pylist()
    return SortedRejects(path, {row["values"]: row["counts"] for row in counts})


def write_rejects(sorted_rejects: Iterable[SortedRejects], directory: str) -> dict[str, int]:
    """Merges the partitions into the rejects file, sorted by source and row; returns the number of rejects by reason."""
    counts: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(
            FileSystems.create(f"{directory}/{REJECTS}", mime_type="application/jsonl")
        )
        streams = []
        for part in sorted_rejects:
            streams.append(
                stack.enter_context(FileSystems.open(part.path, compression_type="uncompressed"))
            )
            for reason, count in part.counts.items():
                counts[reason] = counts.get(reason, 0) + count
        for line in heapq.merge(*streams, key=lambda line: tuple(json.loads(line).values())):
            target.write(line)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _writable(value):
    """A lone surrogate, which JSON can bring in, has no UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
