"""Duplicates: documents with equal analyzed texts become one, with the labels of all."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract.sections.labels import LabelsConfig
from beam_jobs.contract.sections.splits import SplitsConfig
from beam_jobs.preprocessing.buckets import (
    DOCUMENTS,
    MERGED,
    Bucket,
    bucket_path,
    order_keys,
    replace_column,
    split_keys,
    write_table,
)
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.splits import assign
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments
from beam_jobs.runtime.step_times import TimedDoFn

MERGED_BUCKETS = "merged"  # the stage's name in `bucket_path`


@dataclasses.dataclass
class MergeIntoBuckets(beam.PTransform):
    """Tables of DOCUMENTS -> buckets of MERGED.

    Attributes:
      directory: for spill files and the buckets.
      bucket_bits: there are 2**bucket_bits buckets.
      splits: how documents are split.
      labels: how label names are cleaned.
    """

    directory: str
    bucket_bits: int
    splits: SplitsConfig
    labels: LabelsConfig

    def expand(self, documents):
        merge = MergeDuplicates(self.directory, self.splits, LabelRules(self.labels))
        return (
            documents
            | "Bucket" >> beam.Map(with_bucket, bits=self.bucket_bits)
            | "SpillDocuments" >> beam.ParDo(TimedDoFn("spill", SpillByKey(self.directory)))
            | "GroupBucket" >> beam.GroupByKey()
            | "MergeDuplicates" >> beam.ParDo(TimedDoFn("merge", merge))
        )


def with_bucket(documents: pa.Table, bits: int) -> pa.Table:
    """DOCUMENTS with the bucket's index, of 2**bits, as `key`; it grows with the digest."""
    buckets = (order_keys(documents["digest"]) >> np.uint64(32)).astype(np.int64) >> (32 - bits)
    return documents.append_column("key", pa.array(buckets))


@dataclasses.dataclass
class MergeDuplicates(beam.DoFn):
    """(bucket's index, segments of DOCUMENTS) -> Bucket of MERGED.

    Of equal documents the one with the smallest id stays, with the labels of all, the largest
    weight, the latest time, and the last split that a source gives: a test split stays complete,
    and no other split holds any of its documents.
    """

    directory: str
    splits: SplitsConfig
    labels: LabelRules

    def process(self, element: tuple[int, Iterable[Segment]]) -> Iterator[Bucket]:
        index, segments = element
        received = read_segments(segments, DOCUMENTS)
        labels, label_changes, names_used = self.labels.clean(received["labels"])
        received = replace_column(received, "labels", labels)
        table = merge(received)
        split = assign(split_keys(table["digest"]), table["source_split"], self.splits)
        path = bucket_path(self.directory, MERGED_BUCKETS, index)
        write_table(path, table.append_column("split", split).select(MERGED.names))
        yield Bucket(
            index,
            path,
            table.num_rows,
            duplicates=received.num_rows - table.num_rows,
            duplicates_with_other_labels=count_with_other_labels(received, table),
            label_changes=label_changes,
            label_names_used=names_used,
        )


def merge(table: pa.Table) -> pa.Table:
    """DOCUMENTS in any order -> one per digest, in order of digests; labels sorted and distinct."""
    order = pc.sort_indices(table, sort_keys=[("digest", "ascending"), ("id", "ascending")])
    table = table.take(order).combine_chunks()
    digests = np.array(table["digest"].to_pylist(), dtype=object)
    is_first = np.ones(len(digests), bool)
    is_first[1:] = digests[1:] != digests[:-1]
    group = np.cumsum(is_first) - 1
    merged = table.filter(pa.array(is_first))
    maximal = ("weight", "source_split", "time_us")
    # Without threads the groups come out in the order in which they come in.
    maxima = (
        table.select(maximal)
        .append_column("group", pa.array(group))
        .group_by("group", use_threads=False)
        .aggregate([(name, "max") for name in maximal])
    )
    for name in maximal:
        merged = replace_column(merged, name, maxima[f"{name}_max"])
    return replace_column(merged, "labels", _merge_labels(table["labels"], group, merged.num_rows))


def count_with_other_labels(received: pa.Table, merged: pa.Table) -> int:
    """Of the documents that were merged, those of texts whose labels were not always the same.

    Args:
      received: DOCUMENTS.
      merged: what `merge` makes of them.
    """
    if merged.num_rows == received.num_rows:
        return 0
    digests = merged["digest"].combine_chunks()
    group = pc.index_in(received["digest"], value_set=digests).to_numpy()
    documents = np.bincount(group, minlength=merged.num_rows)
    is_merged = documents[group] > 1
    group = group[is_merged]
    labels = received["labels"].filter(pa.array(is_merged))
    own_labels = _merge_labels(labels, np.arange(len(group)), len(group))
    num_own = pc.list_value_length(own_labels).to_numpy()
    num_all = pc.list_value_length(merged["labels"]).to_numpy()
    # A document has the labels of all of its text's documents if it has as many.
    differs = np.unique(group[num_own < num_all[group]])
    return int((documents[differs] - 1).sum())


def _merge_labels(labels: pa.ChunkedArray, group: np.ndarray, num_groups: int) -> pa.Array:
    """Lists of names and the group of each list -> the names of each group, sorted and distinct."""
    names = pc.list_flatten(labels)
    codes = names.combine_chunks().dictionary_encode()
    dictionary = codes.dictionary
    ranks = np.empty(len(dictionary), np.int64)
    ranks[pc.sort_indices(dictionary).to_numpy()] = np.arange(len(dictionary))
    row_of_name = group[pc.list_parent_indices(labels).to_numpy()]
    # Each (document, label) once, sorted by document and then by the label's name.
    pairs = np.unique(row_of_name * max(len(dictionary), 1) + ranks[codes.indices.to_numpy()])
    rows, name_ranks = np.divmod(pairs, max(len(dictionary), 1))
    offsets = np.searchsorted(rows, np.arange(num_groups + 1))
    sorted_names = dictionary.take(pc.sort_indices(dictionary))
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), sorted_names.take(pa.array(name_ranks))
    )
