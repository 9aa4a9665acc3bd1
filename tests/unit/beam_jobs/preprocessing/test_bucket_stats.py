"""Selecting labels and tallying buckets, against plain Python."""

import collections

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.buckets import MERGED, Bucket, write_table
from beam_jobs.preprocessing.tally import (
    POSITIVES,
    POSITIVES_TAG,
    TOKEN_COUNTS_TAG,
    TallyBucket,
    select,
    sum_positives,
)

NAMES = ["a", "b", "c", "é", "\uffff", "\U00010000"]
rows = st.lists(
    st.fixed_dictionaries(
        {
            "labels": st.lists(st.sampled_from(NAMES), unique=True).map(sorted),
            "text": st.lists(
                st.sampled_from(["x", "y", "été", "\u3042"]), min_size=1, max_size=5
            ).map(" ".join),
            "split": st.integers(0, 2),
        }
    ),
    max_size=15,
)
kept_names = st.lists(st.sampled_from([*NAMES, "never"]), unique=True).map(sorted)


def table_of(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            row | {"digest": i.to_bytes(16, "big"), "id": b"%d" % i, "weight": 1.0}
            for i, row in enumerate(rows)
        ],
        schema=MERGED,
    )


@given(rows=rows, kept=kept_names, keep_unlabeled=st.booleans(), cut=st.integers(0, 15))
def test_select_equals_the_reference(rows, kept, keep_unlabeled, cut):
    table = pa.concat_tables([table_of(rows)[:cut], table_of(rows)[cut:]])
    selected = select(table, pa.array(kept, pa.large_string()), keep_unlabeled=keep_unlabeled)
    expected = []
    for i, row in enumerate(rows):
        ids = [kept.index(label) for label in row["labels"] if label in kept]
        if ids or keep_unlabeled:
            expected.append((b"%d" % i, row["text"], ids))
    assert (
        list(zip(*(selected[name].to_pylist() for name in ("id", "text", "labels")), strict=True))
        == expected
    )
    assert all(ids == sorted(ids) for _, _, ids in expected)


def rows_of(positives: pa.Table) -> dict[tuple[int, int], int]:
    columns = positives.to_pydict()
    return {
        (label, split): count
        for label, split, count in zip(
            columns["label"], columns["split"], columns["count"], strict=True
        )
    }


@given(rows=rows, kept=kept_names, keep_unlabeled=st.booleans())
def test_a_tally_equals_the_reference(rows, kept, keep_unlabeled, tmp_path_factory):
    path = str(tmp_path_factory.getbasetemp() / "bucket.arrow")
    write_table(path, table_of(rows))
    tally, tagged, positives = TallyBucket(keep_unlabeled).process(
        Bucket(3, path, len(rows), 5),
        pa.array(kept, pa.large_string()),
        np.array(top := list(range(len(kept)))[::-2], np.int64),
    )
    chosen = [row for row in rows if keep_unlabeled or set(row["labels"]) & set(kept)]
    splits = [[row for row in chosen if row["split"] == split] for split in range(len(SPLITS))]
    assert tally.documents.tolist() == [len(split) for split in splits]
    assert tally.without_labels.tolist() == [
        sum(not set(row["labels"]) & set(kept) for row in split) for split in splits
    ]
    assert tally.bytes.tolist() == [
        sum(len(row["text"].encode()) for row in split) for split in splits
    ]
    assert (tally.dropped, tally.duplicates, tally.bucket.index) == (len(rows) - len(chosen), 5, 3)
    by_label = {
        (i, j): sum(name in row["labels"] for row in split)
        for i, name in enumerate(kept)
        for j, split in enumerate(splits)
    }
    assert positives.tag == POSITIVES_TAG
    assert rows_of(positives.value) == {place: count for place, count in by_label.items() if count}
    doubled = sum_positives(pa.concat_tables([positives.value.drop_columns("key")] * 2))
    assert doubled.schema == POSITIVES and rows_of(doubled) == {
        place: 2 * count for place, count in by_label.items() if count
    }
    assert tally.together.tolist() == [
        [sum({kept[a], kept[b]} <= set(row["labels"]) for row in chosen) for a in top] for b in top
    ]
    for split, histogram in zip(splits, tally.labels_each.tolist(), strict=True):
        assert {
            size: count for size, count in enumerate(histogram) if count
        } == collections.Counter(len(set(row["labels"]) & set(kept)) for row in split)
    assert tally.kept_labels == sum(by_label.values())
    lengths = [collections.Counter(len(row["text"].split()) for row in split) for split in splits]
    assert [
        dict(enumerate(row)) | counted
        for row, counted in zip(tally.token_lengths.tolist(), lengths, strict=True)
    ] == [dict(enumerate(row)) for row in tally.token_lengths.tolist()]
    assert tally.token_lengths.sum() == len(chosen)
    assert tally.merged_labels == sum(len(row["labels"]) for row in rows)
    tokens = collections.Counter(token for row in splits[0] for token in set(row["text"].split()))
    assert tagged.tag == TOKEN_COUNTS_TAG
    occurrences = collections.Counter(token for row in splits[0] for token in row["text"].split())
    assert {
        name: counts for name, *counts in zip(*tagged.value.to_pydict().values(), strict=True)
    } == {name: [count, occurrences[name]] for name, count in tokens.items()}
    assert tally.train_tokens == sum(tokens.values())
    assert all(
        array.dtype == np.int64
        for array in (tally.documents, tally.without_labels, tally.bytes, tally.token_lengths)
    )
