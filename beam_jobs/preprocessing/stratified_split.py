"""The stratified split in Beam: documents keyed by their rarest label, split by partitions, and sent back to their buckets."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.dataset_config import StratifiedSplits
from beam_jobs.preprocessing.buckets import Bucket, read_table, split_keys, write_table
from beam_jobs.preprocessing.frequencies import Frequencies
from beam_jobs.preprocessing.splits import TRAIN, stratify
from beam_jobs.preprocessing.tally import select
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

PARTITION_DOCUMENTS = (
    1_000_000  # about so many documents are split together: seconds and some 300 MB
)

# A document as the split sees it. `counts` is false for one that the dataset will not hold.
_LABELED = pa.schema(
    [
        ("digest", pa.binary()),
        ("bucket", pa.int64()),
        ("labels", pa.large_list(pa.int64())),
        ("counts", pa.bool_()),
    ]
)
_SPLIT = pa.schema([("digest", pa.binary()), ("split", pa.int8())])


@dataclasses.dataclass
class Stratify(beam.PTransform):
    """Buckets without splits -> buckets with splits.

    Attributes:
      directory: for spill files and the buckets.
      splits: the fractions.
      keep_unlabeled: whether documents without kept labels are in the dataset.
      label_names: PCollection of one array, the kept labels; a label's id is its place.
      kept_labels: PCollection of one Frequencies.
    """

    directory: str
    splits: StratifiedSplits
    keep_unlabeled: bool
    label_names: beam.PCollection
    kept_labels: beam.PCollection

    def expand(self, buckets):
        frequencies = (
            buckets.pipeline
            | "One" >> beam.Create([None])
            | "Frequencies"
            >> beam.Map(_frequencies, AsSingleton(self.label_names), AsSingleton(self.kept_labels))
        )
        documents = (
            buckets
            | "Documents" >> beam.Map(lambda bucket: bucket.documents)
            | "Total" >> beam.CombineGlobally(sum)
        )
        split = (
            buckets
            | "Labels"
            >> beam.Map(
                self._labeled,
                AsSingleton(self.label_names),
                AsSingleton(frequencies),
                AsSingleton(documents),
            )
            | "SpillLabels" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupPartition" >> beam.GroupByKey()
            | "SplitPartition" >> beam.Map(self._split, AsSingleton(frequencies))
            | "SpillSplits" >> beam.ParDo(SpillByKey(self.directory))
        )  # (bucket, Segment)
        keyed = buckets | "Keyed" >> beam.Map(lambda bucket: (bucket.index, bucket))
        return (
            (keyed, split)
            | "Both" >> beam.Flatten()
            | "GroupBucket" >> beam.GroupByKey()
            | "ApplySplits" >> beam.FlatMap(self._apply)
        )

    def _labeled(
        self, bucket: Bucket, label_names: pa.Array, frequencies: np.ndarray, documents: int
    ) -> pa.Table:
        table = select(read_table(bucket.path), label_names, keep_unlabeled=True)
        labels_each = pc.list_value_length(table["labels"]).to_numpy()
        labels = pc.list_flatten(table["labels"]).to_numpy()
        partitions = -(-documents // PARTITION_DOCUMENTS)
        keys = split_keys(table["digest"]) % np.uint64(partitions)
        # All documents of a rare label stand in one partition; of a frequent one, any part has all splits in proportion.
        starts = (np.cumsum(labels_each) - labels_each)[labels_each > 0]
        if len(starts):
            rarest_first = np.lexsort(
                (labels, frequencies[labels], np.repeat(np.arange(len(labels_each)), labels_each))
            )
            rarest = labels[rarest_first][starts]
            rows = np.flatnonzero(labels_each > 0)
            is_rare = frequencies[rarest] <= PARTITION_DOCUMENTS // 10
            keys[rows[is_rare]] = rarest[is_rare].astype(np.uint64) % np.uint64(partitions)
        counts = pa.array((labels_each > 0) | self.keep_unlabeled)
        columns = [table["digest"], np.full(table.num_rows, bucket.index), table["labels"], counts]
        return pa.table(columns, schema=_LABELED).append_column(
            "key", pa.array(keys.astype(np.int64))
        )

    def _split(self, element: tuple[int, Iterable[Segment]], frequencies: np.ndarray) -> pa.Table:
        table = read_segments(element[1], _LABELED)
        is_counted = table["counts"].to_numpy()
        splits = np.full(table.num_rows, TRAIN, np.int8)
        counted = table.filter(table["counts"])
        splits[is_counted] = stratify(
            counted["labels"].to_pylist(), split_keys(counted["digest"]), frequencies, self.splits
        )
        return pa.table([table["digest"], splits], schema=_SPLIT).append_column(
            "key", table["bucket"]
        )

    def _apply(self, element: tuple[int, Iterable[Bucket | Segment]]) -> Iterator[Bucket]:
        received = list(element[1])
        splits = read_segments(
            (item for item in received if isinstance(item, Segment)), _SPLIT
        ).combine_chunks()
        for bucket in (item for item in received if isinstance(item, Bucket)):
            table = read_table(bucket.path)
            places = pc.index_in(table["digest"], value_set=splits["digest"].combine_chunks())
            if places.null_count or splits.num_rows != table.num_rows:
                raise RuntimeError(
                    f"the runner lost or repeated data: {splits.num_rows:,} splits for {table.num_rows:,} documents of a bucket"
                )
            table = table.set_column(
                table.column_names.index("split"), "split", splits["split"].take(places)
            )
            path = FileSystems.join(self.directory, f"split-{bucket.index:05d}.arrow")
            write_table(path, table)
            yield dataclasses.replace(bucket, path=path)


def _frequencies(_, label_names: pa.Array, kept_labels: Frequencies) -> np.ndarray:
    """int64 [labels]: documents with each label, by its id."""
    places = pc.index_in(label_names, value_set=kept_labels.counts["name"].combine_chunks())
    return kept_labels.counts["count"].take(places).to_numpy()
