"""The split by time in fractions: the oldest documents train. When one split ends follows from the times of all documents."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.dataset_config import TimeFractionSplits
from beam_jobs.preprocessing.buckets import Bucket, read_table, write_table
from beam_jobs.preprocessing.tally import select
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

_TIMES = pa.schema([("time", pa.int64()), ("count", pa.int64())])
_DOCUMENTS_TAG = "documents"
_NEVER = np.iinfo(np.int64).max


@dataclasses.dataclass
class SplitByTime(beam.PTransform):
    """Buckets whose documents have a time, in the column `given`, and no split -> buckets with splits.

    One worker holds the different times of all documents, 16 bytes each.

    Attributes:
      directory: for spill files and the buckets.
      splits: the fractions.
      keep_unlabeled: whether documents without kept labels are in the dataset; others do not count.
      label_names: PCollection of one array, the kept labels.
    """

    directory: str
    splits: TimeFractionSplits
    keep_unlabeled: bool
    label_names: beam.PCollection

    def expand(self, buckets):
        counted = buckets | "Times" >> beam.ParDo(
            _CountTimes(self.keep_unlabeled), AsSingleton(self.label_names)
        ).with_outputs(_DOCUMENTS_TAG, main="times")
        documents = counted[_DOCUMENTS_TAG] | "Total" >> beam.CombineGlobally(sum)
        cuts = (
            counted.times
            | "SpillTimes" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupTimes" >> beam.GroupByKey()
            | "Cuts" >> beam.Map(self._cuts, AsSingleton(documents))
        )
        return buckets | "ApplyCuts" >> beam.Map(
            self._apply, AsSingleton(cuts, default_value=(_NEVER, _NEVER))
        )

    def _cuts(self, element: tuple[int, Iterable[Segment]], documents: int) -> tuple[int, int]:
        times = (
            read_segments(element[1], _TIMES)
            .group_by("time")
            .aggregate([("count", "sum")])
            .sort_by("time")
        )
        counts = times["count_sum"].to_numpy()
        if counts.sum() != documents:
            raise RuntimeError(
                f"the runner lost or repeated data: {counts.sum():,} times for {documents:,} documents"
            )
        return find_cuts(times["time"].to_numpy(), counts, self.splits)

    def _apply(self, bucket: Bucket, cuts: tuple[int, int]) -> Bucket:
        table = read_table(bucket.path)
        splits = np.sum([table["given"].to_numpy() >= cut for cut in cuts], axis=0).astype(np.int8)
        table = table.drop_columns(["given", "split"]).append_column("split", pa.array(splits))
        path = FileSystems.join(self.directory, f"timed-{bucket.index:05d}.arrow")
        write_table(path, table)
        return dataclasses.replace(bucket, path=path)


@dataclasses.dataclass
class _CountTimes(beam.DoFn):
    """(Bucket, label names) -> _TIMES with `key`; tagged, the number of documents."""

    keep_unlabeled: bool

    def process(self, bucket: Bucket, label_names: pa.Array) -> Iterator[pa.Table]:
        table = select(read_table(bucket.path), label_names, keep_unlabeled=self.keep_unlabeled)
        times, counts = np.unique(table["given"].to_numpy(), return_counts=True)
        yield pa.table([times, counts], schema=_TIMES).append_column(
            "key", pa.array(np.zeros(len(times), np.int64))
        )
        yield beam.pvalue.TaggedOutput(_DOCUMENTS_TAG, table.num_rows)


def find_cuts(times: np.ndarray, counts: np.ndarray, splits: TimeFractionSplits) -> tuple[int, int]:
    """The first times of validation and of test. Documents of equal time stay together, so fractions are met as nearly as may be.

    Args:
      times: int64 [times], different and sorted.
      counts: int64 [times], documents of each.
      splits: the fractions.
    """
    before = np.concatenate([[0], np.cumsum(counts)])  # documents before each time, and all
    first = np.argmin(np.abs(before - splits.train * before[-1]))
    second = max(first, np.argmin(np.abs(before - (splits.train + splits.validation) * before[-1])))
    ends = [*times.tolist(), _NEVER]
    return ends[first], ends[second]
