"""Label names become ids, against plain Python; and where documents without labels are dropped."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.preprocessing.buckets import ENCODED, MERGED, Bucket, read_table, write_table
from beam_jobs.preprocessing.encode_labels import EncodeBucket, encode_labels

NAMES = ["a", "b", "c", "é", "\uffff", "\U00010000"]
rows = st.lists(st.lists(st.sampled_from(NAMES), unique=True).map(sorted), max_size=15)
kept_names = st.lists(st.sampled_from([*NAMES, "never"]), unique=True).map(sorted)


def table_of(rows: list[list[str]]) -> pa.Table:
    documents = [
        {"digest": i.to_bytes(16, "big"), "id": b"%d" % i, "labels": labels, "weight": 1.0}
        for i, labels in enumerate(rows)
    ]
    return pa.Table.from_pylist(documents, schema=MERGED)


@given(rows=rows, kept=kept_names, keep_unlabeled=st.booleans(), cut=st.integers(0, 15))
def test_ids_are_indices_of_the_sorted_names(rows, kept, keep_unlabeled, cut):
    table = pa.concat_tables([table_of(rows)[:cut], table_of(rows)[cut:]])
    names = pa.array(kept, pa.large_string())
    encoded = encode_labels(table, names, keep_unlabeled=keep_unlabeled)
    assert encoded.schema == ENCODED
    ids = [[kept.index(label) for label in labels if label in kept] for labels in rows]
    expected = [(b"%d" % i, row) for i, row in enumerate(ids) if row or keep_unlabeled]
    assert (
        list(zip(encoded["id"].to_pylist(), encoded["labels"].to_pylist(), strict=True)) == expected
    )
    assert all(row == sorted(row) for _, row in expected)


def test_a_bucket_counts_the_labels_it_had_and_the_documents_it_dropped(tmp_path):
    path = str(tmp_path / "bucket.arrow")
    write_table(path, table_of([["a", "b"], ["b"], [], ["c"]]))
    names = pa.array(["a", "c"], pa.large_string())
    for keep_unlabeled, dropped in ((True, 0), (False, 2)):
        (bucket,) = EncodeBucket(str(tmp_path), keep_unlabeled).process(
            Bucket(4, path, 4, 7), names
        )
        assert (bucket.index, bucket.duplicates, bucket.label_occurrences) == (4, 7, 4)
        assert (bucket.documents, bucket.dropped_without_labels) == (4 - dropped, dropped)
        assert read_table(bucket.path).num_rows == bucket.documents
