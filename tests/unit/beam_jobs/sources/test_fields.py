"""Rows of every format become documents by the same rules."""

import csv
import datetime
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contract.sections.data import CsvData, JsonlData, ParquetData
from beam_jobs.sources import registry
from beam_jobs.sources.invalid_row import MAX_LABEL_CHARACTERS

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)
LABEL = st.sampled_from(
    [
        "x",
        "y y",
        "a,b",
        "\u6807\u7b7e",
        '"q"',
        "x" * MAX_LABEL_CHARACTERS,
        "x" * (MAX_LABEL_CHARACTERS + 1),
        "new\nline",
        "tab\tbed",
        "",
    ]
)
ROW = st.fixed_dictionaries(
    {
        "key": st.text("abc", min_size=1, max_size=3),
        "title": TEXT,
        "body": TEXT,
        "tags": st.lists(LABEL, max_size=3).map("|".join),
        "p": st.sampled_from([0, 1]),
        "q": st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -1.0]),
        "w": st.sampled_from([0.0, 1.0, 2.5, -1.0]),
    }
)


def outcome(kind, data: dict, path) -> list[tuple]:
    reader = registry.make_reader(kind(**data | {"inputs": (str(path),)}))
    rows = [row for file in reader.files() for row in reader.read(file)]
    return [
        (row.id, row.texts[0], row.labels, row.weight)
        if hasattr(row, "texts")
        else (row.reason, row.detail)
        for row in rows
    ]


@given(
    rows=st.lists(ROW, min_size=1, max_size=6),
    has_label_columns=st.booleans(),
    threshold=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_jsonl_csv_and_parquet_of_the_same_rows_give_the_same_documents_and_rejects(
    tmp_path_factory, rows, has_label_columns, threshold
):
    folder = tmp_path_factory.getbasetemp()
    (folder / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    (folder / "same.csv").write_bytes(stream.getvalue().encode())
    pq.write_table(pa.Table.from_pylist(rows), folder / "same.parquet")
    data = {
        "id_field": "key",
        "text_fields": ("title", "body"),
        "labels_field": "tags",
        "label_delimiter": "|",
        "label_threshold": threshold,
    }
    data |= {"label_columns": ("q", "p")} if has_label_columns else {"weight_field": "w"}
    jsonl = outcome(JsonlData, {"source": "jsonl"} | data, folder / "same.jsonl")
    parquet = outcome(ParquetData, {"source": "parquet"} | data, folder / "same.parquet")
    table = outcome(CsvData, {"source": "csv"} | data, folder / "same.csv")
    assert len(jsonl) == len(rows) and jsonl == parquet
    assert [row if len(row) == 4 else row[0] for row in table] == [
        row if len(row) == 4 else row[0] for row in jsonl
    ]
    if has_label_columns:
        assert [row[2] for row in jsonl] == [
            ("q",) * (row["q"] >= threshold) + ("p",) * (row["p"] >= threshold) for row in rows
        ]


@pytest.mark.parametrize(
    ("value", "word"), [("dev", "dev"), (2024, "2024"), (None, None), (1.5, "1.5"), ([], "[]")]
)
def test_split_and_time_are_handed_on_as_strings(tmp_path, value, word):
    (tmp_path / "in.jsonl").write_text(
        json.dumps({"text": "a", "labels": [], "part": value, "created": value})
    )
    reader = registry.make_reader(
        JsonlData(
            source="jsonl",
            inputs=(f"{tmp_path}/in.jsonl",),
            split_field="part",
            time_field="created",
        )
    )
    (row,) = reader.read(reader.files()[0])
    assert (row.split, row.time) == (word, word)
    reader = registry.make_reader(JsonlData(source="jsonl", inputs=(f"{tmp_path}/in.jsonl",)))
    (row,) = reader.read(reader.files()[0])
    assert (row.split, row.time) == (None, None)


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("seconds", 1_700_000_000, "2023-11-14T22:13:20+00:00"),
        ("seconds", 1_700_000_000.25, "2023-11-14T22:13:20.250000+00:00"),
        ("seconds", "1700000000", "2023-11-14T22:13:20+00:00"),
        ("milliseconds", 1_700_000_000_123, "2023-11-14T22:13:20.123000+00:00"),
        ("microseconds", -1, "1969-12-31T23:59:59.999999+00:00"),
        ("seconds", 10**30, "1" + "0" * 30),
        ("seconds", "soon", "soon"),
        ("seconds", None, None),
        ("iso", 1_700_000_000, "1700000000"),
    ],
)
def test_a_time_may_be_a_number_of_a_stated_unit(tmp_path, unit, value, expected):
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "a", "labels": [], "at": value}))
    data = {"inputs": (f"{tmp_path}/in.jsonl",), "time_field": "at", "time_format": unit}
    reader = registry.make_reader(JsonlData(source="jsonl", **data))
    (row,) = [row for file in reader.files() for row in reader.read(file)]
    assert row.time == expected


def test_times_of_parquet_are_handed_on_in_iso_8601(tmp_path):
    time = datetime.datetime(2024, 1, 31, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    table = pa.table({"text": ["a"], "labels": [["x"]], "day": [time.date()], "time": [time]})
    pq.write_table(table, tmp_path / "in.parquet")
    for field, expected in (("day", "2024-01-31"), ("time", "2024-01-31T12:00:00+01:00")):
        reader = registry.make_reader(
            ParquetData(source="parquet", inputs=(f"{tmp_path}/in.parquet",), time_field=field)
        )
        assert [row.time for row in reader.read(reader.files()[0])] == [expected]


@pytest.mark.parametrize("value", [[1], "yes", {}, float("nan"), "1"])
def test_a_label_column_of_json_that_is_no_number_is_a_reject(tmp_path, value):
    rows = [{"text": "a", "p": 1}, {"text": "a", "p": value}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, (reason, detail) = outcome(
        JsonlData, {"source": "jsonl", "label_columns": ("p",)}, tmp_path / "in.jsonl"
    )
    assert first[2] == ("p",)
    assert reason == "label is not a number" and detail.startswith("p: received ")


def test_label_columns_of_json_may_be_true_false_null_or_missing(tmp_path):
    rows = [{"p": True, "q": False}, {"p": None, "q": 1}, {"q": 0.5}, {"p": 0.49, "q": 0}]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": "a"} | row) + "\n" for row in rows)
    )
    outcomes = outcome(
        JsonlData, {"source": "jsonl", "label_columns": ("p", "q")}, tmp_path / "in.jsonl"
    )
    assert [row[2] for row in outcomes] == [("p",), ("q",), ("q",), ()]


def test_equal_ids_are_no_error_since_an_id_only_names_a_document(tmp_path):
    (tmp_path / "in.jsonl").write_text(
        '{"text": "a", "labels": [], "key": 1}\n{"text": "b", "labels": [], "key": 1}\n'
    )
    outcomes = outcome(JsonlData, {"source": "jsonl", "id_field": "key"}, tmp_path / "in.jsonl")
    assert [row[:2] for row in outcomes] == [("1", "a"), ("1", "b")]
