"""Counting what a bucket holds, against plain Python."""

import collections

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.bucket_stats import (
    POSITIVES,
    POSITIVES_TAG,
    TOKEN_COUNTS_TAG,
    CountBucket,
    count_unspaced,
    sum_positives,
)
from beam_jobs.preprocessing.buckets import ENCODED, Bucket, write_table
from beam_jobs.preprocessing.frequencies import COUNTS
from beam_jobs.preprocessing.histograms import Histogram

NUM_LABELS = 150  # more than the partitions of the labels
words = st.lists(st.sampled_from(["x", "y", "été", "\u3042"]), max_size=4)
labels = st.integers(0, 4) | st.sampled_from([63, 64, 128, NUM_LABELS - 1])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "labels": st.lists(labels, unique=True).map(sorted),
            "texts": st.lists(words.map(" ".join), min_size=2, max_size=2).filter(any),
            "split": st.integers(0, 2),
        }
    ),
    max_size=15,
)


def table_of(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            row | {"digest": i.to_bytes(16, "big"), "id": b"%d" % i, "weight": 1.0}
            for i, row in enumerate(rows)
        ],
        schema=ENCODED,
    )


def rows_of(positives: pa.Table) -> dict[tuple[int, int], int]:
    columns = positives.to_pydict()
    return {
        (label, split): count
        for label, split, count in zip(
            columns["label"], columns["split"], columns["count"], strict=True
        )
    }


def test_tokens_of_scripts_without_spaces_are_counted_with_their_characters():
    counts = pa.table(
        {
            "name": [
                "the",
                "\u6771\u4eac",
                "\u30bf\u30ef\u30fc",
                "\u0e01\u0e32\u0e23",
                "\u00e9t\u00e9",
            ],
            "count": [1, 1, 1, 1, 1],
            "occurrences": [9, 2, 1, 4, 1],
        }
    ).cast(COUNTS)
    documents = [
        [["the", "\u6771\u4eac", "\u30bf\u30ef\u30fc"], ["the"], ["\u00e9t\u00e9"]],
        [[], ["\u6771\u4eac", "\u0e01\u0e32\u0e23"]],
    ]
    tokens = pa.chunked_array(documents, pa.list_(pa.string()))
    assert count_unspaced(counts, tokens).tolist() == [[3, 7, 2], [4, 12, 1]]
    assert count_unspaced(counts[:1], tokens).tolist() == [[0, 0, 0], [0, 0, 0]]


@given(rows=rows)
def test_bucket_stats_equal_the_reference(rows, tmp_path_factory):
    path = str(tmp_path_factory.getbasetemp() / "bucket.arrow")
    write_table(path, table_of(rows))
    top = [4, 2, 0, 128]
    stats, token_counts, positives = CountBucket().process(
        Bucket(3, path, len(rows), 5), np.array(top, np.int64)
    )
    splits = [[row for row in rows if row["split"] == split] for split in range(len(SPLITS))]
    tokens_of = {id(row): " ".join(row["texts"]).split() for row in rows}
    assert stats.bucket.index == 3
    assert stats.documents.tolist() == [len(split) for split in splits]
    assert stats.without_labels.tolist() == [
        sum(not row["labels"] for row in split) for split in splits
    ]
    assert stats.bytes.tolist() == [
        sum(len("\n".join(row["texts"]).encode()) for row in split) for split in splits
    ]
    by_label = {
        (label, j): sum(label in row["labels"] for row in split)
        for label in range(NUM_LABELS)
        for j, split in enumerate(splits)
    }
    by_label = {label_and_split: count for label_and_split, count in by_label.items() if count}
    assert positives.tag == POSITIVES_TAG
    assert rows_of(positives.value) == by_label
    doubled = sum_positives(pa.concat_tables([positives.value.drop_columns("key")] * 2))
    assert doubled.schema == POSITIVES
    assert rows_of(doubled) == {key: 2 * count for key, count in by_label.items()}
    assert stats.co_occurrence.tolist() == [
        [sum({a, b} <= set(row["labels"]) for row in rows) for a in top] for b in top
    ]
    assert stats.label_occurrences == sum(by_label.values())
    for i, split in enumerate(splits):
        num_labels = collections.Counter(len(row["labels"]) for row in split)
        assert _as_counter(stats.labels_per_document, i) == num_labels
        num_tokens = collections.Counter(len(tokens_of[id(row)]) for row in split)
        assert _as_counter(stats.token_lengths, i) == num_tokens
    documents = collections.Counter(token for row in splits[0] for token in {*tokens_of[id(row)]})
    occurrences = collections.Counter(token for row in splits[0] for token in tokens_of[id(row)])
    assert token_counts.tag == TOKEN_COUNTS_TAG
    assert {
        name: counts for name, *counts in zip(*token_counts.value.to_pydict().values(), strict=True)
    } == {name: [count, occurrences[name]] for name, count in documents.items()}
    assert stats.train_tokens == sum(documents.values())
    assert all(
        array.dtype == np.int64 for array in (stats.documents, stats.without_labels, stats.bytes)
    )


def _as_counter(histogram: Histogram, split: int) -> dict[int, int]:
    counts = zip(histogram.numbers.tolist(), histogram.documents[split].tolist(), strict=True)
    return {number: count for number, count in counts if count}
