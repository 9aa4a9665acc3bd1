"""Counting names (labels, tokens): partial counts of buckets are summed by partitions of names."""

import dataclasses
import zlib

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.runtime.spill import SpillByKey, read_segments

# Each partition is summed in memory: some 100 MB for 10 GB of text, ten times that for its n-grams.
# So larger inputs have more, of as much text each.
NUM_PARTITIONS, MAX_PARTITIONS = 64, 4096
PARTITION_BYTES = 160 << 20

# `count` is the number of documents with the name, `occurrences` how often all of them hold it.
COUNTS = pa.schema(
    [("name", pa.large_string()), ("count", pa.int64()), ("occurrences", pa.int64())]
)


@dataclasses.dataclass(frozen=True)
class Frequencies:
    """The most frequent names.

    Attributes:
      counts: COUNTS, most frequent first, ties by name; names that are asked for and do not occur
        have counts of 0.
      total: the sum of all counts, including those of names that are left out: shows that no
        partial count was lost.
      distinct: number of names, including those left out.
      frequent: of them, those with at least the minimal count, or asked for.
    """

    counts: pa.Table
    total: int
    distinct: int
    frequent: int


def num_partitions(input_bytes: int) -> int:
    """In how many partitions the tokens of so much text are counted; it changes no result."""
    return min(MAX_PARTITIONS, max(NUM_PARTITIONS, input_bytes // PARTITION_BYTES))


@dataclasses.dataclass
class MostFrequent(beam.PTransform):
    """Tables of partial COUNTS -> one Frequencies.

    Attributes:
      directory: for spill files.
      min_count: names with a smaller sum are left out.
      top_k: at most so many names; None: no limit.
      partitions: how many are summed by themselves.
      always: names that are asked for, whatever their counts.
    """

    directory: str
    min_count: int
    top_k: int | None
    partitions: int = NUM_PARTITIONS
    always: tuple[str, ...] = ()

    def expand(self, partial_counts):
        # Without this, an input of no counts would give no element at all.
        none = partial_counts.pipeline | "None" >> beam.Create(
            [(None, Frequencies(COUNTS.empty_table(), 0, 0, 0))]
        )
        sums = (
            partial_counts
            | "Partition" >> beam.Map(_with_partition, self.partitions)
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
        is_frequent = pc.greater_equal(sums["count"], self.min_count)
        if self.always:
            is_frequent = pc.or_(is_frequent, self._is_asked_for(sums))
        frequent = sums.filter(is_frequent)
        return Frequencies(
            self._top(frequent),
            pc.sum(partial["count"], min_count=0).as_py(),
            sums.num_rows,
            frequent.num_rows,
        )

    def _merge(self, partitions: list[Frequencies]) -> Frequencies:
        counts = pa.concat_tables([partition.counts for partition in partitions])
        if self.always:
            names = pa.array(self.always, pa.large_string())
            is_there = pc.is_in(names, value_set=counts["name"].combine_chunks())
            absent = names.filter(pc.invert(is_there))
            zeros = np.zeros(len(absent), np.int64)
            counts = pa.concat_tables([counts, pa.table([absent, zeros, zeros], schema=COUNTS)])
        return Frequencies(
            self._top(counts),
            total=sum(partition.total for partition in partitions),
            distinct=sum(partition.distinct for partition in partitions),
            frequent=sum(partition.frequent for partition in partitions),
        )

    def _top(self, counts: pa.Table) -> pa.Table:
        order = pc.sort_indices(counts, sort_keys=[("count", "descending"), ("name", "ascending")])
        if self.top_k is None or not self.always:
            return counts.take(order if self.top_k is None else order[: self.top_k])
        counts = counts.take(order)
        first = pa.array(np.arange(counts.num_rows) < self.top_k)
        return counts.filter(pc.or_(self._is_asked_for(counts), first))

    def _is_asked_for(self, counts: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(counts["name"], value_set=pa.array(self.always, pa.large_string()))


def count_ngrams(texts: pa.ChunkedArray, size: int) -> pa.Table:
    """The column `texts` -> COUNTS of the runs of 2 to `size` tokens within a text field.

    The tokens of a run are joined by a space.
    """
    flat = pc.list_flatten(texts)
    has_tokens = pc.greater(pc.binary_length(flat), 0)
    tokens = pc.ascii_split_whitespace(flat.filter(has_tokens))
    documents_of_fields = pc.list_parent_indices(texts).filter(has_tokens).to_numpy()
    field = pc.list_parent_indices(tokens).to_numpy()
    documents = documents_of_fields[field]
    encoded = pc.list_flatten(tokens).combine_chunks().dictionary_encode()
    token_names, token_codes = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    space = pa.scalar(" ", pa.large_string())
    names, codes, tables = token_names, token_codes, [COUNTS.empty_table()]
    for ahead in range(1, size):
        # An n-gram is the shorter one that begins at the same token, and the token after it.
        starts = np.flatnonzero(field[: len(field) - ahead] == field[ahead:])
        distinct, numbers = np.unique(
            codes[starts] * len(token_names) + token_codes[starts + ahead], return_inverse=True
        )
        if not len(distinct):
            break
        first, last = np.divmod(distinct, len(token_names))
        names = pc.binary_join_element_wise(
            names.take(pa.array(first)), token_names.take(pa.array(last)), space
        )
        counts = _documents_with(numbers, documents[starts], len(distinct))
        tables.append(
            pa.table([names, counts, np.bincount(numbers, minlength=len(distinct))], schema=COUNTS)
        )
        codes = np.full(len(field), -1)
        codes[starts] = numbers
    return pa.concat_tables(tables)


def count_documents(lists: pa.ChunkedArray) -> pa.Table:
    """Lists of names, one per document -> COUNTS."""
    names = pc.list_flatten(lists).combine_chunks().dictionary_encode()
    codes, size = names.indices.to_numpy(), len(names.dictionary)
    counts = _documents_with(codes, pc.list_parent_indices(lists).to_numpy(), size)
    return pa.table([names.dictionary, counts, np.bincount(codes, minlength=size)], schema=COUNTS)


def _documents_with(codes: np.ndarray, documents: np.ndarray, num_codes: int) -> np.ndarray:
    """The code and document of each occurrence -> int64 [num_codes]: documents with each code."""
    pairs = np.sort(documents.astype(np.int64) * num_codes + codes)
    # np.unique hashes since NumPy 2.3, which takes 20 times as long here.
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return np.bincount(pairs % max(num_codes, 1), minlength=num_codes)


def _with_partition(counts: pa.Table, partitions: int) -> pa.Table:
    # CRC-32 is the same in every process, which Python's hash() is not.
    keys = [zlib.crc32(name.encode()) % partitions for name in counts["name"].to_pylist()]
    return counts.append_column("key", pa.array(keys, pa.int64()))
