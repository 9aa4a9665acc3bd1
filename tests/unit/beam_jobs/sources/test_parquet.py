"""Parquet: typed columns, row groups as ranges, and damage."""

import datetime
import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import ParquetData
from beam_jobs.sources import input_files
from beam_jobs.sources.documents import UNREADABLE, Document, Reject
from beam_jobs.sources.fields import TOO_LONG
from beam_jobs.sources.parquet import BATCH_ROWS, ParquetReader

LISTS = pa.list_(pa.string())


def make(table: pa.Table, folder, *, data: dict | None = None, **writing) -> ParquetReader:
    pq.write_table(table, folder / "in.parquet", **writing)
    return ParquetReader(
        ParquetData(source="parquet", inputs=(str(folder / "in.parquet"),), **(data or {}))
    )


def read(table: pa.Table, folder, **kwargs) -> list[Document | Reject]:
    reader = make(table, folder, **kwargs)
    return [row for file in reader.files() for row in reader.read(file)]


def table_of(count: int) -> pa.Table:
    return pa.table(
        {
            "key": range(count),
            "text": [f"text {i}" for i in range(count)],
            "labels": [["x", f"y{i}"] for i in range(count)],
        }
    )


def test_rows_are_documents_numbered_from_1_over_batches_and_row_groups(tmp_path):
    count = 3 * BATCH_ROWS + 7
    rows = read(table_of(count), tmp_path, data={"id_field": "key"}, row_group_size=BATCH_ROWS + 50)
    assert [(row.row, row.id, row.texts[0], row.labels) for row in rows] == [
        (i + 1, f"{i}", f"text {i}", ("x", f"y{i}")) for i in range(count)
    ]


@pytest.mark.parametrize("range_bytes", [500, 3000, 10_000, 1 << 30])
def test_ranges_hold_each_row_group_once_with_the_same_row_numbers(tmp_path, range_bytes):
    reader = make(table_of(2000), tmp_path, row_group_size=300)
    (file,) = reader.files()
    pieces = [
        piece
        for part in input_files.parts([file], part_bytes=1, range_bytes=range_bytes)
        for piece in part
    ]
    assert (len(pieces) > 2) == (range_bytes <= 10_000)
    assert [row for piece in pieces for row in reader.read(piece)] == list(reader.read(file))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
@pytest.mark.parametrize("lists", [pa.list_, pa.large_list, lambda item: pa.list_(item, 2)])
def test_every_type_of_string_and_of_list_is_read(tmp_path, kind, lists):
    strings = pa.array(["a", "b"]).cast(kind)
    (first, second) = read(
        pa.table(
            {"text": strings, "labels": pa.array([["x", "y"], ["y", "z"]], lists(pa.string()))}
        ),
        tmp_path,
    )
    assert (first.texts[0], first.labels, second.texts[0], second.labels) == (
        "a",
        ("x", "y"),
        "b",
        ("y", "z"),
    )


def test_labels_may_be_delimited_or_one_column_each(tmp_path):
    table = pa.table(
        {
            "text": ["a", "b"],
            "tags": ["x|y", None],
            "p": [True, False],
            "q": [0.5, None],
            "r": [0, 1],
        }
    )
    assert [
        row.labels
        for row in read(table, tmp_path, data={"labels_field": "tags", "label_delimiter": "|"})
    ] == [("x", "y"), ()]
    assert [
        row.labels for row in read(table, tmp_path, data={"label_columns": ("p", "q", "r")})
    ] == [("p", "q"), ("r",)]


def test_a_column_that_is_not_named_is_not_read(tmp_path):
    table = table_of(10).append_column("other", pa.array([b"\xff" * 1000] * 10))
    reader = make(table, tmp_path, compression="none", use_dictionary=False)
    content = bytearray((tmp_path / "in.parquet").read_bytes())
    at = content.index(b"\xff" * 1000) - 40  # the header of the column's page
    content[at : at + 80] = bytes(80)
    (tmp_path / "in.parquet").write_bytes(content)
    assert len([row for file in reader.files() for row in reader.read(file)]) == 10


def test_wrong_values_are_rejects_with_their_rows(tmp_path):
    table = pa.table(
        {
            "text": pa.array(["a", None, "c", "d", "e", "f" * 3000]),
            "labels": pa.array([["x"], ["x"], ["x\ny"], [None], ["x" * 1001], ["x"]], LISTS),
        }
    )
    rows = read(table, tmp_path, data={"max_row_bytes": 2000})
    reasons = [
        "no text",
        "label is not printable",
        "label is not a string",
        "label is too long",
        TOO_LONG,
    ]
    assert [(row.row, row.reason) for row in rows[1:]] == list(
        zip(range(2, 7), reasons, strict=True)
    )
    assert rows[0].labels == ("x",) and "'labels': ['x\\ny']" in rows[2].content


def test_a_string_that_is_no_utf8_costs_its_row_alone(tmp_path):
    binary = pa.array([b"a", b"b\xff", b"c"] * 200, pa.binary())
    broken = pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())
    rows = read(pa.table({"text": broken, "labels": pa.array([["x"]] * 600, LISTS)}), tmp_path)
    assert [(row.row, getattr(row, "reason", None)) for row in rows] == [
        (i + 1, "not UTF-8" if i % 3 == 1 else None) for i in range(600)
    ]


@pytest.mark.parametrize(
    ("table", "data", "message"),
    [
        (
            {"a": ["x"], "b": [1]},
            {},
            "data.text_fields: .*in.parquet has no column 'text'; the columns found are 'a', 'b'",
        ),
        ({"text": ["x"]}, {}, "data.labels_field: .* has no column 'labels'"),
        (
            {"text": [1], "labels": [["x"]]},
            {},
            "in.parquet: column 'text' has the type int64, expected a string",
        ),
        (
            {"text": ["a"], "labels": ["x"]},
            {},
            "column 'labels' has the type string, expected a list of strings; for joined labels "
            "in a string set data.label_delimiter",
        ),
        (
            {"text": ["a"], "labels": [[1]]},
            {},
            "column 'labels' has the type list<element: int64>, expected a list of strings",
        ),
        (
            {"text": ["a"], "labels": [["x"]]},
            {"label_delimiter": ","},
            "column 'labels' .*, expected a string, as data.label_delimiter is set",
        ),
        (
            {"text": ["a"], "labels": [["x"]]},
            {"id_field": "k"},
            "data.id_field: .* has no column 'k'",
        ),
        (
            {"text": ["a"], "labels": [["x"]]},
            {"label_columns": ("p",)},
            "data.label_columns: .* has no column 'p'",
        ),
    ],
)
def test_a_wrong_schema_is_the_users_error_before_any_work(tmp_path, table, data, message):
    with pytest.raises(UserError, match=message):
        make(pa.table(table), tmp_path, data=data).files()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text,labels\n", None])
def test_a_file_that_is_no_parquet_or_is_cut_off_is_the_users_error_before_any_work(
    tmp_path, content
):
    reader = make(table_of(1000), tmp_path)
    path = tmp_path / "in.parquet"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(
        UserError, match=r"data.inputs: .*in.parquet \([0-9,]+ bytes\) is not a whole Parquet file"
    ):
        reader.files()


def test_a_file_of_no_rows_holds_no_documents(tmp_path):
    assert read(table_of(0), tmp_path) == []


def test_a_damaged_row_group_ends_the_file_in_a_reject(tmp_path):
    reader = make(table_of(3000), tmp_path, row_group_size=1000, compression="zstd")
    content = bytearray((tmp_path / "in.parquet").read_bytes())
    offset = (
        pq.ParquetFile(tmp_path / "in.parquet")
        .metadata.row_group(1)
        .column(1)
        .dictionary_page_offset
    )
    content[offset : offset + 2000] = bytes(2000)
    (tmp_path / "in.parquet").write_bytes(content)
    rows = [row for file in reader.files() for row in reader.read(file)]
    last = rows.pop()
    assert (len(rows), last.reason, last.row) == (1000, UNREADABLE, 1001)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_file_counts_as_what_is_read_of_it(tmp_path, compression):
    texts = [f"number {i} " + "again and " * 200 for i in range(500)]
    table = pa.table(
        {"text": texts, "labels": [["x"]] * 500, "unread": [text * 3 for text in texts]}
    )
    pq.write_table(table, tmp_path / "a.parquet", compression=compression, use_dictionary=False)
    (file,) = ParquetReader(
        ParquetData(source="parquet", inputs=(str(tmp_path / "a.parquet"),))
    ).files()
    assert file.bytes == (tmp_path / "a.parquet").stat().st_size
    assert file.plain_bytes == pytest.approx(sum(map(len, texts)), rel=0.02)


def rows_of(table: pa.Table, folder, **data) -> list[Document | Reject]:
    pq.write_table(table, folder / "odd.parquet")
    reader = ParquetReader(
        ParquetData(source="parquet", inputs=(str(folder / "odd.parquet"),), **data)
    )
    return [row for file in reader.files() for row in reader.read(file)]


TEXTS = ["a", "b", "c"]
LABELS = pa.array([["x"], ["y"], []], pa.list_(pa.string()))


def test_times_in_nanoseconds_are_read_to_the_microsecond(tmp_path):
    times = pa.array([1_577_836_800_000_000_123, 1_001, None], pa.timestamp("ns"))
    table = pa.table({"text": TEXTS, "labels": LABELS, "time": times})
    rows = rows_of(table, tmp_path, time_field="time", metadata_fields=("time",))
    assert [row.time for row in rows] == [
        "2020-01-01T00:00:00",
        "1970-01-01T00:00:00.000001",
        None,
    ]
    assert rows[2].metadata == ("",)


def test_a_year_that_python_cannot_hold_is_a_reject_of_its_row(tmp_path):
    times = pa.array([0, 400_000_000_000, 1], pa.timestamp("s"))
    table = pa.table({"text": TEXTS, "labels": LABELS, "time": times})
    first, wrong, last = rows_of(table, tmp_path, time_field="time")
    assert (first.time, last.time) == ("1970-01-01T00:00:00", "1970-01-01T00:00:01")
    assert (wrong.row, wrong.reason) == (2, "value out of range")


def test_several_columns_of_one_name_are_the_users_error(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array(TEXTS), pa.array(TEXTS), LABELS], ["text", "text", "labels"]
    )
    with pytest.raises(UserError, match="received several columns 'text', expected one"):
        rows_of(table, tmp_path)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_strings_that_are_binary_are_utf_8(tmp_path, kind):
    table = pa.table(
        {
            "text": pa.array([b"a", "é".encode(), b"\xff"], kind),
            "labels": pa.array([[b"x"], [b"y", b"z"], []], pa.list_(kind)),
        }
    )
    first, second, wrong = rows_of(table, tmp_path)
    assert (first.labels, second.texts, second.labels) == (("x",), ("é",), ("y", "z"))
    assert (wrong.row, wrong.reason) == (3, "not UTF-8")


def test_metadata_and_weights_of_any_type(tmp_path):
    table = pa.table(
        {
            "text": pa.array(TEXTS).dictionary_encode(),
            "labels": pa.array([["x"], ["y"], []], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
            "weight": [decimal.Decimal("1.50"), decimal.Decimal("0.25"), decimal.Decimal("2.00")],
            "stars": [4.5, 3.0, None],
            "day": [datetime.date(2020, 1, 1)] * 3,
            "of": [{"a": datetime.date(2020, 1, 1)}] * 3,
        }
    )
    rows = rows_of(
        table, tmp_path, weight_field="weight", metadata_fields=("stars", "day", "weight", "of")
    )
    assert [row.weight for row in rows] == [1.5, 0.25, 2.0]
    assert [row.labels for row in rows] == [("x",), ("y",), ()]
    assert rows[0].metadata == ("4.5", "2020-01-01", "1.50", '{"a": "2020-01-01"}')
    assert rows[2].metadata[0] == ""


def test_times_in_nanoseconds_are_read_within_lists_and_objects_too(tmp_path):
    nanoseconds, at = pa.timestamp("ns"), 1_577_836_800_000_000_123
    table = pa.table(
        {
            "text": ["a"],
            "labels": pa.array([["x"]], pa.list_(pa.string())),
            "of": pa.array([{"at": at}], pa.struct([("at", nanoseconds)])),
            "all": pa.array([[at, None]], pa.list_(nanoseconds)),
        }
    )
    (row,) = rows_of(table, tmp_path, time_field="of.at", metadata_fields=("all",))
    assert row.time == "2020-01-01T00:00:00"
    assert row.metadata == ('["2020-01-01T00:00:00", null]',)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 4_000_000, 1], pa.date32()),
        pa.array([{"at": 0}, {"at": 1 << 40}, None], pa.struct([("at", pa.timestamp("s"))])),
        pa.array([[0], [1 << 60], []], pa.list_(pa.timestamp("us", "UTC"))),
    ],
)
def test_a_day_or_a_nested_time_out_of_range_is_a_reject_of_its_row(tmp_path, column):
    table = pa.table({"text": TEXTS, "labels": LABELS, "when": column})
    first, wrong, last = rows_of(table, tmp_path, metadata_fields=("when",))
    assert isinstance(first, Document) and isinstance(last, Document)
    assert (wrong.row, wrong.reason) == (2, "value out of range")


def test_columns_of_one_name_that_are_not_read_do_no_harm(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array(TEXTS), LABELS, pa.array([1, 2, 3]), pa.array(TEXTS)],
        ["text", "labels", "other", "other"],
    )
    assert [row.texts for row in rows_of(table, tmp_path)] == [("a",), ("b",), ("c",)]


def test_a_time_zone_that_is_not_known_here_is_utc(tmp_path):
    times = pa.array([0, 1, None], pa.timestamp("s", "Nowhere/Atlantis"))
    table = pa.table({"text": TEXTS, "labels": LABELS, "time": times})
    rows = rows_of(table, tmp_path, time_field="time")
    assert [row.time for row in rows] == [
        "1970-01-01T00:00:00+00:00",
        "1970-01-01T00:00:01+00:00",
        None,
    ]


def test_a_column_whose_name_is_no_utf8_is_damage(tmp_path):
    pq.write_table(pa.table({"text": TEXTS, "labels": LABELS, "naame": TEXTS}), tmp_path / "a")
    content = (tmp_path / "a").read_bytes().replace(b"naame", b"na\xff\xfee")
    (tmp_path / "a").write_bytes(content)
    reader = ParquetReader(ParquetData(source="parquet", inputs=(str(tmp_path / "a"),)))
    with pytest.raises(UserError, match="a .*is not a whole Parquet file: "):
        reader.files()


def test_a_row_group_with_other_rows_than_it_says_ends_the_file_in_a_reject(tmp_path, monkeypatch):
    reader = make(table_of(100), tmp_path, row_group_size=50)
    (file,) = reader.files()
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda *args, **kwargs: (batch.slice(1) for batch in batches(*args, **kwargs)),
    )
    rows = list(reader.read(file))
    assert (len(rows), rows[-1].reason) == (50, UNREADABLE)
    assert "a row group has 49 rows, expected 50" in rows[-1].detail
