"""The most frequent names of a pipeline, against a sorted collections.Counter."""

import collections

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from beam_jobs.preprocessing.frequencies import (
    COUNTS,
    MAX_PARTITIONS,
    NUM_PARTITIONS,
    PARTITION_BYTES,
    MostFrequent,
    num_partitions,
)


def check_most_frequent(
    pipeline,
    name: str,
    tables: list[dict[str, int]],
    folder,
    *,
    min_count: int,
    top_k: int | None,
    always: tuple[str, ...] = (),
    **more,
) -> int:
    """Compares with a sorted Counter when the pipeline runs; returns how many names are kept."""
    totals = sum((collections.Counter(table) for table in tables), collections.Counter())
    kept = [(name, count) for name, count in totals.items() if count >= min_count or name in always]
    in_order = sorted(kept, key=lambda pair: (-pair[1], pair[0]))
    expected = [
        pair
        for rank, pair in enumerate(in_order)
        if top_k is None or rank < top_k or pair[0] in always
    ]
    expected += [(name, 0) for name in sorted(always) if name not in totals]

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
        | name >> MostFrequent(str(folder), min_count, top_k, always=always, **more)
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
        for min_count, top_k in ((1, None), (3, 1), (100, 2)):
            check_most_frequent(
                pipeline,
                f"some always, at least {min_count}, top {top_k}",
                tables,
                tmp_path,
                min_count=min_count,
                top_k=top_k,
                always=("x", "b", "never", "no"),
            )
        for nothing in ([], [{}], [{}, {}]):
            kept = check_most_frequent(
                pipeline, f"of {nothing}", nothing, tmp_path, min_count=1, top_k=None
            )
            assert kept == 0
        kept = check_most_frequent(
            pipeline, "many more than partitions", many, tmp_path, min_count=2, top_k=150
        )
        assert kept == 150
        fewer = {"min_count": 2, "top_k": 150, "partitions": 3}
        check_most_frequent(pipeline, "in few partitions", many, tmp_path, **fewer)


def test_partitions_grow_with_the_text_so_that_their_memory_does_not():
    assert num_partitions(10 << 20) == num_partitions(10 << 30) == NUM_PARTITIONS
    assert (100 << 30) / num_partitions(100 << 30) == pytest.approx(PARTITION_BYTES)
    assert num_partitions(100 << 40) == MAX_PARTITIONS
