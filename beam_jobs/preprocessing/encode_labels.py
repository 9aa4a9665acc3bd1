"""Label names become ids: frequent labels are kept, and documents without any may be dropped."""

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton

from beam_jobs.preprocessing.buckets import (
    Bucket,
    bucket_path,
    read_table,
    replace_column,
    write_table,
)
from beam_jobs.preprocessing.frequencies import Frequencies, MostFrequent, count_documents
from beam_jobs.preprocessing.labels import LabelRules, ResolvedLabels
from beam_jobs.runtime.step_times import TimedDoFn


@dataclasses.dataclass
class EncodeLabels(beam.PTransform):
    """Buckets of MERGED -> buckets of ENCODED, and the kept labels: one Frequencies.

    A label's id is its index in the sorted names of the kept labels.

    Attributes:
      directory: for spill files and the buckets.
      labels: which labels are kept, and whether documents without any of them are.
    """

    directory: str
    labels: ResolvedLabels

    def expand(self, buckets):
        kept_labels = (
            buckets
            | "CountLabels" >> beam.Map(_label_counts)
            | "KeepLabels"
            >> MostFrequent(
                self.directory,
                self.labels.min_count,
                self.labels.top_k,
                always=LabelRules(self.labels).included,
            )
        )
        label_names = kept_labels | "SortLabels" >> beam.Map(sorted_names)
        encoded = buckets | "Encode" >> beam.ParDo(
            TimedDoFn("encode", EncodeBucket(self.directory, self.labels.keep_unlabeled)),
            AsSingleton(label_names),
        )
        return encoded, kept_labels


def _label_counts(bucket: Bucket) -> pa.Table:
    return count_documents(read_table(bucket.path)["labels"])


def sorted_names(kept_labels: Frequencies) -> pa.Array:
    """The names of the kept labels, by id."""
    names = kept_labels.counts["name"].combine_chunks()
    return pc.take(names, pc.sort_indices(names))


@dataclasses.dataclass
class EncodeBucket(beam.DoFn):
    """(Bucket of MERGED, label names by id) -> Bucket of ENCODED."""

    directory: str
    keep_unlabeled: bool

    def process(self, bucket: Bucket, label_names: pa.Array) -> Iterator[Bucket]:
        merged = read_table(bucket.path)
        encoded = encode_labels(merged, label_names, keep_unlabeled=self.keep_unlabeled)
        path = bucket_path(self.directory, "encoded", bucket.index)
        write_table(path, encoded)
        yield dataclasses.replace(
            bucket,
            path=path,
            documents=encoded.num_rows,
            label_occurrences=len(pc.list_flatten(merged["labels"])),
            dropped_without_labels=merged.num_rows - encoded.num_rows,
        )


def encode_labels(merged: pa.Table, label_names: pa.Array, *, keep_unlabeled: bool) -> pa.Table:
    """MERGED -> ENCODED; labels that are not among `label_names` are dropped.

    Args:
      merged: documents; each one's labels are sorted by name.
      label_names: the kept labels, sorted: a label's id is its index.
      keep_unlabeled: keep documents that are left without labels.
    """
    ids = pc.index_in(pc.list_flatten(merged["labels"]).combine_chunks(), value_set=label_names)
    is_kept = ids.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(merged["labels"]).to_numpy()[is_kept]
    offsets = np.searchsorted(rows, np.arange(merged.num_rows + 1))
    kept_ids = ids.filter(pa.array(is_kept)).cast(pa.int64())
    labels = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), kept_ids)
    table = replace_column(merged, "labels", labels)
    if keep_unlabeled:
        return table
    return table.filter(pc.greater(pc.list_value_length(table["labels"]), 0))
