"""Near-duplicates: documents whose texts share most of their shingles, found by MinHash (Broder 1997) and banding.

A shingle is some tokens in a row. Of two documents the expected part of equal MinHash values is the Jaccard similarity of their
sets of shingles. Documents that agree in all values of any band are compared; others never meet, so time is linear.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from beam_jobs.analysis import tokens_of
from beam_jobs.contract.manifest import SPLITS
from beam_jobs.merging import Bucket, read_table, write_table
from beam_jobs.spill import Segment, SpillByKey, read_segments

# At a similarity of 0.8, 99.8% of the pairs meet in a band, at 0.5 40%; the error of the estimate is 0.045.
BANDS, ROWS_A_BAND = 16, 5
NUM_HASHES = BANDS * ROWS_A_BAND
NUM_PARTITIONS = 64

# A document in one band. Of each MinHash value 8 bits are kept (Li and König 2010).
_BANDED = pa.schema([("band", pa.uint64()), ("digest", pa.binary()), ("bucket", pa.int64()), ("split", pa.int8()), ("values", pa.binary(NUM_HASHES))])
# A document, and the split of another one that is nearly the same and goes before it.
PAIRS = pa.schema([("digest", pa.binary()), ("split", pa.int8()), ("other_split", pa.int8())])

_RANDOM = np.random.default_rng(20_240_131)  # fixed: the same documents meet in every run
_FACTORS = _RANDOM.integers(0, 1 << 63, NUM_HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 1 << 63, NUM_HASHES, np.uint64)
_PRIME = np.uint64(0x9E3779B97F4A7C15)


def minhash(texts: pa.ChunkedArray, shingle_tokens: int) -> np.ndarray:
    """Analyzed texts -> uint32 [documents, NUM_HASHES]; a text with fewer tokens than a shingle is one shingle."""
    tokens = tokens_of(texts)
    names = pc.list_flatten(tokens).combine_chunks().dictionary_encode()
    encoded = [name.encode() for name in names.dictionary.to_pylist()]
    hashes = np.array([zlib.crc32(name) | zlib.crc32(name, 1) << 32 for name in encoded], np.uint64)[names.indices.to_numpy()]
    sizes = pc.list_value_length(tokens).to_numpy().astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    places = np.arange(len(hashes)) - np.repeat(starts, sizes)
    left = np.repeat(sizes, sizes) - places  # tokens from here to the text's end
    shingles = np.zeros(len(hashes), np.uint64)
    for ahead in range(shingle_tokens):
        inside = np.flatnonzero(left > ahead)
        shingles[inside] = _mix(shingles[inside] + _PRIME) ^ hashes[inside + ahead]
    shingles = _mix(shingles)
    is_shingle = (left >= shingle_tokens) | (places == 0)
    # `minimum.reduceat` wants every document's first place, and each has one: no analyzed text is empty.
    shingles, counts = shingles[is_shingle], np.maximum(sizes - shingle_tokens + 1, 1)
    firsts = np.cumsum(counts) - counts
    values = np.empty((len(sizes), NUM_HASHES), np.uint32)
    for i in range(NUM_HASHES if len(sizes) else 0):
        values[:, i] = np.minimum.reduceat((shingles * _FACTORS[i] + _OFFSETS[i]) >> np.uint64(32), firsts)
    return values


def find_pairs(banded: pa.Table, similarity: float, *, last_split_first: bool) -> pa.Table:
    """Documents by band -> PAIRS with `key`, the bucket: of documents that share a band, those nearly equal to the first of them.

    Args:
      banded: _BANDED, all rows of the bands that are in it.
      similarity: least estimated Jaccard similarity.
      last_split_first: which document of a band goes first: one of the last split, or of the first; then the smallest digest.
    """
    order = [("band", "ascending"), ("split", "descending" if last_split_first else "ascending"), ("digest", "ascending")]
    banded = banded.take(pc.sort_indices(banded, sort_keys=order)).combine_chunks()
    band = banded["band"].to_numpy()
    is_first = np.ones(len(band), bool)
    is_first[1:] = band[1:] != band[:-1]
    firsts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1] if len(band) else np.zeros(0, np.int64)
    rows = np.flatnonzero(~is_first)
    values = np.frombuffer(b"".join(banded["values"].to_pylist()), np.uint8).reshape(-1, NUM_HASHES)
    near = rows[(values[rows] == values[firsts[rows]]).mean(axis=1) >= similarity] if len(rows) else rows
    splits = banded["split"].to_numpy()
    columns = [banded["digest"].take(near), splits[near], splits[firsts[near]]]
    return pa.table(columns, schema=PAIRS).append_column("key", banded["bucket"].take(near))


@dataclasses.dataclass
class FindPairs(beam.PTransform):
    """Buckets -> (bucket, Segment of PAIRS); a pair may be there several times."""

    directory: str
    similarity: float
    shingle_tokens: int
    last_split_first: bool

    def expand(self, buckets):
        return (
            buckets
            | "Band" >> beam.Map(self._banded)
            | "SpillBands" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupBands" >> beam.GroupByKey()
            | "Pairs" >> beam.Map(self._pairs)
            | "SpillPairs" >> beam.ParDo(SpillByKey(self.directory))
        )

    def _banded(self, bucket: Bucket) -> pa.Table:
        table = read_table(bucket.path)
        values = minhash(table["text"], self.shingle_tokens)
        kept = pa.array([row.tobytes() for row in values.astype(np.uint8)], pa.binary(NUM_HASHES))
        tables = []
        for number, rows in enumerate(np.split(values, BANDS, axis=1)):
            band = np.full(len(rows), number, np.uint64)
            for column in rows.T:
                band = _mix(band * _PRIME + column)
            columns = [band, table["digest"], np.full(len(rows), bucket.index), table["split"], kept]
            key = pa.array((band % np.uint64(NUM_PARTITIONS)).astype(np.int64))
            tables.append(pa.table(columns, schema=_BANDED).append_column("key", key))
        return pa.concat_tables(tables)

    def _pairs(self, element: tuple[int, Iterable[Segment]]) -> pa.Table:
        return find_pairs(read_segments(element[1], _BANDED), self.similarity, last_split_first=self.last_split_first)


@dataclasses.dataclass
class DropNearDuplicates(beam.PTransform):
    """Buckets -> buckets without the documents that are nearly equal to one that stays.

    A document goes if another of a later split, or of the same split with a smaller digest, is nearly the same: so a test split
    stays, and its copies leave the others. The one that stays keeps its own labels only, since near is not equal.
    """

    directory: str
    similarity: float
    shingle_tokens: int

    def expand(self, buckets):
        pairs = buckets | "Find" >> FindPairs(self.directory, self.similarity, self.shingle_tokens, True)
        keyed = buckets | "Keyed" >> beam.Map(lambda bucket: (bucket.index, bucket))
        return (keyed, pairs) | "Both" >> beam.Flatten() | "GroupBucket" >> beam.GroupByKey() | "Drop" >> beam.FlatMap(self._drop)

    def _drop(self, element: tuple[int, Iterable[Bucket | Segment]]) -> Iterator[Bucket]:
        received = list(element[1])
        pairs = read_segments((item for item in received if isinstance(item, Segment)), PAIRS)
        for bucket in (item for item in received if isinstance(item, Bucket)):
            table = read_table(bucket.path)
            kept = table.filter(pc.invert(pc.is_in(table["digest"], value_set=pairs["digest"].combine_chunks())))
            path = FileSystems.join(self.directory, f"distinct-{bucket.index:05d}.arrow")
            write_table(path, kept)
            yield dataclasses.replace(bucket, path=path, documents=kept.num_rows, near_duplicates=table.num_rows - kept.num_rows)


@dataclasses.dataclass
class CountLeaks(beam.PTransform):
    """Buckets with splits -> int64 [splits, splits] a bucket: documents of the first split with a near-duplicate in the second.

    The second split is the same one or goes before; a document with near-duplicates in several may be counted in only some.
    """

    directory: str
    similarity: float
    shingle_tokens: int

    def expand(self, buckets):
        pairs = buckets | "Find" >> FindPairs(self.directory, self.similarity, self.shingle_tokens, False)
        return pairs | "GroupBucket" >> beam.GroupByKey() | "Count" >> beam.Map(_count_leaks)


def _count_leaks(element: tuple[int, Iterable[Segment]]) -> np.ndarray:
    pairs = read_segments(element[1], PAIRS).group_by(PAIRS.names).aggregate([])
    leaks = np.zeros((len(SPLITS), len(SPLITS)), np.int64)
    np.add.at(leaks, (pairs["split"].to_numpy(), pairs["other_split"].to_numpy()), 1)
    return leaks


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
