"""Counting names, against collections.Counter."""

import collections

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.preprocessing.frequencies import (
    COUNTS,
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
