"""Near-duplicates: documents whose texts share most of their shingles, by MinHash and banding.

A shingle is a run of tokens. The expected fraction of equal MinHash values of two documents is the
Jaccard similarity of their sets of shingles (Broder 1997). Only documents that agree in all values
of some band are compared, with the first of them, so that time is linear.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.buckets import (
    Bucket,
    bucket_path,
    keyed_by_bucket,
    read_table,
    tokens_of,
    with_received,
    write_table,
)
from beam_jobs.runtime.row_accounting import ACCOUNTING_TAG, received, sent
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

# At a similarity of 0.8, 99.8% of the pairs agree in a band, at 0.5 40%; the standard error of the
# estimated similarity is 0.045.
BANDS, ROWS_PER_BAND = 16, 5
NUM_HASHES = BANDS * ROWS_PER_BAND
NUM_PARTITIONS = 64

# A document in one band. Of each MinHash value 8 bits are kept (Li and König 2010).
BANDED = pa.schema(
    [
        ("band", pa.uint64()),
        ("digest", pa.binary()),
        ("bucket", pa.int64()),
        ("split", pa.int8()),
        ("values", pa.binary(NUM_HASHES)),
    ]
)
# A document, and another one that is nearly equal to it and precedes it.
PAIRS = pa.schema(
    [
        ("digest", pa.binary()),
        ("split", pa.int8()),
        ("bucket", pa.int64()),
        ("other_digest", pa.binary()),
        ("other_split", pa.int8()),
    ]
)

_RANDOM = np.random.default_rng(20_240_131)  # fixed: the same pairs in every run
_FACTORS = _RANDOM.integers(0, 1 << 63, NUM_HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 1 << 63, NUM_HASHES, np.uint64)
_PRIME = np.uint64(0x9E3779B97F4A7C15)


def minhash(texts: pa.ChunkedArray, shingle_tokens: int) -> np.ndarray:
    """The column `texts` -> uint32 [documents, NUM_HASHES].

    A document with fewer tokens than a shingle is one shingle.
    """
    tokens = tokens_of(texts)
    names = pc.list_flatten(tokens).combine_chunks().dictionary_encode()
    encoded = [name.encode() for name in names.dictionary.to_pylist()]
    hashes = np.array(
        [zlib.crc32(name) | zlib.crc32(name, 1) << 32 for name in encoded], np.uint64
    )[names.indices.to_numpy()]
    sizes = pc.list_value_length(tokens).to_numpy().astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    positions = np.arange(len(hashes)) - np.repeat(starts, sizes)  # of each token in its document
    left = np.repeat(sizes, sizes) - positions  # tokens from this one to the document's end
    shingles = np.zeros(len(hashes), np.uint64)
    for ahead in range(shingle_tokens):
        inside = np.flatnonzero(left > ahead)
        shingles[inside] = _mix(shingles[inside] + _PRIME) ^ hashes[inside + ahead]
    shingles = _mix(shingles)
    is_shingle = (left >= shingle_tokens) | (positions == 0)
    # `minimum.reduceat` needs a first shingle of every document, and each has one: no analyzed
    # document is without tokens.
    shingles, counts = shingles[is_shingle], np.maximum(sizes - shingle_tokens + 1, 1)
    firsts = np.cumsum(counts) - counts
    values = np.empty((len(sizes), NUM_HASHES), np.uint32)
    for i in range(NUM_HASHES if len(sizes) else 0):
        values[:, i] = np.minimum.reduceat(
            (shingles * _FACTORS[i] + _OFFSETS[i]) >> np.uint64(32), firsts
        )
    return values


def find_pairs(banded: pa.Table, similarity: float, *, last_split_first: bool) -> pa.Table:
    """Documents by band -> PAIRS: the documents of a band that are nearly equal to its first one.

    Args:
      banded: BANDED, all rows of the bands that are in it.
      similarity: smallest estimated Jaccard similarity.
      last_split_first: whether the first document of a band is one of the last split, or of the
        first; of several, the one with the smallest digest.
    """
    order = [
        ("band", "ascending"),
        ("split", "descending" if last_split_first else "ascending"),
        ("digest", "ascending"),
    ]
    banded = banded.take(pc.sort_indices(banded, sort_keys=order)).combine_chunks()
    band = banded["band"].to_numpy()
    is_first = np.ones(len(band), bool)
    is_first[1:] = band[1:] != band[:-1]
    rows = np.flatnonzero(~is_first)
    firsts = np.flatnonzero(is_first)[np.cumsum(is_first)[rows] - 1]
    values = np.frombuffer(b"".join(banded["values"].to_pylist()), np.uint8).reshape(-1, NUM_HASHES)
    is_near = (values[rows] == values[firsts]).mean(axis=1) >= similarity
    document, other = banded.take(rows[is_near]), banded.take(firsts[is_near])
    columns = [
        document["digest"],
        document["split"],
        document["bucket"],
        other["digest"],
        other["split"],
    ]
    return pa.table(columns, schema=PAIRS)


@dataclasses.dataclass
class FindPairs(beam.PTransform):
    """Buckets -> (index of the document's bucket, Segment of PAIRS), and row accounting.

    A pair may occur several times.

    Attributes:
      directory: for spill files.
      similarity: smallest estimated Jaccard similarity.
      shingle_tokens: tokens of a shingle.
      last_split_first: see `find_pairs`.
    """

    directory: str
    similarity: float
    shingle_tokens: int
    last_split_first: bool

    def expand(self, buckets):
        banded = buckets | "Band" >> beam.FlatMap(self._banded).with_outputs(
            ACCOUNTING_TAG, main="banded"
        )
        pairs = (
            banded.banded
            | "SpillBands" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupBands" >> beam.GroupByKey()
            | "Pairs" >> beam.FlatMap(self._pairs).with_outputs(ACCOUNTING_TAG, main="pairs")
        )
        spilled = pairs.pairs | "SpillPairs" >> beam.ParDo(SpillByKey(self.directory))
        accounting = (banded[ACCOUNTING_TAG], pairs[ACCOUNTING_TAG]) | "Rows" >> beam.Flatten()
        return spilled, accounting

    def _banded(self, bucket: Bucket) -> Iterator[pa.Table]:
        table = read_table(bucket.path)
        values = minhash(table["texts"], self.shingle_tokens)
        kept = pa.array([row.tobytes() for row in values.astype(np.uint8)], pa.binary(NUM_HASHES))
        index = np.full(table.num_rows, bucket.index)
        tables = []
        for number, rows in enumerate(np.split(values, BANDS, axis=1)):
            band = np.full(len(rows), number, np.uint64)
            for column in rows.T:
                band = _mix(band * _PRIME + column)
            columns = [band, table["digest"], index, table["split"], kept]
            key = pa.array((band % np.uint64(NUM_PARTITIONS)).astype(np.int64))
            tables.append(pa.table(columns, schema=BANDED).append_column("key", key))
        yield sent("documents by band", BANDS * table.num_rows)
        yield pa.concat_tables(tables)

    def _pairs(self, element: tuple[int, Iterable[Segment]]) -> Iterator[pa.Table]:
        banded = read_segments(element[1], BANDED)
        pairs = find_pairs(banded, self.similarity, last_split_first=self.last_split_first)
        yield received("documents by band", banded.num_rows)
        yield sent("pairs of near-duplicates", pairs.num_rows)
        yield pairs.append_column("key", pairs["bucket"])


@dataclasses.dataclass
class DropNearDuplicates(beam.PTransform):
    """Buckets -> buckets without the documents that are nearly equal to a preceding one, and row
    accounting.

    A document is dropped if another one of a later split, or of the same split with a smaller
    digest, is nearly equal to it: so a test split stays complete, and no other split holds its
    near-duplicates. The labels of a dropped document are dropped with it: on seven sets at most
    0.9% of all labels would be lost so (docs/experiments/near_duplicates.md).
    """

    directory: str
    similarity: float
    shingle_tokens: int

    def expand(self, buckets):
        pairs, accounting = buckets | "Find" >> FindPairs(
            self.directory, self.similarity, self.shingle_tokens, last_split_first=True
        )
        distinct = (
            (buckets | "Keyed" >> keyed_by_bucket(), pairs)
            | "Both" >> beam.Flatten()
            | "GroupBucket" >> beam.GroupByKey()
            | "Drop" >> beam.FlatMap(self._drop).with_outputs(ACCOUNTING_TAG, main="buckets")
        )
        accounting = (accounting, distinct[ACCOUNTING_TAG]) | "AllRows" >> beam.Flatten()
        return distinct.buckets, accounting

    def _drop(self, element: tuple[int, Iterable[Bucket | Segment]]) -> Iterator[Bucket]:
        for bucket, pairs in with_received(element, PAIRS):
            table = read_table(bucket.path)
            is_dropped = pc.is_in(table["digest"], value_set=pairs["digest"].combine_chunks())
            distinct = table.filter(pc.invert(is_dropped))
            path = bucket_path(self.directory, "distinct", bucket.index)
            write_table(path, distinct)
            yield received("pairs of near-duplicates", pairs.num_rows)
            yield dataclasses.replace(
                bucket,
                path=path,
                documents=distinct.num_rows,
                near_duplicates=table.num_rows - distinct.num_rows,
            )


@dataclasses.dataclass
class CountLeaks(beam.PTransform):
    """Buckets with splits -> int64 [splits, splits] per bucket, and row accounting.

    Counts the documents of the first split that have a near-duplicate in the second, which is the
    same split or an earlier one. A document with near-duplicates in several splits may be counted
    in only some of them.
    """

    directory: str
    similarity: float
    shingle_tokens: int

    def expand(self, buckets):
        pairs, accounting = buckets | "Find" >> FindPairs(
            self.directory, self.similarity, self.shingle_tokens, last_split_first=False
        )
        counted = (
            pairs
            | "GroupBucket" >> beam.GroupByKey()
            | "Count" >> beam.FlatMap(_count_leaks).with_outputs(ACCOUNTING_TAG, main="leaks")
        )
        accounting = (accounting, counted[ACCOUNTING_TAG]) | "AllRows" >> beam.Flatten()
        return counted.leaks, accounting


def _count_leaks(element: tuple[int, Iterable[Segment]]) -> Iterator[np.ndarray]:
    pairs = read_segments(element[1], PAIRS)
    yield received("pairs of near-duplicates", pairs.num_rows)
    distinct = pairs.group_by(["digest", "split", "other_split"]).aggregate([])
    leaks = np.zeros((len(SPLITS), len(SPLITS)), np.int64)
    np.add.at(leaks, (distinct["split"].to_numpy(), distinct["other_split"].to_numpy()), 1)
    yield leaks


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
