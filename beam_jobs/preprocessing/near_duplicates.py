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

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.buckets import MERGED, Bucket, read_table, tokens_of, write_table
from beam_jobs.preprocessing.merge_duplicates import merge_labels
from beam_jobs.runtime.row_accounting import BALANCE_TAG, entry
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

# At a similarity of 0.8, 99.8% of the pairs meet in a band, at 0.5 40%; the error of the estimate is 0.045.
BANDS, ROWS_A_BAND = 16, 5
NUM_HASHES = BANDS * ROWS_A_BAND
NUM_PARTITIONS = 64

# A document in one band. Of each MinHash value 8 bits are kept (Li and König 2010).
_BANDED = pa.schema(
    [
        ("band", pa.uint64()),
        ("digest", pa.binary()),
        ("bucket", pa.int64()),
        ("split", pa.int8()),
        ("values", pa.binary(NUM_HASHES)),
    ]
)
# A document, and another one that is nearly the same and goes before it.
PAIRS = pa.schema(
    [
        (name, kind)
        for prefix in ("", "other_")
        for name, kind in (
            (f"{prefix}digest", pa.binary()),
            (f"{prefix}split", pa.int8()),
            (f"{prefix}bucket", pa.int64()),
        )
    ]
)
# A document that goes, and the one that stays in its place.
_MOVES = pa.schema(
    [
        ("digest", pa.binary()),
        ("bucket", pa.int64()),
        ("other_digest", pa.binary()),
        ("other_bucket", pa.int64()),
    ]
)
# What goes to the document that stays.
_MOVED = pa.schema(
    [
        ("other_digest", pa.binary()),
        ("labels", MERGED.field("labels").type),
        ("weight", pa.float32()),
    ]
)
_MOVED_TAG = "moved"

_RANDOM = np.random.default_rng(20_240_131)  # fixed: the same documents meet in every run
_FACTORS = _RANDOM.integers(0, 1 << 63, NUM_HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 1 << 63, NUM_HASHES, np.uint64)
_PRIME = np.uint64(0x9E3779B97F4A7C15)


def minhash(texts: pa.ChunkedArray, shingle_tokens: int) -> np.ndarray:
    """Analyzed texts -> uint32 [documents, NUM_HASHES]; a text with fewer tokens than a shingle is one shingle."""
    tokens = tokens_of(texts)
    names = pc.list_flatten(tokens).combine_chunks().dictionary_encode()
    encoded = [name.encode() for name in names.dictionary.to_pylist()]
    hashes = np.array(
        [zlib.crc32(name) | zlib.crc32(name, 1) << 32 for name in encoded], np.uint64
    )[names.indices.to_numpy()]
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
        values[:, i] = np.minimum.reduceat(
            (shingles * _FACTORS[i] + _OFFSETS[i]) >> np.uint64(32), firsts
        )
    return values


def find_pairs(banded: pa.Table, similarity: float, *, last_split_first: bool) -> pa.Table:
    """Documents by band -> PAIRS: of documents that share a band, those nearly equal to the first of them.

    Args:
      banded: _BANDED, all rows of the bands that are in it.
      similarity: least estimated Jaccard similarity.
      last_split_first: which document of a band goes first: one of the last split, or of the first; then the smallest digest.
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
    firsts = (
        np.flatnonzero(is_first)[np.cumsum(is_first) - 1] if len(band) else np.zeros(0, np.int64)
    )
    rows = np.flatnonzero(~is_first)
    values = np.frombuffer(b"".join(banded["values"].to_pylist()), np.uint8).reshape(-1, NUM_HASHES)
    near = (
        rows[(values[rows] == values[firsts[rows]]).mean(axis=1) >= similarity]
        if len(rows)
        else rows
    )
    first = firsts[near]
    columns = [
        banded[name].take(rows) for rows in (near, first) for name in ("digest", "split", "bucket")
    ]
    return pa.table(columns, schema=PAIRS)


@dataclasses.dataclass
class FindPairs(beam.PTransform):
    """Buckets -> (key, Segment of PAIRS) and the balance of what was sent and received; a pair may be there several times.

    Attributes:
      directory: for spill files.
      similarity: least estimated Jaccard similarity.
      shingle_tokens: tokens of a shingle.
      last_split_first: see `find_pairs`.
      together: whether all pairs have one key, or each the bucket of its document.
    """

    directory: str
    similarity: float
    shingle_tokens: int
    last_split_first: bool
    together: bool

    def expand(self, buckets):
        banded = buckets | "Band" >> beam.FlatMap(self._banded).with_outputs(
            BALANCE_TAG, main="banded"
        )
        pairs = (
            banded.banded
            | "SpillBands" >> beam.ParDo(SpillByKey(self.directory))
            | "GroupBands" >> beam.GroupByKey()
            | "Pairs" >> beam.FlatMap(self._pairs).with_outputs(BALANCE_TAG, main="pairs")
        )
        spilled = pairs.pairs | "SpillPairs" >> beam.ParDo(SpillByKey(self.directory))
        return spilled, (banded[BALANCE_TAG], pairs[BALANCE_TAG]) | "Balance" >> beam.Flatten()

    def _banded(self, bucket: Bucket) -> Iterator[pa.Table]:
        table = read_table(bucket.path)
        values = minhash(table["text"], self.shingle_tokens)
        kept = pa.array([row.tobytes() for row in values.astype(np.uint8)], pa.binary(NUM_HASHES))
        tables = []
        for number, rows in enumerate(np.split(values, BANDS, axis=1)):
            band = np.full(len(rows), number, np.uint64)
            for column in rows.T:
                band = _mix(band * _PRIME + column)
            columns = [
                band,
                table["digest"],
                np.full(len(rows), bucket.index),
                table["split"],
                kept,
            ]
            key = pa.array((band % np.uint64(NUM_PARTITIONS)).astype(np.int64))
            tables.append(pa.table(columns, schema=_BANDED).append_column("key", key))
        yield entry("banded", BANDS * table.num_rows)
        yield pa.concat_tables(tables)

    def _pairs(self, element: tuple[int, Iterable[Segment]]) -> Iterator[pa.Table]:
        banded = read_segments(element[1], _BANDED)
        pairs = find_pairs(banded, self.similarity, last_split_first=self.last_split_first)
        yield entry("banded", -banded.num_rows)
        yield entry("pairs", pairs.num_rows)
        yield pairs.append_column(
            "key",
            pa.array(np.zeros(pairs.num_rows, np.int64)) if self.together else pairs["bucket"],
        )


@dataclasses.dataclass
class DropNearDuplicates(beam.PTransform):
    """Buckets -> buckets without the documents that are nearly equal to one that goes before, and the balance.

    A document goes if another of a later split, or of the same split with a smaller digest, is nearly the same: so a test split
    stays, and its copies leave the others. Its labels go to the document that stays, and so does its weight where it is larger, as
    those of equal documents do. Where the other one goes as well, they go on to the one that it is nearly equal to.

    One worker holds the digests of all documents that go, some 100 bytes each.
    """

    directory: str
    similarity: float
    shingle_tokens: int

    def expand(self, buckets):
        pairs, balance = buckets | "Find" >> FindPairs(
            self.directory, self.similarity, self.shingle_tokens, True, True
        )
        moves = (
            pairs
            | "GroupPairs" >> beam.GroupByKey()
            | "Moves" >> beam.FlatMap(self._moves).with_outputs(BALANCE_TAG, main="moves")
        )
        keyed = buckets | "Keyed" >> beam.Map(lambda bucket: (bucket.index, bucket))
        spilled = moves.moves | "SpillMoves" >> beam.ParDo(SpillByKey(self.directory))
        dropped = (
            (keyed, spilled)
            | "Both" >> beam.Flatten()
            | "GroupBucket" >> beam.GroupByKey()
            | "Drop"
            >> beam.FlatMap(self._drop).with_outputs(BALANCE_TAG, _MOVED_TAG, main="buckets")
        )
        kept = dropped.buckets | "KeyedAgain" >> beam.Map(lambda bucket: (bucket.index, bucket))
        moved = dropped[_MOVED_TAG] | "SpillMoved" >> beam.ParDo(SpillByKey(self.directory))
        merged = (
            (kept, moved)
            | "BothAgain" >> beam.Flatten()
            | "GroupBucketAgain" >> beam.GroupByKey()
            | "Merge" >> beam.FlatMap(self._merge).with_outputs(BALANCE_TAG, main="buckets")
        )
        balances = (balance, moves[BALANCE_TAG], dropped[BALANCE_TAG], merged[BALANCE_TAG])
        return merged.buckets, balances | "AllBalances" >> beam.Flatten()

    def _moves(self, element: tuple[int, Iterable[Segment]]) -> Iterator[pa.Table]:
        pairs = read_segments(element[1], PAIRS)
        moves = find_moves(pairs)
        yield entry("pairs", -pairs.num_rows)
        yield entry("moves", moves.num_rows)
        yield moves.append_column("key", moves["bucket"])

    def _drop(self, element: tuple[int, Iterable[Bucket | Segment]]) -> Iterator[Bucket]:
        for bucket, moves in _received(element, _MOVES):
            table = read_table(bucket.path)
            places = pc.index_in(table["digest"], value_set=moves["digest"].combine_chunks())
            goes = table.filter(places.is_valid())
            to = moves.take(places.drop_null())
            columns = [to["other_digest"], goes["labels"], goes["weight"]]
            yield entry("moves", -goes.num_rows)
            yield entry("moved", goes.num_rows)
            yield beam.pvalue.TaggedOutput(
                _MOVED_TAG,
                pa.table(columns, schema=_MOVED).append_column("key", to["other_bucket"]),
            )
            path = FileSystems.join(self.directory, f"apart-{bucket.index:05d}.arrow")
            write_table(path, table.filter(places.is_null()))
            yield dataclasses.replace(
                bucket,
                path=path,
                documents=table.num_rows - goes.num_rows,
                near_duplicates=goes.num_rows,
            )

    def _merge(self, element: tuple[int, Iterable[Bucket | Segment]]) -> Iterator[Bucket]:
        for bucket, moved in _received(element, _MOVED):
            path = FileSystems.join(self.directory, f"distinct-{bucket.index:05d}.arrow")
            write_table(path, merge_into(read_table(bucket.path), moved))
            yield entry("moved", -moved.num_rows)
            yield dataclasses.replace(bucket, path=path)


def find_moves(pairs: pa.Table) -> pa.Table:
    """PAIRS -> _MOVES: where each document that goes has its labels go to, a document that stays."""
    order = [("digest", "ascending"), ("other_split", "descending"), ("other_digest", "ascending")]
    pairs = pairs.take(pc.sort_indices(pairs, sort_keys=order)).combine_chunks()
    digests = np.array(pairs["digest"].to_pylist(), dtype=object)
    is_first = np.ones(len(digests), bool)
    is_first[1:] = digests[1:] != digests[:-1]
    moves = pairs.filter(
        pa.array(is_first)
    ).combine_chunks()  # of several, the one that goes before the others
    # Every step goes to a document that goes before, so that all end at one that stays.
    target = (
        pc.index_in(moves["other_digest"], value_set=moves["digest"].combine_chunks())
        .fill_null(-1)
        .to_numpy()
        .astype(np.int64)
    )
    at = np.where(target < 0, np.arange(len(target)), target)
    while not np.array_equal(at, at[at]):
        at = at[at]
    ends = moves.take(pa.array(at))
    return pa.table(
        [moves["digest"], moves["bucket"], ends["other_digest"], ends["other_bucket"]],
        schema=_MOVES,
    )


def merge_into(table: pa.Table, moved: pa.Table) -> pa.Table:
    """MERGED with the labels and weights that have moved to its documents."""
    places = pc.index_in(moved["other_digest"], value_set=table["digest"].combine_chunks())
    if places.null_count:
        raise RuntimeError(
            f"the runner lost or repeated data: {places.null_count:,} labels moved to documents that are not there"
        )
    group = np.concatenate([np.arange(table.num_rows), places.to_numpy().astype(np.int64)])
    labels = pa.chunked_array(
        [*table["labels"].chunks, *moved["labels"].chunks], MERGED.field("labels").type
    )
    weights = table["weight"].to_numpy().copy()
    np.maximum.at(weights, group[table.num_rows :], moved["weight"].to_numpy())
    for name, column in (
        ("labels", merge_labels(labels, group, table.num_rows)),
        ("weight", pa.array(weights)),
    ):
        table = table.set_column(table.column_names.index(name), name, column)
    return table


@dataclasses.dataclass
class CountLeaks(beam.PTransform):
    """Buckets with splits -> int64 [splits, splits] a bucket, and the balance: documents of the first split with a near-duplicate in the second.

    The second split is the same one or goes before; a document with near-duplicates in several may be counted in only some.
    """

    directory: str
    similarity: float
    shingle_tokens: int

    def expand(self, buckets):
        pairs, balance = buckets | "Find" >> FindPairs(
            self.directory, self.similarity, self.shingle_tokens, False, False
        )
        counted = (
            pairs
            | "GroupBucket" >> beam.GroupByKey()
            | "Count" >> beam.FlatMap(_count_leaks).with_outputs(BALANCE_TAG, main="leaks")
        )
        return counted.leaks, (balance, counted[BALANCE_TAG]) | "AllBalances" >> beam.Flatten()


def _count_leaks(element: tuple[int, Iterable[Segment]]) -> Iterator[np.ndarray]:
    received = read_segments(element[1], PAIRS)
    yield entry("pairs", -received.num_rows)
    pairs = received.group_by(["digest", "split", "other_split"]).aggregate([])
    leaks = np.zeros((len(SPLITS), len(SPLITS)), np.int64)
    np.add.at(leaks, (pairs["split"].to_numpy(), pairs["other_split"].to_numpy()), 1)
    yield leaks


def _received(
    element: tuple[int, Iterable[Bucket | Segment]], schema: pa.Schema
) -> Iterator[tuple[Bucket, pa.Table]]:
    """The bucket of a group, and the rows that were sent to it."""
    received = list(element[1])
    rows = read_segments((item for item in received if isinstance(item, Segment)), schema)
    for bucket in (item for item in received if isinstance(item, Bucket)):
        yield bucket, rows


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
