"""Duplicates: documents with equal analyzed text become one, with the labels of all."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.dataset_config import SplitsConfig, TimeFractionSplits
from beam_jobs.preprocessing.buckets import DOCUMENTS, Bucket, split_keys, write_table
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.splits import assign
from beam_jobs.runtime.spill import Segment, read_segments


@dataclasses.dataclass
class MergeDuplicates(beam.DoFn):
    """(bucket, segments of DOCUMENTS) -> Bucket.

    Of equal documents the one with the smallest id stays, with the labels of all, the largest weight and the last split given:
    a test split stays whole, and what is in it is in no other split.
    """

    directory: str
    splits: SplitsConfig
    labels: LabelRules

    def process(self, element: tuple[int, Iterable[Segment]]) -> Iterator[Bucket]:
        index, segments = element
        received = read_segments(segments, DOCUMENTS)
        labels, label_changes = self.labels.clean(received["labels"])
        table = merge(
            received.set_column(
                received.column_names.index("labels"), DOCUMENTS.field("labels"), labels
            )
        )
        splits = assign(split_keys(table["digest"]), table["given"].to_numpy(), self.splits)
        table = table.append_column("split", pa.array(splits))
        if not isinstance(self.splits, TimeFractionSplits):
            table = table.drop_columns("given")
        path = FileSystems.join(self.directory, f"bucket-{index:05d}.arrow")
        write_table(path, table)
        yield Bucket(index, path, table.num_rows, received.num_rows - table.num_rows, label_changes)


def merge(table: pa.Table) -> pa.Table:
    """Documents in any order -> one a digest, sorted by digest; a document's labels are sorted and each there once."""
    order = pc.sort_indices(table, sort_keys=[("digest", "ascending"), ("id", "ascending")])
    table = table.take(order).combine_chunks()
    digests = np.array(table["digest"].to_pylist(), dtype=object)
    is_first = np.ones(len(digests), bool)
    is_first[1:] = digests[1:] != digests[:-1]
    group = np.cumsum(is_first) - 1
    merged = table.filter(pa.array(is_first))
    for name in ("weight", "given"):
        values = merged[name].to_numpy().copy()
        np.maximum.at(values, group, table[name].to_numpy())
        merged = merged.set_column(merged.column_names.index(name), name, pa.array(values))
    return merged.set_column(
        merged.column_names.index("labels"),
        "labels",
        merge_labels(table["labels"], group, merged.num_rows),
    )


def merge_labels(labels: pa.ChunkedArray, group: np.ndarray, num_groups: int) -> pa.Array:
    """Lists of names and the group of each -> the names of each group, sorted and each once."""
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
