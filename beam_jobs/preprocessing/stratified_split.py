"""The stratified split in Beam: documents are split in partitions by their rarest label, and the
splits are sent back to the buckets.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.sections.splits import StratifiedSplits
from beam_jobs.preprocessing.buckets import (
    Bucket,
    bucket_path,
    keyed_by_bucket,
    read_table,
    replace_column,
    split_keys,
    with_received,
    write_table,
)
from beam_jobs.preprocessing.frequencies import Frequencies
from beam_jobs.preprocessing.splits import stratify
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

# About so many documents are split at a time, in seconds and some 300 MB.
PARTITION_DOCUMENTS = 1_000_000

LABELED = pa.schema(
    [("digest", pa.binary()), ("bucket", pa.int64()), ("labels", pa.large_list(pa.int64()))]
)
SPLIT = pa.schema([("digest", pa.binary()), ("split", pa.int8())])


@dataclasses.dataclass
class Stratify(beam.PTransform):
    """Buckets of ENCODED without splits -> with splits.

    Attributes:
      directory: for spill files and the buckets.
      splits: the fractions.
      kept_labels: PCollection of one Frequencies.
    """

    directory: str
    splits: StratifiedSplits
    kept_labels: beam.PCollection

    def expand(self, buckets):
        frequencies = self.kept_labels | "Frequencies" >> beam.Map(_frequencies_by_id)
        documents = (
            buckets
            | "Documents" >> beam.Map(lambda bucket: bucket.documents)
            | "Total" >> beam.CombineGlobally(sum)
        )
        splits = (
            buckets
            | "Labels"
            >> beam.Map(_labels_by_partition, AsSingleton(frequencies), AsSingleton(documents))
            | "SpillLabels" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupPartition" >> beam.GroupByKey()
            | "SplitPartition" >> beam.Map(self._split, AsSingleton(frequencies))
            | "SpillSplits" >> beam.ParDo(SpillByKey(self.directory))
        )  # (bucket's index, Segment of SPLIT)
        return (
            (buckets | "Keyed" >> keyed_by_bucket(), splits)
            | "Both" >> beam.Flatten()
            | "GroupBucket" >> beam.GroupByKey()
            | "ApplySplits" >> beam.FlatMap(self._apply)
        )

    def _split(self, element: tuple[int, Iterable[Segment]], frequencies: np.ndarray) -> pa.Table:
        table = read_segments(element[1], LABELED)
        labels, keys = table["labels"].to_pylist(), split_keys(table["digest"])
        splits = stratify(labels, keys, frequencies, self.splits)
        return pa.table([table["digest"], splits], schema=SPLIT).append_column(
            "key", table["bucket"]
        )

    def _apply(self, element: tuple[int, Iterable[Bucket | Segment]]) -> Iterator[Bucket]:
        for bucket, splits in with_received(element, SPLIT):
            table = read_table(bucket.path)
            rows = pc.index_in(table["digest"], value_set=splits["digest"].combine_chunks())
            if rows.null_count or splits.num_rows != table.num_rows:
                raise RuntimeError(
                    f"the runner lost or repeated data: received {splits.num_rows:,} splits, "
                    f"expected one for each of {table.num_rows:,} documents of a bucket"
                )
            path = bucket_path(self.directory, "stratified", bucket.index)
            write_table(path, replace_column(table, "split", splits["split"].take(rows)))
            yield dataclasses.replace(bucket, path=path)


def _frequencies_by_id(kept_labels: Frequencies) -> np.ndarray:
    """int64 [labels]: documents with each label, by its id."""
    return kept_labels.counts.sort_by("name")["count"].to_numpy()


def _labels_by_partition(bucket: Bucket, frequencies: np.ndarray, documents: int) -> pa.Table:
    """A bucket's documents as LABELED, with the partition of each as `key`.

    All documents whose rarest label is rare are in that label's partition; of a frequent label, any
    part of its documents can be split in proportion.
    """
    table = read_table(bucket.path)
    partitions = max(1, -(-documents // PARTITION_DOCUMENTS))
    keys = split_keys(table["digest"]) % np.uint64(partitions)
    num_labels = pc.list_value_length(table["labels"]).to_numpy()
    labels = pc.list_flatten(table["labels"]).to_numpy()
    rows = np.flatnonzero(num_labels)
    if len(rows):
        starts = (np.cumsum(num_labels) - num_labels)[rows]
        row_of_label = np.repeat(np.arange(len(num_labels)), num_labels)
        rarest_first = np.lexsort((labels, frequencies[labels], row_of_label))
        rarest = labels[rarest_first][starts]
        is_rare = frequencies[rarest] <= PARTITION_DOCUMENTS // 10
        keys[rows[is_rare]] = rarest[is_rare].astype(np.uint64) % np.uint64(partitions)
    columns = [table["digest"], np.full(table.num_rows, bucket.index), table["labels"]]
    return pa.table(columns, schema=LABELED).append_column("key", pa.array(keys.astype(np.int64)))
