"""The split by fractions of time: the oldest documents train, the newest test. Where one split ends
follows from the times of all documents.
"""

import dataclasses
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.sections.splits import TimeFractionSplits
from beam_jobs.preprocessing.buckets import (
    Bucket,
    bucket_path,
    read_table,
    replace_column,
    write_table,
)
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

TIMES = pa.schema([("time", pa.int64()), ("count", pa.int64())])
_NEVER = np.iinfo(np.int64).max


@dataclasses.dataclass
class SplitByTime(beam.PTransform):
    """Buckets of ENCODED without splits -> with splits, by the column `time_us`.

    One worker holds the distinct times of all documents, 16 bytes each.

    Attributes:
      directory: for spill files and the buckets.
      splits: the fractions.
    """

    directory: str
    splits: TimeFractionSplits

    def expand(self, buckets):
        documents = (
            buckets
            | "Documents" >> beam.Map(lambda bucket: bucket.documents)
            | "Total" >> beam.CombineGlobally(sum)
        )
        cuts = (
            buckets
            | "Times" >> beam.Map(_count_times)
            | "SpillTimes" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupTimes" >> beam.GroupByKey()
            | "Cuts" >> beam.Map(self._cuts, AsSingleton(documents))
        )
        return buckets | "ApplyCuts" >> beam.Map(
            self._apply, AsSingleton(cuts, default_value=(_NEVER, _NEVER))
        )

    def _cuts(self, element: tuple[int, Iterable[Segment]], documents: int) -> tuple[int, int]:
        times = (
            read_segments(element[1], TIMES)
            .group_by("time")
            .aggregate([("count", "sum")])
            .sort_by("time")
        )
        counts = times["count_sum"].to_numpy()
        if counts.sum() != documents:
            raise RuntimeError(
                f"the runner lost or repeated data: received {counts.sum():,} times, expected one "
                f"for each of {documents:,} documents"
            )
        return find_cuts(times["time"].to_numpy(), counts, self.splits)

    def _apply(self, bucket: Bucket, cuts: tuple[int, int]) -> Bucket:
        table = read_table(bucket.path)
        times = table["time_us"].to_numpy()
        splits = np.sum([times >= cut for cut in cuts], axis=0).astype(np.int8)
        path = bucket_path(self.directory, "timed", bucket.index)
        write_table(path, replace_column(table, "split", pa.array(splits)))
        return dataclasses.replace(bucket, path=path)


def _count_times(bucket: Bucket) -> pa.Table:
    """TIMES of a bucket, all with one `key`."""
    table = read_table(bucket.path)
    times, counts = np.unique(table["time_us"].to_numpy(), return_counts=True)
    return pa.table([times, counts], schema=TIMES).append_column(
        "key", pa.array(np.zeros(len(times), np.int64))
    )


def find_cuts(times: np.ndarray, counts: np.ndarray, splits: TimeFractionSplits) -> tuple[int, int]:
    """The first times of validation and of test.

    Documents of equal time stay together, so the fractions are met as nearly as that allows.

    Args:
      times: int64 [times], distinct and sorted.
      counts: int64 [times], documents of each.
      splits: the fractions.
    """
    before = np.concatenate([[0], np.cumsum(counts)])  # documents before each time, and all
    first = np.argmin(np.abs(before - splits.train * before[-1]))
    second = max(first, np.argmin(np.abs(before - (splits.train + splits.validation) * before[-1])))
    ends = [*times.tolist(), _NEVER]
    return ends[first], ends[second]
