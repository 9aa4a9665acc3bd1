"""Columns that are labels': by name, by pattern, all others; in CSV, JSONL and Parquet."""

import csv
import io
import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.sources import label_arrays, label_cells, label_members, registry
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.invalid_row import InvalidRow
from beam_jobs.sources.label_columns import LabelColumns

ROWS = [
    {"key": "1", "text": "a", "topic_cars": 1, "topic_cats": 0, "other": 1},
    {"key": "2", "text": "b", "topic_cars": 0, "topic_cats": 0.5, "other": 0},
    {"key": "3", "text": "c", "topic_cars": 0, "topic_cats": 0, "other": 0},
]


def write(folder, source: str, rows: list[dict]) -> str:
    path = folder / f"in.{source}"
    if source == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif source == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(stream.getvalue().encode())
    elif source == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return str(path)


def read(path: str, source: str, **data) -> list[Document | Reject]:
    raw = {"source": source, "inputs": [path], **data}
    reader = registry.make_reader(config_from_dict({"name": "x", "data": raw}, what="x").data)
    return [row for file in reader.files() for row in reader.read(file)]


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet", "arrow"])
@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        (["topic_*"], [("topic_cars",), ("topic_cats",), ()]),
        (["*"], [("topic_cars", "other"), ("topic_cats",), ()]),
        (["other", "topic_c?ts"], [("other",), ("topic_cats",), ()]),
        (["*_cars", "topic_*"], [("topic_cars",), ("topic_cats",), ()]),
    ],
)
def test_a_pattern_takes_the_columns_that_no_other_key_names(tmp_path, source, columns, labels):
    path = write(tmp_path, source, ROWS)
    rows = read(path, source, id_field="key", label_columns=columns)
    assert [row.labels for row in rows] == labels
    assert [(row.id, row.texts) for row in rows] == [(r["key"], (r["text"],)) for r in ROWS]


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet", "arrow"])
def test_a_columns_own_name_comes_before_a_pattern(tmp_path, source):
    path = write(tmp_path, source, [{"text": "a", "x[1]": 1, "x2": 1}])
    assert [row.labels for row in read(path, source, label_columns=["x[1]"])] == [("x[1]",)]


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet", "arrow"])
def test_a_pattern_that_no_column_matches_is_told_with_the_columns(tmp_path, source):
    path = write(tmp_path, source, ROWS)
    message = r"data.label_columns: .* has no column 'theme_\*'; the columns found are 'key'"
    with pytest.raises(UserError, match=message):
        read(path, source, label_columns=["topic_*", "theme_*"])


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet", "arrow"])
def test_a_column_of_text_among_all_others_ends_with_what_to_do(tmp_path, source):
    path = write(tmp_path, source, [row | {"url": "http"} for row in ROWS])
    with pytest.raises(UserError, match="url.* expected .*or name it with another *key"):
        read(path, source, id_field="key", label_columns=["*"])
    rows = read(path, source, id_field="key", metadata_fields=["url"], label_columns=["*"])
    assert rows[0].labels == ("topic_cars", "other")


def test_thousands_of_columns_are_not_all_listed_in_an_error(tmp_path):
    path = write(tmp_path, "csv", [{"text": "a"} | {f"c{i}": 0 for i in range(2000)}])
    with pytest.raises(UserError, match=r"'c98', \.\.\. \(2,001 in all\)"):
        read(path, "csv", label_columns=["d"])


KINDS = {
    "int8": pa.int8(),
    "uint64": pa.uint64(),
    "bool": pa.bool_(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "decimal": pa.decimal128(5, 2),
    "dictionary": pa.dictionary(pa.int32(), pa.int64()),
    "null": pa.null(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_every_type_of_number_are_read_and_null_is_0(tmp_path, kind):
    values = [None] * 3 if kind == "null" else [1, None, 0]
    values = [True, None, False] if kind == "bool" else values
    column = pa.array(values, KINDS[kind])
    table = pa.table({"text": ["a", "b", "c"], "x": column, "y": pa.array([0, 1, 1], pa.int8())})
    pq.write_table(table, tmp_path / "in.parquet")
    rows = read(f"{tmp_path}/in.parquet", "parquet", label_columns=["x", "y"])
    first = () if kind == "null" else ("x",)
    assert [row.labels for row in rows] == [first, ("y",), ("y",)]


def test_values_of_parquet_that_are_no_numbers_cost_their_rows_alone(tmp_path):
    table = pa.table({"text": list("abcd"), "x": [1.0, float("nan"), float("inf"), 0.25]})
    pq.write_table(table, tmp_path / "in.parquet")
    rows = read(f"{tmp_path}/in.parquet", "parquet", label_columns=["x"], label_threshold=0.25)
    assert [getattr(row, "labels", None) for row in rows] == [("x",), None, None, ("x",)]
    assert {(row.reason, row.row) for row in rows[1:3]} == {
        ("label is not a number", 2),
        ("label is not a number", 3),
    }


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet", "arrow"])
def test_6000_columns_give_what_a_list_gives(tmp_path, source):
    names = [f"l{i}" for i in range(6000)]
    chosen = [
        sorted(np.random.default_rng(i).choice(6000, i % 7, replace=False)) for i in range(12)
    ]
    rows = [
        {"text": f'words "{i}",\nmore'} | {name: int(j in of) for j, name in enumerate(names)}
        for i, of in enumerate(chosen)
    ]
    path = write(tmp_path, source, rows)
    for columns in (["l*"], names):
        found = read(path, source, label_columns=columns)
        assert [row.labels for row in found] == [tuple(names[i] for i in of) for of in chosen]
        assert [row.texts[0] for row in found] == [row["text"] for row in rows]


CELLS = st.sampled_from(
    [
        ("0", "1"),
        ("0.0", "1.0"),
        ("False", "True"),
        ("false", "true"),
        ("", "1"),
        ("", "1.0"),
        ("0", "1.0"),
        ("0", "1", "0.0", "1.0", "true", "", "x", "10.0"),
    ]
)
TEXTS = st.text(st.sampled_from('a,"\n\r0 1'), max_size=9)


@settings(max_examples=50)
@given(
    data=st.data(),
    spelling=CELLS,
    texts=st.lists(TEXTS, min_size=1, max_size=5),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    noise=st.lists(st.text(st.sampled_from('0,1"\n'), max_size=12), max_size=2),
    threshold=st.sampled_from([0.5, 1.0, 1.5]),
)
def test_rows_whose_cells_are_taken_off_are_those_that_are_parsed_whole(
    tmp_path_factory, data, spelling, texts, quoting, line_end, noise, threshold
):
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=quoting, lineterminator=line_end)
    writer.writerow(["text", "x", "y", "z"])
    pieces = []
    for text in texts:
        writer.writerow([text, *(data.draw(st.sampled_from(spelling)) for _ in "xyz")])
        pieces.append(stream.getvalue())
        stream.seek(stream.truncate(0))
    content = "".join(
        itertools.chain.from_iterable(itertools.zip_longest(pieces, noise, fillvalue=""))
    )
    path = tmp_path_factory.getbasetemp() / "in.csv"
    path.write_bytes(content.encode())
    outcomes = []
    for fewest in (1, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(label_cells, "MIN_CUT", fewest)
            config = {"label_columns": ["x", "y", "z"], "label_threshold": threshold}
            try:
                outcomes.append(read(str(path), "csv", **config))
            except UserError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("a,0,1\n", ("a\n", [1])),
        ("a,1,1\n", ("a\n", [0, 1])),
        ("a,0,0\n", ("a\n", [])),
        ("a,0.0,1.0\r\n", ("a\r\n", [1])),
        ("a,True,False", ("a", [0])),
        ("True,False,True", ("True", [1])),
        ("a,1,", ("a", [0])),
        ("1,,\n", ("1\n", [])),
        ("a,1.0,0\n", ("a\n", [0])),
        ("a,0.1,0.0\n", None),
        ("a,0.0,0.1\n", None),
        ("a,1,true\n", None),
        ("a,0,1.0\n", None),
        ("a,1,0.0\n", None),
        ("a,10.0,1.0\n", None),
        ("a,0,10\n", None),
        ("a,0,\n", None),
        ("a,True,\n", None),
        (",0,1\n", None),
        ("0,1\n", None),
        ("\n", None),
        ('"a,0,1\n', ('"a\n', [1])),
    ],
)
def test_only_cells_that_are_spelled_alike_are_taken_off(line, cut, monkeypatch):
    monkeypatch.setattr(label_cells, "MIN_CUT", 1)
    raw = {"source": "csv", "inputs": ["x"], "label_columns": ["x", "y"]}
    data = config_from_dict({"name": "x", "data": raw}, what="x").data
    assert label_cells.LabelCells(data, ["text", "x", "y"]).cut(line.encode()) == (
        cut and (cut[0].encode(), cut[1])
    )


MEMBERS = st.sampled_from(
    [(0, 1), (0.0, 1.0), (False, True), (0, 1, 1.0, True, None, 10, "1", float("nan"), [])]
)


@settings(max_examples=50)
@given(
    data=st.data(),
    values=MEMBERS,
    names=st.sampled_from([("x1", "x2", "x3"), ("x1", 'x"é', "x 2")]),
    style=st.sampled_from([{}, {"separators": (",", ":")}, {"ensure_ascii": False}]),
    columns=st.sampled_from(["*", "x*", "names"]),
    threshold=st.sampled_from([0.5, 1.0, 1.5]),
    window=st.sampled_from([3, 100]),
)
def test_rows_whose_members_are_taken_off_are_those_that_are_parsed_whole(
    tmp_path_factory, data, values, names, style, columns, threshold, window
):
    lines = []
    for number in range(6):
        row = {"text": data.draw(st.sampled_from(['a, "x1": 0', "é", "}", None]))}
        row |= data.draw(st.sampled_from([{}, {"x0": 1}, {"in": {"x1": 1, "x2": 0}}]))
        row |= {name: data.draw(st.sampled_from(values)) for name in names}
        row |= data.draw(st.sampled_from([{}, {}, {}, {"x1": 1}, {"more": 0}]))
        line = json.dumps(row, **style)
        if number > 1:  # a member twice, a row that does not end, one that ends twice
            line = data.draw(st.sampled_from([line, line, line[:-1], line + "}", line + " "]))
            line = line.replace("{", '{"x1":0, ', data.draw(st.sampled_from([0, 0, 1])))
        lines.append(line)
    path = tmp_path_factory.getbasetemp() / "in.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    chosen = list(names) if columns == "names" else [columns]
    outcomes = []
    for fewest in (1, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(label_members, "MIN_CUT", fewest)
            patch.setattr(label_members, "_WINDOW", window)
            patch.setattr(label_members, "_MEMBERS_A_ONE", 1)
            try:
                config = {"label_columns": chosen, "label_threshold": threshold}
                outcomes.append(read(str(path), "jsonl", **config))
            except UserError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(("zero", "one"), [(0, 1), (False, True), (0.0, 1.0)])
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}])
@pytest.mark.parametrize("columns", [["*"], [f"é{i}" for i in range(99, -1, -1)]])
def test_members_of_rows_that_are_written_alike_are_not_parsed(
    tmp_path, zero, one, style, columns, monkeypatch
):
    rows = [
        {"text": f"t{row}"} | {f"é{i}": one if i in (row, 50) else zero for i in range(100)}
        for row in range(5)
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row, **style) + "\n" for row in rows))
    num_cut = []
    cut = label_members.LabelMembers.cut
    monkeypatch.setattr(
        label_members.LabelMembers, "cut", lambda *args: num_cut.append(cut(*args)) or num_cut[-1]
    )
    found = read(str(path), "jsonl", label_columns=columns)
    expected = [(f"é{row}", "é50") for row in range(5)]
    if columns != ["*"]:
        expected = [labels[::-1] for labels in expected]
    assert [row.labels for row in found] == expected
    assert [row is None for row in num_cut] == [True, False, False, False, False]


NUMBERS = {
    "int8": (pa.int8(), [0, 1, -1, 2, None]),
    "uint64": (pa.uint64(), [0, 1, 1 << 63]),
    "bool": (pa.bool_(), [True, False, None]),
    "halffloat": (pa.float16(), [np.float16(x) for x in (0, 1, 0.5, 60000, np.nan, np.inf)]),
    "double": (pa.float64(), [0.0, 1.0, 0.4, -1.0, float("nan"), float("-inf"), 1e308, None]),
    "decimal": (pa.decimal128(5, 2), [0, 1, None]),
    "dictionary": (pa.dictionary(pa.int8(), pa.float64()), [0.0, 1.0, None]),
}


@settings(max_examples=25)
@given(
    data=st.data(),
    kinds=st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=4),
    num_rows=st.integers(0, 7),
    threshold=st.sampled_from([0.3, 1.0]),
    is_parquet=st.booleans(),
    chosen=st.sampled_from([["*"], ["x1", "*"]]),
)
def test_columns_read_as_arrays_give_what_their_rows_give(
    tmp_path_factory, data, kinds, num_rows, threshold, is_parquet, chosen
):
    columns = {"text": pa.array(["a"] * num_rows, pa.string())}
    for i, name in enumerate([*kinds, "int8"]):
        kind, values = NUMBERS[name]
        drawn = data.draw(st.lists(st.sampled_from(values), min_size=num_rows, max_size=num_rows))
        columns[f"x{i}"] = pa.array(drawn, kind)
    table = pa.table(columns)
    path = tmp_path_factory.getbasetemp() / "in"
    if is_parquet:
        pq.write_table(table, path, row_group_size=3)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    source = "parquet" if is_parquet else "arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_arrays, "MAX_ROWS", 2)
        patch.setattr(label_arrays, "_BATCH_BYTES", 1)  # a group a column
        found = read(str(path), source, label_columns=chosen, label_threshold=threshold)
    raw = {"source": source, "inputs": ["x"], "label_columns": chosen, "label_threshold": threshold}
    of_rows = LabelColumns(
        config_from_dict({"name": "x", "data": raw}, what="x").data, all_strings=False
    )
    for row, values in zip(found, table.to_pylist(), strict=True):
        try:
            expected = of_rows.labels(values)
        except InvalidRow as error:
            assert (row.reason, row.detail) == (error.reason, error.detail)
        else:
            assert row.labels == expected
