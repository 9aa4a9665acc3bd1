"""Merging duplicates, against plain Python."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.dataset_config import ColumnSplits, HashSplits, LabelsConfig
from beam_jobs.preprocessing.buckets import DOCUMENTS, MERGED, order_keys, read_table, split_keys
from beam_jobs.preprocessing.labels import LabelRules
from beam_jobs.preprocessing.merge_duplicates import MergeDuplicates, merge
from beam_jobs.runtime.spill import Segment, to_ipc

DIGESTS = [bytes([i]) * 8 + bytes([255 - i]) * 8 for i in (0, 1, 127, 128, 255)]
NO_RULES = LabelRules(LabelsConfig())
# Names whose order differs between code points, UTF-16 and collation.
NAMES = ["", "a", "b", "B", "aa", "é", "\uffff", "\U00010000", "\x00"]

documents = st.fixed_dictionaries(
    {
        "digest": st.sampled_from(DIGESTS),
        "id": st.sampled_from([b"", b"1", b"10", b"2", b"\xff", b"\x7f"]),
        "labels": st.lists(st.sampled_from(NAMES), max_size=6),
        "weight": st.sampled_from([0.0, 0.5, 1.0, 2.5]),
        "given": st.sampled_from([-1, 0, 1, 2]),
        "metadata": st.just(["x"]),
    }
).map(lambda row: row | {"text": row["digest"].hex()})


def table_of(rows: list[dict], cuts: list[int]) -> pa.Table:
    """A table in chunks that end at `cuts`."""
    table = pa.Table.from_pylist(rows, schema=DOCUMENTS)
    ends = sorted({min(cut, len(rows)) for cut in cuts} | {len(rows)})
    return pa.concat_tables(
        [table[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    )


def reference(rows: list[dict]) -> list[dict]:
    merged = []
    for digest in sorted({row["digest"] for row in rows}):
        equal = [row for row in rows if row["digest"] == digest]
        merged.append(
            {
                "digest": digest,
                "id": min(row["id"] for row in equal),
                "text": digest.hex(),
                "labels": sorted({label for row in equal for label in row["labels"]}),
                "weight": max(row["weight"] for row in equal),
                "metadata": ["x"],
                "given": max(row["given"] for row in equal),
            }
        )
    return merged


@given(rows=st.lists(documents, max_size=25), cuts=st.lists(st.integers(0, 25), max_size=3))
def test_merge_equals_the_reference_however_the_table_is_cut(rows, cuts):
    table = merge(table_of(rows, cuts))
    assert table.schema == DOCUMENTS
    assert table.to_pylist() == reference(rows)


@given(rows=st.lists(documents, max_size=25), order=st.randoms())
def test_merge_depends_on_no_order_and_merging_twice_changes_nothing(rows, order):
    once = merge(table_of(rows, []))
    order.shuffle(rows)
    assert merge(table_of(rows, [3])) == once
    assert merge(once) == once


@given(parts=st.lists(st.lists(documents, max_size=8), min_size=1, max_size=4))
def test_a_bucket_holds_the_merged_documents_with_their_split_and_counts_the_duplicates(
    parts, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("bucket")
    segments = []
    path = folder / "spill.arrow"
    with path.open("wb") as stream:
        for part in parts:
            content = to_ipc(table_of(part, []))
            segments.append(Segment(str(path), stream.tell(), len(content)))
            stream.write(content)
    (bucket,) = MergeDuplicates(
        str(folder), HashSplits(train=0.5, validation=0.25, test=0.25), NO_RULES
    ).process((7, segments))
    rows = [row for part in parts for row in part]
    table = read_table(bucket.path)
    assert table.schema == MERGED
    expected_rows = reference(rows)
    given = [row.pop("given") for row in expected_rows]
    assert table.drop_columns("split").to_pylist() == expected_rows
    assert (bucket.index, bucket.documents, bucket.duplicates) == (
        7,
        len(expected_rows),
        len(rows) - len(expected_rows),
    )
    uniform = {digest: int.from_bytes(digest[8:], "big") / 2**64 for digest in DIGESTS}
    expected = [
        0 if uniform[digest] < 0.5 else 1 if uniform[digest] < 0.75 else 2
        for digest in table["digest"].to_pylist()
    ]
    assert table["split"].to_pylist() == expected
    (bucket,) = MergeDuplicates(str(folder), ColumnSplits(method="column"), NO_RULES).process(
        (7, segments)
    )
    assert read_table(bucket.path)["split"].to_pylist() == given
    assert sorted(path.name for path in folder.iterdir()) == ["bucket-00007.arrow", "spill.arrow"]


def test_a_retried_bucket_replaces_the_file_of_the_first_attempt(tmp_path):
    do_fn = MergeDuplicates(str(tmp_path), HashSplits(), NO_RULES)
    contents = []
    for _ in range(2):
        (bucket,) = do_fn.process((0, []))
        contents.append((tmp_path / "bucket-00000.arrow").read_bytes())
    assert contents[0] == contents[1]
    assert bucket.duplicates == 0 and read_table(bucket.path).num_rows == 0


@pytest.mark.parametrize("digests", [[], DIGESTS])
def test_keys_are_the_big_endian_halves_of_the_digest(digests):
    column = pa.chunked_array(
        [pa.array(digests[:2], pa.binary()), pa.array(digests[2:], pa.binary())]
    )
    assert order_keys(column).tolist() == [int.from_bytes(digest[:8], "big") for digest in digests]
    assert split_keys(column).tolist() == [int.from_bytes(digest[8:], "big") for digest in digests]
    assert np.array_equal(
        np.argsort(order_keys(column), kind="stable"), np.arange(len(digests))
    )  # sorted digests have sorted keys
