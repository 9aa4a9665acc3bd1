"""Rejects are sorted and written to one file."""

import contextlib
import dataclasses
import heapq
import json
import zlib
from collections.abc import Iterable, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract import places
from beam_jobs.contract.manifest import REJECTS
from beam_jobs.runtime import document_counters
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments
from beam_jobs.sources.documents import Reject

_PARTITIONS = 256  # each is sorted in memory
_WRITE_BATCH = 64  # rejects, of up to 64 KiB each

REJECT_ROWS = pa.schema(
    [
        (field.name, pa.int64() if field.type is int else pa.large_string())
        for field in dataclasses.fields(Reject)
    ]
)


@dataclasses.dataclass
class CollectRejects(beam.PTransform):
    """PCollections of list[Reject] -> rejects by reason: one dict, or none if nothing is rejected.

    Attributes:
      work_dir: for spill files and sorted parts.
      dataset_dir: where the rejects file is written.
    """

    work_dir: str
    dataset_dir: str

    def expand(self, rejects):
        # Spilled before they are flattened: the local runner holds what it flattens in memory.
        spilled = [
            batches
            | f"RejectTable{i}" >> beam.Map(_counted_table)
            | f"SpillRejects{i}" >> beam.ParDo(SpillByKey(self.work_dir))
            for i, batches in enumerate(rejects)
        ]
        return (
            spilled
            | "AllRejects" >> beam.Flatten()
            | "GroupRejects" >> beam.GroupByKey()
            | "SortRejects"
            >> beam.Map(lambda element: (None, sort_rejects(*element, self.work_dir)))
            | "GroupSortedRejects" >> beam.GroupByKey()
            | "WriteRejects"
            >> beam.Map(lambda element: write_rejects(element[1], self.dataset_dir))
        )


def _counted_table(rejects: Sequence[Reject]) -> pa.Table:
    document_counters.increment(rejected=len(rejects))
    return reject_table(rejects)


def reject_table(rejects: Sequence[Reject]) -> pa.Table:
    """REJECT_ROWS with a partition as `key`: there may be as many rejects as documents."""
    clean = [
        {key: _writable(value) for key, value in dataclasses.asdict(reject).items()}
        for reject in rejects
    ]
    # CRC-32 is the same in every process, which Python's hash() is not.
    keys = [
        zlib.crc32(f"{reject['source']}\0{reject['row']}".encode()) % _PARTITIONS
        for reject in clean
    ]
    return pa.Table.from_pylist(clean, schema=REJECT_ROWS).append_column(
        "key", pa.array(keys, pa.int64())
    )


@dataclasses.dataclass(frozen=True)
class SortedRejects:
    """A file of rejects, one per line, in the order of the whole rejects file, and their number by
    reason.
    """

    path: str
    counts: dict[str, int]


def sort_rejects(partition: int, segments: Iterable[Segment], directory: str) -> SortedRejects:
    """Writes the rejects of one partition, sorted."""
    table = read_segments(segments, REJECT_ROWS).sort_by(
        [(name, "ascending") for name in REJECT_ROWS.names]
    )
    path = places.join(directory, f"rejects-{partition:03d}.jsonl")
    with places.create(path) as stream:
        for batch in table.to_batches(max_chunksize=_WRITE_BATCH):
            stream.write(
                b"".join(
                    json.dumps(reject, ensure_ascii=False).encode() + b"\n"
                    for reject in batch.to_pylist()
                )
            )
    counts = pc.value_counts(table["reason"]).to_pylist()
    return SortedRejects(path, {row["values"]: row["counts"] for row in counts})


def write_rejects(sorted_rejects: Iterable[SortedRejects], directory: str) -> dict[str, int]:
    """Merges the partitions into the rejects file, sorted by source and row; returns the number of
    rejects by reason.
    """
    counts: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(places.create(places.join(directory, REJECTS)))
        streams = []
        for part in sorted_rejects:
            streams.append(stack.enter_context(places.open_local(part.path)))
            for reason, count in part.counts.items():
                counts[reason] = counts.get(reason, 0) + count
        for line in heapq.merge(*streams, key=lambda line: tuple(json.loads(line).values())):
            target.write(line)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _writable(value):
    """A string without lone surrogates, which come from JSON and cannot be encoded in UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
