"""Counting names (labels, tokens) in columns: partial counts in each bucket, summed by partitions of the names."""

import dataclasses
import zlib

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.runtime.spill import SpillByKey, read_segments

NUM_PARTITIONS = (
    64  # each is summed in memory: of 10 GB of text some 100 MB, of its n-grams ten times that
)

# `count` is the number of documents that hold the name, `occurrences` how often they hold it all together.
COUNTS = pa.schema(
    [("name", pa.large_string()), ("count", pa.int64()), ("occurrences", pa.int64())]
)


@dataclasses.dataclass(frozen=True)
class Frequencies:
    """The most frequent names.

    Attributes:
      counts: COUNTS, most frequent first, ties by name.
      total: the sum of all counts, also those of names left out: shows that no partial count was lost.
      distinct: different names, also those left out.
      frequent: of them, those with at least the smallest count.
    """

    counts: pa.Table
    total: int
    distinct: int
    frequent: int


@dataclasses.dataclass
class MostFrequent(beam.PTransform):
    """Tables of partial COUNTS -> one Frequencies.

    Attributes:
      directory: for spill files.
      min_count: names with a smaller sum are left out.
      top_k: at most so many names; None: all.
    """

    directory: str
    min_count: int
    top_k: int | None

    def expand(self, partial_counts):
        # Without this, an input of no counts would give no element at all.
        none = partial_counts.pipeline | "None" >> beam.Create(
            [(None, Frequencies(COUNTS.empty_table(), 0, 0, 0))]
        )
        sums = (
            partial_counts
            | "Partition" >> beam.Map(_with_partition)
            | "Spill" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupPartition" >> beam.GroupByKey()
            | "SumPartition"
            >> beam.Map(
                lambda element: (None, self._sum_partition(read_segments(element[1], COUNTS)))
            )
        )
        return (
            (sums, none)
            | "Sums" >> beam.Flatten()
            | "GroupTop" >> beam.GroupByKey()
            | "Top" >> beam.Map(lambda element: self._merge(list(element[1])))
        )

    def _sum_partition(self, partial: pa.Table) -> Frequencies:
        sums = (
            partial.group_by("name")
            .aggregate([("count", "sum"), ("occurrences", "sum")])
            .rename_columns(COUNTS.names)
        )
        frequent = sums.filter(pc.greater_equal(sums["count"], self.min_count))
        return Frequencies(
            self._top(frequent),
            pc.sum(partial["count"], min_count=0).as_py(),
            sums.num_rows,
            frequent.num_rows,
        )

    def _merge(self, partitions: list[Frequencies]) -> Frequencies:
        counts = pa.concat_tables([partition.counts for partition in partitions])
        totals = (
            sum(getattr(partition, key) for partition in partitions)
            for key in ("total", "distinct", "frequent")
        )
        return Frequencies(self._top(counts), *totals)

    def _top(self, counts: pa.Table) -> pa.Table:
        order = pc.sort_indices(counts, sort_keys=[("count", "descending"), ("name", "ascending")])
        return counts.take(order if self.top_k is None else order[: self.top_k])


def count_ngrams(texts: pa.ChunkedArray, size: int) -> pa.Table:
    """Analyzed texts, a line a field -> COUNTS of the runs of 2 to `size` tokens within a field, joined by a space."""
    fields = pc.split_pattern(texts, "\n")
    flat = pc.list_flatten(fields)
    has_tokens = pc.greater(pc.binary_length(flat), 0)
    tokens = pc.ascii_split_whitespace(flat.filter(has_tokens))
    documents_of_fields = pc.list_parent_indices(fields).filter(has_tokens).to_numpy()
    field = pc.list_parent_indices(tokens).to_numpy()
    documents = documents_of_fields[field]
    encoded = pc.list_flatten(tokens).combine_chunks().dictionary_encode()
    token_names, token_codes = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    space = pa.scalar(" ", pa.large_string())
    names, codes, tables = token_names, token_codes, [COUNTS.empty_table()]
    for ahead in range(1, size):
        # An n-gram is the one before it, which begins at the same token, and one token more.
        starts = np.flatnonzero(field[: len(field) - ahead] == field[ahead:])
        found, numbers = np.unique(
            codes[starts] * len(token_names) + token_codes[starts + ahead], return_inverse=True
        )
        if not len(found):
            break
        first, last = np.divmod(found, len(token_names))
        names = pc.binary_join_element_wise(
            names.take(pa.array(first)), token_names.take(pa.array(last)), space
        )
        counts = _documents_with(numbers, documents[starts], len(found))
        tables.append(
            pa.table([names, counts, np.bincount(numbers, minlength=len(found))], schema=COUNTS)
        )
        codes = np.full(len(field), -1)
        codes[starts] = numbers
    return pa.concat_tables(tables)


def count_documents(lists: pa.ChunkedArray) -> pa.Table:
    """Lists of names, one a document -> COUNTS."""
    names = pc.list_flatten(lists).combine_chunks().dictionary_encode()
    codes, size = names.indices.to_numpy(), len(names.dictionary)
    counts = _documents_with(codes, pc.list_parent_indices(lists).to_numpy(), size)
    return pa.table([names.dictionary, counts, np.bincount(codes, minlength=size)], schema=COUNTS)


def _documents_with(codes: np.ndarray, documents: np.ndarray, num_codes: int) -> np.ndarray:
    """The code and the document of each occurrence -> int64 [num_codes]: in how many documents each code stands."""
    pairs = np.sort(documents.astype(np.int64) * num_codes + codes)
    pairs = pairs[
        np.diff(pairs, prepend=-1) > 0
    ]  # np.unique hashes since NumPy 2.3, which takes 20 times as long here
    return np.bincount(pairs % max(num_codes, 1), minlength=num_codes)


def _with_partition(counts: pa.Table) -> pa.Table:
    # CRC-32 is the same in every process, which Python's hash() is not.
    partitions = [zlib.crc32(name.encode()) % NUM_PARTITIONS for name in counts["name"].to_pylist()]
    return counts.append_column("key", pa.array(partitions, pa.int64()))
