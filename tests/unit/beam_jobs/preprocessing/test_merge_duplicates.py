"""Merging duplicates, against plain Python."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.sections.labels import LabelsConfig
from beam_jobs.contract.sections.splits import ColumnSplits, HashSplits
from beam_jobs.preprocessing.buckets import DOCUMENTS, MERGED, read_table
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
        "source_split": st.sampled_from([None, 0, 1, 2]),
        "time_us": st.sampled_from([None, -1, 0, 2**60]),
        "metadata": st.just(["x"]),
    }
).map(lambda row: row | {"texts": [row["digest"].hex(), "b"]})


def table_of(rows: list[dict], cuts: list[int]) -> pa.Table:
    """A table in chunks that end at `cuts`."""
    table = pa.Table.from_pylist(rows, schema=DOCUMENTS)
    ends = sorted({min(cut, len(rows)) for cut in cuts} | {len(rows)})
    return pa.concat_tables(
        [table[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    )


def largest(values) -> int | None:
    return max((value for value in values if value is not None), default=None)


def reference(rows: list[dict]) -> list[dict]:
    merged = []
    for digest in sorted({row["digest"] for row in rows}):
        equal = [row for row in rows if row["digest"] == digest]
        merged.append(
            {
                "digest": digest,
                "id": min(row["id"] for row in equal),
                "texts": [digest.hex(), "b"],
                "labels": sorted({label for row in equal for label in row["labels"]}),
                "weight": max(row["weight"] for row in equal),
                "metadata": ["x"],
                "source_split": largest(row["source_split"] for row in equal),
                "time_us": largest(row["time_us"] for row in equal),
            }
        )
    return merged


def with_other_labels(rows: list[dict]) -> int:
    labels = {row["digest"]: [] for row in rows}
    for row in rows:
        labels[row["digest"]].append(frozenset(row["labels"]))
    return sum(len(of_one) - 1 for of_one in labels.values() if len(set(of_one)) > 1)


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
    source_splits = [row.pop("source_split") for row in expected_rows]
    assert table.drop_columns("split").to_pylist() == expected_rows
    assert (bucket.index, bucket.documents, bucket.duplicates) == (
        7,
        len(expected_rows),
        len(rows) - len(expected_rows),
    )
    assert bucket.duplicates_with_other_labels == with_other_labels(rows)
    uniform = {digest: int.from_bytes(digest[8:], "big") / 2**64 for digest in DIGESTS}
    expected = [
        0 if uniform[digest] < 0.5 else 1 if uniform[digest] < 0.75 else 2
        for digest in table["digest"].to_pylist()
    ]
    assert table["split"].to_pylist() == expected
    (bucket,) = MergeDuplicates(str(folder), ColumnSplits(method="column"), NO_RULES).process(
        (7, segments)
    )
    assert read_table(bucket.path)["split"].to_pylist() == source_splits
    assert sorted(path.name for path in folder.iterdir()) == ["merged-00007.arrow", "spill.arrow"]


def test_a_retried_bucket_replaces_the_file_of_the_first_attempt(tmp_path):
    do_fn = MergeDuplicates(str(tmp_path), HashSplits(), NO_RULES)
    contents = []
    for _ in range(2):
        (bucket,) = do_fn.process((0, []))
        contents.append((tmp_path / "merged-00000.arrow").read_bytes())
    assert contents[0] == contents[1]
    assert bucket.duplicates == 0 and read_table(bucket.path).num_rows == 0
