"""Counting names, against collections.Counter."""

import collections

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.preprocessing.frequencies import (
    COUNTS,
    NUM_PARTITIONS,
    MostFrequent,
    count_documents,
    count_ngrams,
)
from beam_jobs.runtime.spill import Segment, SpillByKey, read_segments

names = st.text(st.sampled_from("ab\u00e9\uffff\U00010000"), max_size=3)
lists = st.lists(st.lists(names, max_size=5), max_size=12)


@given(lists=lists, cut=st.integers(0, 12))
def test_count_documents_counts_each_document_once_a_name(lists, cut):
    kind = pa.large_list(pa.large_string())
    table = count_documents(
        pa.chunked_array([pa.array(lists[:cut], kind), pa.array(lists[cut:], kind)])
    )
    assert table.schema == COUNTS
    for column, expected in (
        ("count", (name for row in lists for name in set(row))),
        ("occurrences", (name for row in lists for name in row)),
    ):
        counted = dict(zip(table["name"].to_pylist(), table[column].to_pylist(), strict=True))
        assert counted == collections.Counter(expected)
        assert len(counted) == table.num_rows


def test_count_documents_takes_sliced_and_missing_chunks():
    kind = pa.large_list(pa.large_string())
    assert count_documents(pa.chunked_array([], kind)).num_rows == 0
    sliced = pa.array([["x"], ["a", "a"], ["b", "a"], ["x"]], kind)[1:3]
    assert count_documents(pa.chunked_array([sliced])).to_pydict() == {
        "name": ["a", "b"],
        "count": [2, 1],
        "occurrences": [3, 1],
    }


words = st.lists(st.sampled_from(["a", "b", "\u00e9"]), max_size=6)


@given(
    documents=st.lists(st.lists(words, min_size=2, max_size=2), max_size=6),
    cut=st.integers(0, 6),
    size=st.integers(1, 3),
)
def test_count_ngrams_counts_runs_of_tokens_within_a_field(documents, cut, size):
    texts = [list(map(" ".join, fields)) for fields in documents]
    kind = pa.large_list(pa.large_string())
    table = count_ngrams(
        pa.chunked_array([pa.array(texts[:cut], kind), pa.array(texts[cut:], kind)]), size
    )
    runs = [
        [
            " ".join(field[i : i + n])
            for field in fields
            for n in range(2, size + 1)
            for i in range(len(field) - n + 1)
        ]
        for fields in documents
    ]
    assert table.schema == COUNTS
    for column, expected in (
        ("count", (run for row in runs for run in set(row))),
        ("occurrences", (run for row in runs for run in row)),
    ):
        assert dict(
            zip(table["name"].to_pylist(), table[column].to_pylist(), strict=True)
        ) == collections.Counter(expected)


def check_most_frequent(
    pipeline, name: str, tables: list[dict[str, int]], folder, *, min_count: int, top_k: int | None
) -> int:
    """Compares with a sorted Counter when the pipeline runs; returns how many names are kept."""
    totals = sum((collections.Counter(table) for table in tables), collections.Counter())
    kept = [(name, count) for name, count in totals.items() if count >= min_count]
    expected = sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:top_k]

    def check(received):
        (frequencies,) = received
        assert frequencies.counts.schema == COUNTS
        assert list(zip(*frequencies.counts.to_pydict().values(), strict=True)) == [
            (name, count, 3 * count) for name, count in expected
        ]
        assert frequencies.total == sum(totals.values())
        assert (frequencies.distinct, frequencies.frequent) == (len(totals), len(kept))

    partial = [
        pa.table(
            [list(counts), list(counts.values()), [3 * count for count in counts.values()]],
            schema=COUNTS,
        )
        for counts in tables
    ]
    received = (
        pipeline
        | f"{name}: tables" >> beam.Create(partial)
        | name >> MostFrequent(str(folder), min_count, top_k)
    )
    assert_that(received, check, label=f"{name}: check")
    return len(expected)


def test_most_frequent_equals_a_sorted_counter_with_ties_by_name(tmp_path):
    tables = [
        {"b": 2, "a": 1, "\uffff": 3, "x": 1},
        {"a": 1, "\U00010000": 3, "é": 1},
        {},
        {"b": 1, "B": 3, "x": 1, "": 2},
    ]
    many = [
        {f"name{i}": 1 + i * 7919 % 101 for i in range(start, start + 400)}
        for start in range(0, 1200, 200)
    ]
    assert len({name for table in many for name in table}) > 15 * NUM_PARTITIONS
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        for min_count, top_k in ((1, None), (2, None), (1, 3), (3, 4), (1, 1), (100, 5)):
            name = f"at least {min_count}, top {top_k}"
            check_most_frequent(pipeline, name, tables, tmp_path, min_count=min_count, top_k=top_k)
        for nothing in ([], [{}], [{}, {}]):
            kept = check_most_frequent(
                pipeline, f"of {nothing}", nothing, tmp_path, min_count=1, top_k=None
            )
            assert kept == 0
        kept = check_most_frequent(
            pipeline, "many more than partitions", many, tmp_path, min_count=2, top_k=150
        )
        assert kept == 150


keyed = st.lists(st.lists(st.tuples(st.integers(0, 5), names), max_size=8), max_size=4)


@settings(max_examples=30)
@given(tables=keyed, spill_bytes=st.sampled_from([1, 10**9]))
def test_spilled_rows_come_back_once_each_under_their_key(tables, spill_bytes, tmp_path_factory):
    do_fn = SpillByKey(str(tmp_path_factory.mktemp("spill")))
    do_fn.start_bundle()
    emitted: list[tuple[int, Segment]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beam_jobs.runtime.spill.SPILL_BYTES", spill_bytes)
        for table in tables:
            columns = [
                [name for _, name in table],
                [1] * len(table),
                [2] * len(table),
                [key for key, _ in table],
            ]
            emitted += do_fn.process(
                pa.table(columns, schema=COUNTS.append(pa.field("key", pa.int64())))
            )
        emitted += [windowed.value for windowed in do_fn.finish_bundle()]
    rows = collections.defaultdict(list)
    for key, segment in emitted:
        part = read_segments([segment], COUNTS)
        assert part.schema == COUNTS and part.num_rows
        rows[key] += part["name"].to_pylist()
    expected = collections.defaultdict(list)
    for key, name in (pair for table in tables for pair in table):
        expected[key].append(name)
    assert rows == expected  # in the order they came, too
